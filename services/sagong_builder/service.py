"""The service: uploads, builds as tasks of their own, and what earlier builders left."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from sagong.call import detached
from sagong.contracts.builder import (
    BuildProgress,
    BuildRef,
    BuildRequest,
    BuildUsage,
    Dialogue,
    Pruned,
    PruneRequest,
)
from sagong.contracts.image import Images
from sagong.contracts.node import Node
from sagong.contracts.streams import Address
from sagong.errors import Cancelled, InvalidArgument, Unimplemented
from sagong.host import Host
from sagong_builder.settings import Settings
from sagong_builder.spool import Spool

__all__ = ["BuilderService"]


class BuilderService:
    """Fills `builder`."""

    def __init__(self, host: Host) -> None:
        from sagong_builder.caches import Caches
        from sagong_builder.shop import Journal, Shop

        self._host = host
        settings = host.config(Settings)
        images, node = host.use(Images), host.use(Node)
        self._spool = Spool(host.run / "streams.sock", host.data / "spool", settings.context_limit)
        journal = Journal(host.data / "borrowed")
        self._shop = Shop(images, node, self._spool, journal, settings, host.log)
        self._caches = Caches(host.data, images)
        self._builds: dict[str, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(settings.parallel)

    async def start(self) -> None:
        """Listen; give back what a builder that was killed had borrowed."""
        self._caches.load()
        left = self._shop.journal.names()
        await self._spool.start()
        if left:
            self._host.spawn(self._shop.sweep(left), "give back what is borrowed")

    async def stop(self) -> None:
        """End all builds; each gives back what it borrowed."""
        tasks = list(self._builds.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._spool.stop()

    async def upload(self) -> Address:
        """Where to send a context."""
        return self._spool.new_upload()

    async def build(self, request: BuildRequest) -> AsyncIterator[BuildProgress]:
        """A build; whoever stops listening ends it."""
        from sagong_builder.reporter import Reporter

        if not request.id or request.id in self._builds:
            raise InvalidArgument(f"the build needs an id of its own, not {request.id[:80]!r}")
        reporter = Reporter()
        task = asyncio.create_task(self._run(request, reporter), name=f"build {request.id[:12]}")
        self._builds[request.id] = task
        try:
            async for item in reporter.until(task):
                yield item
            if task.cancelled():
                raise Cancelled("the build was cancelled")
            task.result()
        finally:
            task.cancel()
            # The listener may be gone already; what the build borrowed is given back all the same.
            await asyncio.shield(asyncio.wait([task]))
            self._builds.pop(request.id, None)
            if not task.cancelled():
                task.exception()

    async def _run(self, request: BuildRequest, reporter: object) -> None:
        from sagong_builder.build import Build
        from sagong_builder.reporter import Reporter

        assert isinstance(reporter, Reporter)
        with detached():
            async with self._places:
                await Build(self._shop, self._caches, request, reporter).run()

    async def cancel(self, build: BuildRef) -> None:
        """End a build."""
        task = self._builds.get(build.id)
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])

    async def usage(self) -> BuildUsage:
        """What is kept."""
        return BuildUsage(records=tuple(await self._caches.records()))

    async def prune(self, request: PruneRequest) -> Pruned:
        """Delete what is kept."""
        return await self._caches.prune(request)

    async def converse(self, dialogue: Dialogue) -> Address:
        """BuildKit's protocol."""
        raise Unimplemented("this builder does not speak BuildKit's protocol")
