"""Sends bytes beside the bus to an address that a slot has handed out (`Images.upload`).

An address of protocol "upload" is gone on with after a break, where its provider is replaced meanwhile.

    async with uploading(images.upload, blocks(pieces)) as token:
        await images.write_archive(ArchiveRequest(..., upload=token))
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
)
from contextlib import AsyncExitStack
from typing import BinaryIO, Final

from sagong.call import carried
from sagong.contracts.streams import KEPT, Address
from sagong.errors import Unavailable
from sagong.streams import Link, connected

__all__ = ["blocks", "send_chunks", "send_file", "uploading"]

_BLOCK: Final = 1 << 20
# What may be on its way: a socket's buffer of the kernel, and what is written ahead of it.
_UNSURE: Final = 1 << 20
# A successor begins within this time, or nobody wants the upload any more.
_AGAIN_SECONDS: Final = 10.0
_PAUSE: Final = 0.02


@contextlib.asynccontextmanager
async def uploading(
    ask: Callable[[], Awaitable[Address]], chunks: AsyncIterator[bytes]
) -> AsyncIterator[str]:
    """Send them to an address that `ask` gives, while the block runs; yields the upload's token."""
    address = await ask()
    sending = asyncio.ensure_future(send_chunks(address, chunks))
    try:
        yield address.token
        await sending
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def send_file(address: Address, file: BinaryIO) -> None:
    """All of it; the half-close tells that it is complete."""
    async with contextlib.aclosing(blocks(iter(lambda: file.read(_BLOCK), b""))) as chunks:
        await send_chunks(address, chunks)


async def blocks(pieces: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    """Pieces in blocks of about a megabyte, got by a thread: they may be read from files.

    The thread has ended when this has.
    """
    iterator = iter(pieces)
    while True:
        got = asyncio.ensure_future(asyncio.to_thread(_block, iterator))
        try:
            block = await carried(got)
        except asyncio.CancelledError:
            await asyncio.wait((got,))
            raise
        if not block:
            return
        yield block


def _block(pieces: Iterator[bytes]) -> bytes:
    block = bytearray()
    for piece in pieces:
        block += piece
        if len(block) >= _BLOCK:
            break
    return bytes(block)


async def send_chunks(address: Address, chunks: AsyncIterator[bytes]) -> None:
    """All of them; what the receiver doesn't want is read to its end all the same.

    Unavailable if nobody is there at the beginning; what becomes of the upload later on is told to who
    asks for its use.
    """
    async with AsyncExitStack() as stack:
        sending = _Sending(address, stack)
        await sending.begin()
        async for chunk in chunks:
            await sending.write(chunk)
        await sending.end()


class _Tail:
    """The last bytes that were sent, which a receiver that goes away may not have taken."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._begin = self._end = 0

    def add(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._end += len(chunk)
        while self._end - self._begin - len(self._chunks[0]) >= _UNSURE:
            self._begin += len(self._chunks.popleft())

    def since(self, offset: int) -> bytes | None:
        """What comes behind so many bytes of the whole; None if that is not known any more."""
        if not self._begin <= offset <= self._end:
            return None
        return b"".join(self._chunks)[offset - self._begin :]


class _Sending:
    """One upload, over as many connections as it takes; without a link nobody wants it."""

    def __init__(self, address: Address, stack: AsyncExitStack) -> None:
        self._address = address
        self._stack = stack
        self._tail = _Tail()
        self._link: Link | None = None

    async def begin(self) -> None:
        """Connect, to a successor if its provider has just ended; Unavailable if there is none."""
        try:
            await self._connect()
        except Unavailable:
            await self._go_on()
            if self._link is None:
                raise

    async def _connect(self) -> Link:
        self._link = await self._stack.enter_async_context(connected(self._address))
        return self._link

    async def write(self, chunk: bytes) -> None:
        """Send what comes next."""
        if self._link is None:
            return
        self._tail.add(chunk)
        if not await self._link.write(chunk):
            await self._go_on()

    async def end(self) -> None:
        """Until the receiver has all."""
        while self._link is not None:
            self._link.end()
            told = await self._link.read_line()
            if told == KEPT or self._address.protocol != "upload":
                return
            await self._go_on()

    async def _go_on(self) -> None:
        """Connect again, and send what has not come."""
        self._link = None
        if self._address.protocol != "upload":
            return
        limit = time.monotonic() + _AGAIN_SECONDS
        while time.monotonic() < limit:
            await self._stack.aclose()
            with contextlib.suppress(Unavailable):
                link = await self._connect()
                told = await link.read_line()
                if told == KEPT:
                    self._link = None
                    return
                rest = self._tail.since(int(told)) if told.strip().isdigit() else None
                if rest is not None and await link.write(rest):
                    return
            self._link = None
            await asyncio.sleep(_PAUSE)
