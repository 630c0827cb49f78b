"""The plugin's connections: one to the launcher, one to each monitor, one for each short job."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from sagong.call import remaining
from sagong.contracts.runtime import ShowRequest
from sagong.errors import SagongError, Unavailable, Unimplemented
from sagong.shim.connection import Connection, connect
from sagong.shim.directory import RunDirectory
from sagong.shim.facts import HostFacts
from sagong.shim.jobs import BRIEF

__all__ = ["Links"]

# A launcher is a new interpreter, which takes long where nobody gets much of the processor. The first
# bound is less than a start may last, so that it is told who did not come.
_CONNECT_SECONDS = 50.0
_RESTART_SECONDS = 30.0
_PAUSE_SECONDS = 0.05
# A monitor that dies may still accept one connection; after that one is lost, its socket is dead.
_ASK_ATTEMPTS = 3


class Links:
    """Finds, makes and replaces connections; tells of events and of monitors that ended."""

    def __init__(
        self,
        directory: RunDirectory,
        log: logging.Logger,
        event: Callable[[str, dict[str, Any]], None],
        monitor_gone: Callable[[str], None],
        running: Callable[[str], list[str]],
        maker: str,
    ) -> None:
        self._directory = directory
        self._log = log
        self._event = event
        self._monitor_gone = monitor_gone
        self._running = running
        self._maker = maker
        self._monitors: dict[str, Connection] = {}
        # A lock lives as long as somebody holds it or waits for it.
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._launcher: Connection | None = None
        self._lost = asyncio.Event()
        self._closing = False
        self.facts: HostFacts | None = None
        self.deposits = 0

    async def open(self) -> None:
        """Reach the launcher; it may be starting at this moment."""
        deadline = asyncio.get_running_loop().time() + _CONNECT_SECONDS
        while True:
            try:
                await self._greet_launcher()
            except Unavailable:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return

    async def _greet_launcher(self) -> None:
        connection = await self._dial_launcher(self._lost.set)
        self._lost.clear()
        self.facts = msgspec.convert(
            await connection.ask({"op": "facts", "maker": self._maker}), HostFacts
        )
        self._launcher = connection

    async def _dial_launcher(self, lost: Callable[[], None]) -> Connection:
        path = self._directory.launcher_socket
        return await connect(path, "launcher", lambda _: None, lost, monitor=False)

    async def _dial_patiently(
        self, name: str, event: Callable[[dict[str, Any]], None], lost: Callable[[], None]
    ) -> Connection:
        """A launcher that was killed is back within a second or two, if the machine is not busy."""
        deadline = asyncio.get_running_loop().time() + remaining(_RESTART_SECONDS)
        while True:
            try:
                path = self._directory.launcher_socket
                return await connect(path, name, event, lost, monitor=False)
            except Unavailable:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)

    async def keep_launcher(self) -> None:
        """For ever: when the launcher was replaced, let monitors give it their lifelines."""
        while True:
            await self._lost.wait()
            try:
                await self._greet_launcher()
            except Unavailable:
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            self._log.info("launcher is back", extra={"monitors": len(self._monitors)})
            for connection in tuple(self._monitors.values()):
                with contextlib.suppress(SagongError):
                    await connection.ask({"op": "deposit"})
            self.deposits += 1

    def close(self) -> None:
        """Hang up everywhere; monitors and launcher live on."""
        self._closing = True
        for connection in (*self._monitors.values(), self._launcher):
            if connection is not None:
                connection.close()

    def _lock(self, key: str) -> asyncio.Lock:
        """Who looks for a monitor of the key waits for who makes one."""
        return self._locks.setdefault(key, asyncio.Lock())

    async def find(self, key: str) -> Connection | None:
        """The monitor of this key if one lives."""
        async with self._lock(key):
            return await self._find(key)

    async def _find(self, key: str) -> Connection | None:
        known = self._monitors.get(key)
        if known is not None and not known.closed:
            return known
        try:
            return self._keep(
                key,
                await connect(
                    self._directory.monitor_socket(key),
                    f"monitor {key}",
                    lambda message: self._event(key, message),
                    lambda: self._gone(key),
                    monitor=True,
                ),
            )
        except Unavailable:
            return None

    async def obtain(self, key: str) -> Connection:
        """The monitor of this key, made if none lives."""
        async with self._lock(key):
            return await self._find(key) or await self._fork_monitor(key)

    async def _fork_monitor(self, key: str) -> Connection:
        """A monitor that has adopted what its predecessor left, before anybody else can ask it."""
        connection = await self._dial_patiently(
            f"monitor {key}",
            lambda message: self._event(key, message),
            lambda: self._gone(key),
        )
        left = self._running(key)
        connection.begin_with({"op": "monitor", "key": key, "starts": not left})
        if left:
            try:
                await connection.ask({"op": "adopt", "ids": left})
            except (SagongError, asyncio.CancelledError):
                connection.close()
                raise
        return self._keep(key, connection)

    async def ask(
        self,
        key: str,
        request: dict[str, Any],
        *,
        again: Callable[[], Awaitable[bool]] | None = None,
    ) -> dict[str, Any]:
        """An answer of the key's monitor; when it died meanwhile, of its successor.

        Without `again` the request may be sent twice; else it is called after a death and says
        whether the request left no trace.
        """
        for _ in range(_ASK_ATTEMPTS - 1):
            try:
                return await (await self.obtain(key)).ask(request)
            except Unavailable:
                if again is not None and not await again():
                    raise
        return await (await self.obtain(key)).ask(request)

    def _keep(self, key: str, connection: Connection) -> Connection:
        self._monitors[key] = connection
        return connection

    def _gone(self, key: str) -> None:
        connection = self._monitors.get(key)
        if connection is None or not connection.closed:
            return  # A younger monitor of this key serves.
        del self._monitors[key]
        if not self._closing:
            self._monitor_gone(key)

    @contextlib.asynccontextmanager
    async def showing(
        self, directory: str, wanted: ShowRequest
    ) -> AsyncIterator[tuple[tuple[str, ...], asyncio.Event]]:
        """Where the launcher shows parts of the machine meanwhile, and what tells that it ended."""
        ended = asyncio.Event()
        connection = await self._dial_patiently("launcher", lambda _: None, ended.set)
        try:
            request = {"op": "show", "directory": directory, "sources": wanted.sources}
            answer = await connection.ask({**request, "made": wanted.made})
            yield tuple(answer["paths"]), ended
        finally:
            connection.close()

    async def job(self, key: str, request: dict[str, Any]) -> dict[str, Any]:
        """A short job: a brief one by the key's monitor, if it can; else by the launcher."""
        message = {"op": "job", **request}
        monitor = self._monitors.get(key)
        if request["job"] in BRIEF and monitor is not None and not monitor.closed:
            # One that dies now may have done it: again is no harm, and not at all would be.
            with contextlib.suppress(Unimplemented, Unavailable):
                return await monitor.ask(message)
        return await self._job_of_launcher(message)

    async def _job_of_launcher(self, message: dict[str, Any]) -> dict[str, Any]:
        """On a connection of its own."""
        connection = await self._dial_patiently("launcher", lambda _: None, lambda: None)
        try:
            return await connection.ask(message)
        finally:
            connection.close()
