"""Tells the measurer what runs: many containers at once, and none that ends in a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from sagong.contracts.metrics import Metrics, Target, TargetRef
from sagong.errors import SagongError
from sagong.host import Host
from sagong_node.records import ContainerRecord

__all__ = ["Measuring"]

# Many containers live for less than one or two of these; nobody sees their use of the machine.
_PERIOD = 0.15


class Measuring:
    """Those that began in a period are told of together, at the end of the next one.

    One message for each would wake both sides once more for each container of a burst.
    """

    def __init__(self, host: Host, containers: Mapping[str, ContainerRecord]) -> None:
        self._host = host
        self._metrics = host.use(Metrics)
        self._containers = containers
        # Runs that the measurer has not been told of: of this period, and of the one before.
        self._young: dict[str, int] = {}
        self._due: dict[str, int] = {}
        self._telling = False

    def begin(self, record: ContainerRecord) -> None:
        """It runs."""
        self._young[record.spec.id] = record.run
        if not self._telling:
            self._telling = True
            self._host.spawn(self._tell(), "tell the measurer")

    async def end(self, record: ContainerRecord) -> None:
        """It does not run any more."""
        id_ = record.spec.id
        if id_ in self._young or id_ in self._due:
            self._young.pop(id_, None)
            self._due.pop(id_, None)
            return
        try:
            await self._metrics.untrack(TargetRef(id=id_))
        except SagongError:
            return

    async def begin_all(self) -> None:
        """The measurer is a new one."""
        await self._track(record for record in self._containers.values() if record.alive)

    async def _tell(self) -> None:
        try:
            while self._young or self._due:
                await asyncio.sleep(_PERIOD)
                due, self._due, self._young = self._due, self._young, {}
                known = ((self._containers.get(id_), run) for id_, run in due.items())
                await self._track(r for r, run in known if r and r.alive and r.run == run)
        finally:
            self._telling = False

    async def _track(self, records: Iterable[ContainerRecord]) -> None:
        """All in one turn of the loop, and so in one message."""
        targets = [
            Target(
                id=record.spec.id,
                cgroup=record.cgroup,
                group=record.spec.sandbox,
                labels=record.spec.labels,
            )
            for record in records
        ]
        # Where nobody measures now, a new measurer is told of all again.
        told = await asyncio.gather(
            *(self._metrics.track(target) for target in targets), return_exceptions=True
        )
        for error in told:
            if error is not None and not isinstance(error, SagongError):
                raise error
