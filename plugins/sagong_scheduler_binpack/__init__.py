"""Slot `scheduler` that fills nodes: each pod goes to the fullest node that can take it."""

from __future__ import annotations

import msgspec

from sagong.contracts.objects import Objects
from sagong.contracts.scheduler import Question, Verdict
from sagong.host import Host
from sagong.scheduling.decision import answer
from sagong.scheduling.dispatch import Dispatch
from sagong.scheduling.hooks import filters
from sagong.scheduling.naming import names_of
from sagong_scheduler_binpack.decider import BinpackDecider

__all__ = ["Configuration", "SchedulerBinpack"]


class Configuration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`scheduler_names`: the values of a pod's spec.schedulerName that it serves; by default its
    instance's name."""

    scheduler_names: tuple[str, ...] = ()


class SchedulerBinpack:
    """Answers `place`, and binds pending pods where API objects are served."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._configuration = host.config(Configuration)
        self._filters = filters(host)

    async def start(self) -> None:
        """Begin to follow pods and nodes; returns at once."""
        self._dispatch = Dispatch(
            self._host.use(Objects),
            BinpackDecider(),
            names=names_of(self._host, self._configuration.scheduler_names),
            log=self._host.log,
            filters=self._filters,
        )
        self._host.spawn(self._dispatch.run(), "dispatch")

    def busy(self) -> bool:
        """Whether a pod is to be placed, or something may follow soon."""
        return self._dispatch.busy()

    async def doze(self) -> float:
        """Sleep until something comes that can make a pod fit, or a pod."""
        return await self._dispatch.doze()

    def place(self, question: Question) -> Verdict:
        """Decide the question; nothing of the cluster's state plays a part."""
        return answer(BinpackDecider(), question, self._filters)
