"""Sleeps until whoever fills `nudge` is stirred, the default `nap` emits something, or it is told
something by netlink.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from nap_contract import Count, Counted, Nap, Nudge

from sagong.host import Host

__all__ = ["Dozer"]


class Dozer:
    """Files in its data directory: with `deaf` it can't leave word, with `slow` not soon, with `alarm`
    it is up soon."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._nudge = host.use(Nudge)
        self._listener = host.listener("told")
        self._heard, self._told = 0, 0

    async def restore(self, state: bytes) -> None:
        """Go on from there."""
        self._heard, self._told = map(int, state.split())

    async def start(self) -> None:
        """Begin to listen."""
        self._host.spawn(self._hear(), "hear")
        asyncio.get_running_loop().add_reader(self._listener, self._read)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._listener.recv(64):
                self._told += 1

    async def _hear(self) -> None:
        async for event in self._host.hear(Nap, Counted):
            self._heard += event is not None

    async def export(self) -> bytes:
        """How much it heard, and was told."""
        asyncio.get_running_loop().remove_reader(self._listener)
        return b"%d %d" % (self._heard, self._told)

    async def doze(self) -> float:
        """Leave word."""
        if (self._host.data / "deaf").exists():
            raise ValueError("it does not hear")
        while (self._host.data / "slow").exists():
            await asyncio.sleep(0.05)
        await self._nudge.leave()
        await self._host.leave_word(Nap)
        return time.time() + 0.2 if (self._host.data / "alarm").exists() else 0.0

    async def count(self) -> Count:
        """How many events it heard."""
        return Count(value=self._heard)

    async def counts(self) -> AsyncIterator[Count]:
        """How many events it heard, then how often it was told something."""
        yield await self.count()
        yield Count(value=self._told)
