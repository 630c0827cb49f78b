"""All builds of this process, each a task of its own. Imported with the first of them.

Why so late: most machines build seldom, and what a build needs is twice what an idle builder is.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from sagong.building import Told, failure, item
from sagong.call import detached
from sagong.contracts.builder import BuildProgress, BuildRequest
from sagong.contracts.image import Images
from sagong.contracts.node import Node
from sagong.errors import Cancelled, InvalidArgument, SagongError
from sagong.frames import pack
from sagong.host import Host
from sagong_builder.build import Build
from sagong_builder.caches import Caches
from sagong_builder.journal import Journal
from sagong_builder.reporter import Reporter
from sagong_builder.settings import Settings
from sagong_builder.shop import Shop
from sagong_builder.spool import Spool

if TYPE_CHECKING:
    from sagong_builder.buildkit.control import Control

__all__ = ["Workshop"]


class Workshop:
    """Builds."""

    def __init__(self, host: Host, settings: Settings, spool: Spool, journal: Journal) -> None:
        images = host.use(Images)
        self.shop = Shop(images, host.use(Node), spool, journal, settings, host.log)
        self.caches = Caches(host.data, images)
        self.caches.load()
        self._host = host
        self._settings = settings
        self._builds: dict[str, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(settings.parallel)

    @functools.cached_property
    def control(self) -> Control:
        """For clients of BuildKit's protocol; imported with the first of them."""
        from sagong_builder.buildkit.control import Control
        from sagong_builder.buildkit.history import Bounds, History

        given = self._settings
        bounds = Bounds(given.history_entries, given.history_seconds, given.history_bytes)
        history = History(self._host.data / "history", self.shop.spool.directory, bounds)
        return Control(self.shop, self.caches, self._host.run, history)

    def drain(self) -> None:
        """A successor takes the builds that come."""
        if "control" in vars(self):
            self.control.drain()

    async def stop(self) -> None:
        """End all builds; each gives back what it borrowed."""
        tasks = list(self._builds.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.shop.settled()

    async def build(self, request: BuildRequest) -> AsyncGenerator[BuildProgress, None]:
        """A build; whoever stops listening ends it."""
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

    async def tell(
        self, request: BuildRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """A build, told on a connection; it ends with that."""
        telling = asyncio.create_task(self._tell(request, writer))
        gone = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait([telling, gone], return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            telling.cancel()
            await asyncio.gather(telling, gone, return_exceptions=True)

    async def _tell(self, request: BuildRequest, writer: asyncio.StreamWriter) -> None:
        try:
            async with contextlib.aclosing(self.build(request)) as items:
                async for progress in items:
                    writer.write(item(progress))
                    await writer.drain()
            writer.write(pack(Told.END))
        except SagongError as error:
            writer.write(failure(error))
        await writer.drain()

    async def _run(self, request: BuildRequest, reporter: Reporter) -> None:
        with detached():
            async with self._places:
                await Build(self.shop, self.caches, request, reporter).run()

    async def cancel(self, build: str) -> None:
        """End a build."""
        task = self._builds.get(build)
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
