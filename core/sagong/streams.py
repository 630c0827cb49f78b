"""Connects to byte streams that slots hand out (`sagong.contracts.streams`), as bytes or as frames.

    async with connected(address) as link:       # "raw"
        while data := await link.read(): ...

    async with framed(address) as frames:        # "frames"
        async for kind, payload in frames: ...

A side that goes away is no error here: what was to be learnt of it, a code, an end, a length, is
then missing, and whoever needs it knows what that means.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from sagong.contracts.streams import Address
from sagong.errors import Unavailable
from sagong.frames import FrameReader, pack

__all__ = ["FrameLink", "Link", "connected", "framed", "send"]

_READ: Final = 1 << 16
_AHEAD: Final = 1 << 18


async def send(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write, and wait while the other side is slow; ConnectionError if it is gone.

    Asked first: transports of uvloop that were closed meanwhile raise RuntimeError.
    """
    if writer.is_closing():
        raise ConnectionResetError("the other side of the stream is gone")
    writer.write(data)
    await writer.drain()


class Link:
    """A connection; plain bytes each way."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, whole: bool = False
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._whole = whole

    async def read(self) -> bytes:
        """The next bytes; b"" at the end, also when the other side is gone.

        Of what is to be whole that is `Unavailable`.
        """
        try:
            return await self._reader.read(_READ)
        except ConnectionError:
            if self._whole:
                raise Unavailable("the stream broke off before all was sent") from None
            return b""

    async def read_line(self) -> bytes:
        """A line with its newline; without, or b"", when the other side ended before."""
        try:
            return await self._reader.readline()
        except ConnectionError:
            return b""

    async def write(self, data: bytes) -> bool:
        """Send, waiting while the other side is slow; whether it is still there."""
        try:
            await send(self._writer, data)
        except ConnectionError:
            return False
        return True

    def end(self) -> None:
        """Half-close: nothing more will be sent."""
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write_eof()

    def close(self) -> None:
        """Close; what was written is sent before."""
        self._writer.close()


class FrameLink:
    """Frames of `sagong.frames` each way; iterated, those that come until the end."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        reader = FrameReader()
        while data := await self._link.read():
            for frame in reader.feed(data):
                yield frame

    async def write(self, kind: int, payload: bytes = b"") -> bool:
        """Send one frame; whether the other side is still there."""
        return await self._link.write(pack(kind, payload))


@contextlib.asynccontextmanager
async def connected(address: Address) -> AsyncIterator[Link]:
    """A connection to an address, its token shown; Unavailable when nobody is there."""
    try:
        reader, writer = await asyncio.open_unix_connection(address.path, limit=_AHEAD)
    except OSError as error:
        problem = error.strerror or str(error)
        raise Unavailable(
            f"connect {address.path}: {problem}; the stream can be asked for again"
        ) from None
    whole = address.protocol == "whole"
    link = Link(reader, writer, whole=whole)
    try:
        writer.write(address.token.encode() + (b"\n\n" if whole else b"\n"))
        yield link
    finally:
        link.close()


@contextlib.asynccontextmanager
async def framed(address: Address) -> AsyncIterator[FrameLink]:
    """A connection that carries frames."""
    async with connected(address) as link:
        yield FrameLink(link)
