"""Namespaces made in advance for networks in use, so that a join only has to give one its addresses.

Refilled in the background, one at a time. Nothing of it is recorded: what is left after a crash is
swept with all pins and interfaces that no sandbox has.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from sagong_network_bridge.cells import Cell, Cells, Port

__all__ = ["Pool", "Want"]

Run = Callable[..., Coroutine[Any, Any, Any]]


# Who waits for a namespace now comes first; and a container that begins needs the processor more
# than the next one needs its namespace, as long as there is one for it.
_COURTESY, _CALM = 0.002, 0.05


class Want:
    """Cells of one form: the network's port, with or without resolver sockets."""

    def __init__(self, port: Port, *, resolver: bool) -> None:
        self.port = port
        self.resolver = resolver
        self.ready: deque[Cell] = deque()
        self.used = 0.0


class Pool:
    """Keeps `size` cells for each network used in the last `seconds`."""

    def __init__(
        self, cells: Cells, run: Run, log: logging.Logger, *, size: int, seconds: float
    ) -> None:
        self._cells = cells
        self._log = log
        self._run = run
        self._size = size
        self._seconds = seconds
        self._wants: dict[str, Want] = {}
        self._wake = asyncio.Event()

    async def take(self, port: Port, *, resolver: bool) -> Cell:
        """A ready cell, or one made now."""
        if port.lower is not None:
            # Each would be seen on a network that isn't ours.
            made: Cell = await self._run(self._cells.build, port, resolver=resolver)
            return made
        want = self._wants.get(port.network)
        if want is None or want.port != port or want.resolver != resolver:
            await self.drop(port.network)
            want = self._wants[port.network] = Want(port, resolver=resolver)
        want.used = time.monotonic()
        if self._size:
            self._wake.set()
        if want.ready:
            return want.ready.popleft()
        cell: Cell = await self._run(self._cells.build, port, resolver=resolver)
        return cell

    def has(self, veth: str) -> bool:
        """Whether an interface of the host is of a cell that is ready."""
        return any(cell.veth == veth for want in self._wants.values() for cell in want.ready)

    async def drop(self, network: str) -> None:
        """Discard a network's cells: it has changed or goes away."""
        want = self._wants.pop(network, None)
        if want is not None:
            await self._discard(want)

    async def _discard(self, want: Want) -> None:
        cells, want.ready = list(want.ready), deque()
        for cell in cells:
            await self._run(self._cells.discard, cell)

    async def close(self) -> None:
        """Discard all."""
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
                more = await self._refill_one()
            if any(want.ready for want in self._wants.values()):
                await self._wait_or_age()

    def _pause(self) -> float:
        if not all(want.ready for want in self._wants.values()):
            return _COURTESY
        last = max((want.used for want in self._wants.values()), default=0.0)
        return max(last + _CALM - time.monotonic(), _COURTESY)

    async def _refill_one(self) -> bool:
        for want in list(self._wants.values()):
            if len(want.ready) >= self._size:
                continue
            try:
                cell = await self._run(self._cells.build, want.port, resolver=want.resolver)
            except OSError as error:
                self._give_up(want, error)
                return True
            if self._wants.get(want.port.network) is want:
                want.ready.append(cell)
            else:
                await self._run(self._cells.discard, cell)
            return True
        return False

    def _give_up(self, want: Want, error: OSError) -> None:
        """The network may just have been deleted; else its next join says what is wrong."""
        if self._wants.get(want.port.network) is want and not want.ready:
            del self._wants[want.port.network]
            self._log.warning(
                "no namespaces in advance: %s", error, extra={"network": want.port.network}
            )

    async def _wait_or_age(self) -> None:
        """Until somebody takes a cell; networks that nobody uses lose theirs."""
        try:
            async with asyncio.timeout(self._seconds):
                await self._wake.wait()
        except TimeoutError:
            limit = time.monotonic() - self._seconds
            for network in [n for n, want in self._wants.items() if want.used < limit]:
                await self.drop(network)
            self._wake.set()
