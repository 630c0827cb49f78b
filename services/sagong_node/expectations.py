"""Starts that are expected in the next moment: what was made ready for them, and given back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import NamedTuple

from sagong.call import Call, current, outliving
from sagong.contracts.node import ContainerSpec, StartRequest, StatusState
from sagong.contracts.runtime import ContainerRef, RunSpec
from sagong.errors import NotFound, SagongError
from sagong.host import Host
from sagong_node.assembly import Site, attended, run_spec
from sagong_node.ground import Ground
from sagong_node.records import ContainerRecord, SandboxRecord
from sagong_node.registry import Registry
from sagong_node.runtimes import Runtimes

__all__ = ["Expectation", "Expectations"]

# From the sign that a start will come to the start itself; much longer than any client takes.
_EXPECTED = 3.0

Clear = Callable[[ContainerRecord, SandboxRecord], Awaitable[None]]


class Expectation(NamedTuple):
    """What was expected, the ground for it, and what the runtime was asked to prepare."""

    wanted: ContainerSpec
    site: Site
    spec: RunSpec


class Expectations:
    """By container, under its lock; `clear` gives the ground of one that does not run back."""

    def __init__(
        self,
        host: Host,
        registry: Registry,
        ground: Ground,
        runtimes: Runtimes,
        locks: MutableMapping[str, asyncio.Lock],
        clear: Clear,
    ) -> None:
        self._host = host
        self._registry = registry
        self._ground = ground
        self._runtimes = runtimes
        self._locks = locks
        self._clear = clear
        self._found: dict[str, Expectation] = {}

    def __contains__(self, id_: str) -> bool:
        return id_ in self._found

    async def expect(self, id_: str) -> None:
        """Make ready what a start needs, as long as one may come."""
        async with self._locks[id_]:
            record = self._registry.containers.get(id_)
            if record is None:
                raise NotFound(f"No such container: {id_}")
            idle = record.state in (StatusState.CREATED, StatusState.EXITED)
            if not idle or id_ in self._found or record.image is None:
                return
            expected = await self._begin(record)
        if expected is not None:
            self._host.spawn(self._await_start(expected), f"expect {id_[:12]}")

    @contextlib.asynccontextmanager
    async def making(self, record: ContainerRecord) -> AsyncIterator[Callable[[], None]]:
        """While a container is made whose start comes next: it joins its network meanwhile.

        What is yielded is called when its root and volumes are there: all else is made ready then,
        while the record is written. Nothing of that is left when its making fails.
        """
        id_, loop = record.spec.id, asyncio.get_running_loop()
        lent, made = loop.create_future(), loop.create_future()
        work = self._expect_made(current(), record, lent, made)
        expecting = self._host.spawn(work, f"expect {id_[:12]}")
        failed = True
        try:
            yield lambda: _settle(lent, result=True)
            failed = False
        finally:
            _settle(lent, result=False)
            _settle(made, result=not failed)
            if failed:
                await expecting
                self._locks.pop(id_, None)

    async def _expect_made(
        self,
        call: Call,
        record: ContainerRecord,
        lent: asyncio.Future[bool],
        made: asyncio.Future[bool],
    ) -> None:
        sandbox = self._registry.sandboxes[record.spec.sandbox]
        with outliving(call):
            async with self._locks[record.spec.id]:
                with contextlib.suppress(SagongError):
                    await self._ground.join(sandbox)
                expected = await self._begin(record) if await lent else None
                if not await made:
                    expected = None
                    if await self.drop(record) or sandbox.network is not None:
                        with contextlib.suppress(SagongError):
                            await self._clear(record, sandbox)
        if expected is not None:
            await self._await_start(expected)

    async def _await_start(self, expected: Expectation) -> None:
        await asyncio.sleep(_EXPECTED)
        if self._found.get(expected.wanted.id) is expected:
            with contextlib.suppress(SagongError):
                await self.withdraw(expected.wanted.id)

    async def give_up(self, sandbox: str) -> None:
        """What was made ready for a sandbox's containers is not what their starts will need."""
        for id_ in list(self._found):
            record = self._registry.containers.get(id_)
            if record is not None and record.spec.sandbox == sandbox:
                await self.withdraw(id_)

    async def withdraw(self, id_: str) -> None:
        """Give back the ground of a container that does not run; a crash may have left it."""
        async with self._locks[id_]:
            record = self._registry.containers.get(id_)
            if record is None or record.begun:
                return
            dropped = await self.drop(record)
            sandbox = self._registry.sandboxes[record.spec.sandbox]
            if sandbox.network is not None and not sandbox.spec.explicit:
                if not dropped:
                    await self.discard(record)
                await self._clear(record, sandbox)

    async def _begin(self, record: ContainerRecord) -> Expectation | None:
        """Do what a start needs but the program's execution; what fails is told by the start."""
        sandbox = self._registry.sandboxes.get(record.spec.sandbox)
        if sandbox is None:
            return None  # removed while it was made
        try:
            site = await self._ground.site(record, sandbox)
            spec = run_spec(record.spec, site, record.run + 1)
        except (SagongError, ExceptionGroup):
            with contextlib.suppress(SagongError):
                await self._clear(record, sandbox)
            return None
        made = self._found[record.spec.id] = Expectation(record.spec, site, spec)
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


def _settle(future: asyncio.Future[bool], *, result: bool) -> None:
    """Once; whoever waits for it may have been given up."""
    if not future.done():
        future.set_result(result)
