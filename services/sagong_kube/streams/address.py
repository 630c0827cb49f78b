"""Byte streams that the node hands out: connecting to their addresses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from sagong.contracts.streams import Address
from sagong.errors import Unavailable
from sagong.frames import FrameReader, pack

__all__ = ["FrameStream", "RawStream", "connected", "frames"]

_CONNECT_SECONDS = 10.0
_PIECE = 64 << 10


class RawStream:
    """Plain bytes each way."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        """The next bytes, b"" at the end."""
        try:
            return await self._reader.read(_PIECE)
        except ConnectionError:
            return b""

    async def write(self, data: bytes) -> None:
        """Send, waiting while the other side is slow; a gone other side is no error."""
        with contextlib.suppress(ConnectionError):
            self._writer.write(data)
            await self._writer.drain()

    def end(self) -> None:
        """Half-close: nothing more will be sent."""
        with contextlib.suppress(OSError, RuntimeError):
            if self._writer.can_write_eof():
                self._writer.write_eof()


class FrameStream:
    """Frames of `sagong.frames` each way."""

    def __init__(self, raw: RawStream) -> None:
        self._raw = raw
        self._reader = FrameReader()
        self._ready: list[tuple[int, bytes]] = []

    async def read(self) -> tuple[int, bytes] | None:
        """The next (type, payload), None at the end."""
        while not self._ready:
            data = await self._raw.read()
            if not data:
                return None
            self._ready.extend(self._reader.feed(data))
        return self._ready.pop(0)

    async def write(self, kind: int, payload: bytes = b"") -> None:
        """Send one frame."""
        await self._raw.write(pack(kind, payload))


@contextlib.asynccontextmanager
async def connected(address: Address) -> AsyncIterator[RawStream]:
    """A connection to an address, with its token shown."""
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            reader, writer = await asyncio.open_unix_connection(address.path)
    except (OSError, TimeoutError) as error:
        raise Unavailable(
            f"connect {address.path}: {error}; the stream can be asked for again"
        ) from None
    try:
        writer.write(address.token.encode() + b"\n")
        yield RawStream(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def frames(address: Address) -> AsyncIterator[FrameStream]:
    """A connection that carries frames."""
    async with connected(address) as raw:
        yield FrameStream(raw)
