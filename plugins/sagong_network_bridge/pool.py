"""Namespaces made in advance for networks in use, so that a join only has to give one its addresses.

Refilled in the background. Who finds none waits for one that is made now; those who wait together
have theirs made together. Where many were taken at once as many are kept for a while, up to a limit:
who starts them is likely to do it again. Nothing of it is recorded: what is left after a crash is
swept with all pins and interfaces that no sandbox has.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from sagong_network_bridge.cells import MOST, Cell, Cells, Port

__all__ = ["Pool", "Want"]

Run = Callable[..., Coroutine[Any, Any, Any]]


# Who waits for a namespace now comes first; and a container that begins needs the processor more
# than the next one needs its namespace, as long as there is one for it.
_COURTESY, _CALM = 0.002, 0.05


class Want:
    """Cells of one form: the network's port, with or without resolver sockets.

    `level` is how many are kept, `taken` how many have been taken in the burst that is going on.
    """

    def __init__(self, port: Port, *, resolver: bool, level: int) -> None:
        self.port = port
        self.resolver = resolver
        self.level = level
        self.taken = 0
        self.ready: deque[Cell] = deque()
        self.waiting: deque[asyncio.Future[Cell]] = deque()
        self.used = 0.0
        self.burst = 0.0

    def settle(self, least: int, most: int) -> None:
        """A burst is over: as many as were taken in it are kept, more if there were greater ones."""
        if self.taken > least and 2 * self.taken >= self.level:
            self.burst = self.used
        self.level = max(self.level, least, min(self.taken, most))
        self.taken = 0

    def expiry(self, least: int, seconds: float) -> float:
        """When some of them, or all, have not been needed for so long."""
        return (self.burst if self.level > least else self.used) + seconds

    def give(self, cells: list[Cell]) -> None:
        """To those who wait, in their order; the rest is ready."""
        for cell in cells:
            while self.waiting and self.waiting[0].done():
                self.waiting.popleft()
            if self.waiting:
                self.waiting.popleft().set_result(cell)
            else:
                self.ready.append(cell)

    def refuse(self, error: Exception) -> None:
        """The first who waits is told why there is none."""
        while self.waiting:
            first = self.waiting.popleft()
            if not first.done():
                first.set_exception(error)
                return


class Pool:
    """Keeps `size` cells for each network used in the last `seconds`, after bursts up to `most`."""

    def __init__(
        self, cells: Cells, run: Run, log: logging.Logger, *, size: int, most: int, seconds: float
    ) -> None:
        self._cells = cells
        self._log = log
        self._run = run
        self._size, self._most = size, max(most, size) if size else 0
        self._seconds = seconds
        self._wants: dict[str, Want] = {}
        self._builders: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()

    async def take(self, port: Port, *, resolver: bool) -> Cell:
        """A ready cell, or one made now."""
        if port.lower is not None:
            # Each would be seen on a network that isn't ours.
            (made,) = await self._run(self._cells.build, port, resolver=resolver)
            return made  # type: ignore[no-any-return]
        want = self._wants.get(port.network)
        if want is None or want.port != port or want.resolver != resolver:
            await self.drop(port.network)
            want = self._wants[port.network] = Want(port, resolver=resolver, level=self._size)
        want.used = time.monotonic()
        want.taken += 1
        if self._size:
            self._wake.set()
        if want.ready:
            return want.ready.popleft()
        return await self._made(want)

    async def _made(self, want: Want) -> Cell:
        loop = asyncio.get_running_loop()
        promise: asyncio.Future[Cell] = loop.create_future()
        want.waiting.append(promise)
        if len(want.waiting) == 1:
            builder = loop.create_task(self._serve(want))
            self._builders.add(builder)
            builder.add_done_callback(self._builders.discard)
        try:
            return await promise
        except asyncio.CancelledError:
            if promise.done() and not promise.cancelled() and promise.exception() is None:
                await self._run(self._cells.discard, [promise.result()])
            raise

    async def _serve(self, want: Want) -> None:
        """Make what is waited for, as much at once as there is by then."""
        most = MOST
        while want.waiting:
            count = min(len(want.waiting), most)
            try:
                want.give(await self._built(want, count))
            except Exception as error:
                # Where one of many fails, each has a chance of its own.
                most = 1
                if count == 1:
                    want.refuse(error)
        if self._wants.get(want.port.network) is not want:
            await self._discard(want)

    async def _built(self, want: Want, count: int) -> list[Cell]:
        build = self._cells.build
        cells: list[Cell] = await self._run(build, want.port, count, resolver=want.resolver)
        return cells

    def has(self, veth: str) -> bool:
        """Whether an interface of the host is of a cell that is ready."""
        return any(cell.veth == veth for want in self._wants.values() for cell in want.ready)

    async def drop(self, network: str) -> None:
        """Discard a network's cells: it has changed or goes away."""
        want = self._wants.pop(network, None)
        if want is not None:
            await self._discard(want)

    async def _discard(self, want: Want, keep: int = 0) -> None:
        cells = [want.ready.pop() for _ in range(len(want.ready) - keep)]
        if cells:
            await self._run(self._cells.discard, cells)

    async def close(self) -> None:
        """Discard all."""
        if self._builders:
            await asyncio.wait(self._builders)
        for network in list(self._wants):
            await self.drop(network)

    async def refill(self) -> None:
        """The background's work, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            more = True
            while more:
                await asyncio.sleep(self._pause())
                more = await self._refill_some()
            if any(want.ready for want in self._wants.values()):
                await self._wait_or_age()

    def _pause(self) -> float:
        """Who waits is served already: what is made beside would take the processor from them."""
        if not all(want.ready or want.waiting for want in self._wants.values()):
            return _COURTESY
        return max(self._last_use() + _CALM - time.monotonic(), _COURTESY)

    def _last_use(self) -> float:
        return max((want.used for want in self._wants.values()), default=0.0)

    async def _refill_some(self) -> bool:
        """One at a time where somebody may come for it, else all."""
        calm = time.monotonic() >= self._last_use() + _CALM
        for want in list(self._wants.values()):
            if calm:
                want.settle(self._size, self._most)
            missing = want.level - len(want.ready)
            if missing <= 0:
                continue
            if want.waiting or await self._refill_one(want, min(missing, MOST) if calm else 1):
                return True
        return False

    async def _refill_one(self, want: Want, count: int) -> bool:
        try:
            cells = await self._built(want, count)
        except OSError as error:
            if count > 1:
                return await self._refill_one(want, 1)
            self._give_up(want, error)
            return False
        want.taken = max(want.taken - count, 0)
        want.give(cells)
        if self._wants.get(want.port.network) is not want:
            await self._discard(want)
        return True

    def _give_up(self, want: Want, error: OSError) -> None:
        """The network may just have been deleted; else its next join says what is wrong."""
        if self._wants.get(want.port.network) is want and not want.ready:
            del self._wants[want.port.network]
            self._log.warning(
                "no namespaces in advance: %s", error, extra={"network": want.port.network}
            )

    async def _wait_or_age(self) -> None:
        """Until somebody takes a cell; networks that nobody uses lose theirs."""
        ends = [want.expiry(self._size, self._seconds) for want in self._wants.values()]
        try:
            async with asyncio.timeout(max(min(ends) - time.monotonic(), 0.0)):
                await self._wake.wait()
        except TimeoutError:
            self._wake.set()
        await self._age()

    async def _age(self) -> None:
        now = time.monotonic()
        for network, want in list(self._wants.items()):
            if want.used + self._seconds <= now:
                await self.drop(network)
            elif want.expiry(self._size, self._seconds) <= now:
                want.level = self._size
                await self._discard(want, keep=self._size)
