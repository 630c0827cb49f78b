"""Bytes of a fetch on their way to clients that were there before its first one.

They come as they arrive, but for the last of them, which waits until the whole was verified: a
client that got all of a body got the right one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

__all__ = ["Coming", "Relay", "Tap"]

_WAITING = 32
_PATIENCE = 10.0


class Tap:
    """One client's end."""

    def __init__(self) -> None:
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue(_WAITING)
        self._left = False

    async def put(self, data: bytes) -> None:
        """Hand bytes on; a client that does not keep up is left behind, b"" ends."""
        if self._left:
            return
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._chunks.put(data)
        except TimeoutError:
            self.leave()

    def leave(self) -> None:
        """Take no more; what waits is followed by the end."""
        self._left = True
        if self._chunks.full():
            self._chunks.get_nowait()
        self._chunks.put_nowait(b"")

    async def chunks(self) -> AsyncIterator[bytes]:
        """All bytes, as they come."""
        while data := await self._chunks.get():
            yield data


@dataclass(frozen=True, slots=True)
class Coming:
    """A blob of `size` that is being fetched."""

    size: int
    tap: Tap


class Relay:
    """Feeds taps. `size` is known when the first byte is about to come: -1 if that has come before."""

    def __init__(self) -> None:
        self.size: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._taps: list[Tap] = []
        self._at = 0
        self._held = b""

    def tap(self) -> Tap | None:
        """An end for one more client; None when it is too late for the first byte."""
        if self.size.done():
            return None
        self._taps.append(Tap())
        return self._taps[-1]

    def begin(self, size: int) -> None:
        """Bytes will come now."""
        if not self.size.done():
            self.size.set_result(size)

    async def passing(self, at: int, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same chunks, which begin at `at`; what has been passed on before is not again."""
        async for chunk in chunks:
            fresh = chunk[max(0, self._at - at) :]
            at += len(chunk)
            if fresh:
                self._at += len(fresh)
                held, self._held = self._held, fresh
                await self._feed(held)
            yield chunk

    async def end(self, *, good: bool) -> None:
        """No more comes; `good`: it was verified."""
        self.begin(-1)
        if good:
            await self._feed(self._held)
        for tap in self._taps:
            await tap.put(b"")

    async def _feed(self, data: bytes) -> None:
        if data:
            for tap in self._taps:
                await tap.put(data)
