"""How a container comes to be: its root, its volumes and its record, or nothing of it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

import msgspec

from sagong.call import leaving
from sagong.contracts.node import StatusState
from sagong.contracts.runtime import ShowRequest
from sagong.errors import InvalidArgument, NotFound, SagongError
from sagong_node.command import check_command
from sagong_node.concert import together
from sagong_node.ground import Ground
from sagong_node.lifecycle import Lifecycle
from sagong_node.records import ContainerRecord
from sagong_node.registry import Registry

__all__ = ["Creation"]


class Creation:
    """Makes what a checked record asks for."""

    def __init__(self, life: Lifecycle, registry: Registry, ground: Ground) -> None:
        self._life = life
        self._registry = registry
        self._ground = ground

    async def make(self, record: ContainerRecord, *, expected: bool) -> None:
        """All of it; `expected` says that its start will be asked for at once."""
        self._ground.begin(record)
        try:
            making = self._life.expectations.making if expected else _unexpected
            async with making(record) as lent:
                await self._check_sources(record)
                await self._make(record, lent)
        except SagongError:
            self._registry.forget(record)
            await self._ground.remove(record, volumes=True)
            self._ground.made(record)
            raise

    async def _check_sources(self, record: ContainerRecord) -> None:
        """By the runtime, which alone sees the machine."""
        sources = tuple(m.source for m in record.spec.mounts if m.kind == "bind" and m.present)
        if not sources:
            return
        runtime = self._life.runtimes.of(record)
        try:
            async with leaving(runtime.show(ShowRequest(sources=sources))) as stream:
                async for _ in stream:
                    return
        except NotFound as error:
            raise InvalidArgument(
                f'invalid mount config for type "bind": {error.message}'
            ) from None

    async def _make(self, record: ContainerRecord, lent: Callable[[], None]) -> None:
        """It is written down while its root is made; the image it was made of is written soon after.

        What a crash leaves without an image is finished, or removed, by `Lifecycle.reconcile`.
        `lent` is called when all is there that was asked of others.
        """
        self._life.runtimes.rouse(record)
        # In this order: a start needs the root first, and the answer alone waits for the record.
        unmade = msgspec.structs.replace(record)
        self._check_wanted(record)
        await together(self._lend(record, lent), self._intend(unmade))
        self._check_wanted(record)
        self._ground.made(record)
        if record.mounting:
            await self._ground.reserve(record)
            self._check_wanted(record)
            lent()
            self._registry.keep(record)
            await self._registry.stored(record)
        else:
            self._registry.keep(record, later=True)

    def _check_wanted(self, record: ContainerRecord) -> None:
        """NotFound if one that a crash cut short, or its sandbox, is removed while it is made again: a
        record that is written then would be without its sandbox, for ever."""
        if record.state is StatusState.REMOVING:
            raise NotFound(f"container {record.spec.id} was removed while it was made")
        self._life.sandbox(record.spec.sandbox)

    async def _intend(self, record: ContainerRecord) -> None:
        self._registry.intend(record)
        await self._registry.stored(record)

    async def _lend(self, record: ContainerRecord, lent: Callable[[], None]) -> None:
        await self._ground.lend(record)
        check_command(record.spec.command, record.image)
        if not record.mounting:
            lent()


@contextlib.asynccontextmanager
async def _unexpected(_: ContainerRecord) -> AsyncIterator[Callable[[], None]]:
    """The making of one whose start may come at any time."""
    yield lambda: None
