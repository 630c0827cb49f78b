"""Starts that are expected in the next moment: what was made ready for them, and given back."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from sagong.contracts.node import ContainerSpec, StartRequest
from sagong.contracts.runtime import ContainerRef, RunSpec
from sagong.errors import SagongError
from sagong_node.assembly import Site, attended, run_spec
from sagong_node.ground import Ground
from sagong_node.records import ContainerRecord, SandboxRecord
from sagong_node.runtimes import Runtimes

__all__ = ["Expectation", "Expectations"]


class Expectation(NamedTuple):
    """What was expected, the ground for it, and what the runtime was asked to prepare."""

    wanted: ContainerSpec
    site: Site
    spec: RunSpec


class Expectations:
    """By container. Callers hold the container's lock, and give the ground back."""

    def __init__(self, ground: Ground, runtimes: Runtimes) -> None:
        self._ground = ground
        self._runtimes = runtimes
        self._found: dict[str, Expectation] = {}

    def __contains__(self, id_: str) -> bool:
        return id_ in self._found

    @property
    def containers(self) -> list[str]:
        """Whose start is expected."""
        return list(self._found)

    def holds(self, expectation: Expectation) -> bool:
        """Whether it still stands."""
        return self._found.get(expectation.wanted.id) is expectation

    async def begin(self, record: ContainerRecord, sandbox: SandboxRecord) -> Expectation:
        """Do what a start needs but the program's execution; errors are those of the ground."""
        site = await self._ground.site(record, sandbox)
        spec = run_spec(record.spec, site, record.run + 1)
        made = self._found[record.spec.id] = Expectation(record.spec, site, spec)
        # Its error is told by the start, which tries again.
        with contextlib.suppress(SagongError):
            await self._runtimes.of(record).prepare(spec)
        return made

    async def fulfil(
        self, record: ContainerRecord, sandbox: SandboxRecord, request: StartRequest
    ) -> tuple[Site, RunSpec]:
        """The start has come, expected or not: its ground, and what the runtime is asked for."""
        made = self._found.pop(record.spec.id, None)
        site = made.site if made is not None else await self._ground.site(record, sandbox)
        if made is not None and made.wanted is record.spec:
            spec = made.spec
        else:
            spec = run_spec(record.spec, site, record.run + 1)
        return site, attended(spec, record.spec, request)

    async def drop(self, record: ContainerRecord) -> bool:
        """Forget it; what the runtime prepared is gone then. Whether there was one."""
        if self._found.pop(record.spec.id, None) is None:
            return False
        await self.discard(record)
        return True

    async def discard(self, record: ContainerRecord) -> None:
        """What is prepared is in namespaces that are to be given back."""
        with contextlib.suppress(SagongError):
            await self._runtimes.of(record).discard(ContainerRef(id=record.spec.id))
