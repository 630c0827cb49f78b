"""The service: uploads, builds, and what earlier builders left."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING

from sagong.contracts.builder import (
    BuildRef,
    BuildRequest,
    BuildUsage,
    Dialogue,
    Pruned,
    PruneRequest,
)
from sagong.contracts.streams import Address
from sagong.errors import InvalidArgument
from sagong.host import Host
from sagong_builder.journal import Journal
from sagong_builder.settings import Settings
from sagong_builder.spool import Spool
from sagong_builder.workplace import Workplace

if TYPE_CHECKING:
    from sagong_builder.workshop import Workshop

__all__ = ["BuilderService"]


class BuilderService:
    """Fills `builder`. At rest it is a socket; the workshop is opened by the first build."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._settings = host.config(Settings)
        self._place = Workplace(host.data, host.run)
        self._spool = Spool(self._place.socket, self._place.spool, self._settings.context_limit)
        self._journal = Journal(self._place.borrowed)
        self._sweeping: asyncio.Task[None] | None = None

    @functools.cached_property
    def _workshop(self) -> Workshop:
        from sagong_builder.workshop import Workshop

        return Workshop(self._host, self._settings, self._spool, self._journal)

    async def start(self) -> None:
        """Listen; give back what a builder that was killed had borrowed."""
        left = self._place.inherit()
        await self._spool.start()
        if left:
            sweeping = self._workshop.shop.sweep(left)
            self._sweeping = self._host.spawn(sweeping, "give back what is borrowed")

    def busy(self) -> bool:
        """Whether a build or a conversation is under way, or what is left is given back."""
        sweeping = self._sweeping is not None and not self._sweeping.done()
        return sweeping or self._spool.used

    async def drain(self) -> None:
        """What has begun goes on, beside a successor, until the kernel's bound."""
        if "_workshop" in vars(self):
            self._workshop.drain()
        await self._spool.wait_idle()

    async def stop(self) -> None:
        """End all builds."""
        if "_workshop" in vars(self):
            await self._workshop.stop()
        await self._spool.stop()
        self._place.leave()

    async def upload(self) -> Address:
        """Where to send a context."""
        return self._spool.new_upload()

    async def build(self, request: BuildRequest) -> Address:
        """Where a build can be followed; whoever stops ends it."""
        return self._spool.new_talk(functools.partial(self._workshop.tell, request))

    async def cancel(self, build: BuildRef) -> None:
        """End a build."""
        if "_workshop" in vars(self):
            await self._workshop.cancel(build.id)

    async def usage(self) -> BuildUsage:
        """What is kept."""
        return BuildUsage(records=tuple(await self._workshop.caches.records()))

    async def prune(self, request: PruneRequest) -> Pruned:
        """Delete what is kept."""
        return await self._workshop.caches.prune(request)

    async def converse(self, dialogue: Dialogue) -> Address:
        """A connection of BuildKit's protocol."""
        if dialogue.kind not in ("control", "session"):
            raise InvalidArgument(f"unknown kind of dialogue {dialogue.kind[:50]!r}")
        control = self._workshop.control
        return self._spool.new_talk(functools.partial(control.converse, dialogue))
