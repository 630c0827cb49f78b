"""A connection taken over by a handler: raw bytes both ways, each way ending by itself."""

from __future__ import annotations

import asyncio
import fcntl
import termios
import time
from collections import deque

__all__ = ["RawStream"]

HIGH_WATER = 256 << 10
_LINGER_SECONDS = 2.0
# uvloop counts in whole milliseconds: less is no pause at all.
_POLL_SECONDS = 0.001
_NOTHING = bytes(4)


class RawStream:
    """Bytes to and from the client after the head of a 101 (or a raw 200) was sent.

    Half-close works both ways: `read` returns b"" when the client ended its side, `write_eof` ends
    ours. Over TLS it takes `ServerTls.half_closes`; without it the end of one is the end of both.
    """

    def __init__(self, transport: asyncio.Transport, tail: bytes) -> None:
        self._transport = transport
        self._chunks: deque[bytes] = deque([tail] if tail else [])
        self._size = len(tail)
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._closed = asyncio.Event()
        self._reading = True
        self._paused = False
        self._lost = False
        self._discarding = False
        self._input_ended = False
        self._output_ended = False

    @property
    def lost(self) -> bool:
        """Whether the connection is gone."""
        return self._lost

    async def read(self) -> bytes:
        """The next bytes; b"" after the client's end or when the connection is gone."""
        while not self._chunks:
            if self._input_ended or self._lost:
                return b""
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        data = self._chunks.popleft()
        self._size -= len(data)
        if not self._reading and self._size <= HIGH_WATER // 2 and not self._lost:
            self._reading = True
            self._transport.resume_reading()
        return data

    def write(self, data: bytes) -> None:
        """Send; into the void when the connection is gone."""
        if not self._lost and not self._output_ended and data:
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the client keeps up; ConnectionError when it is gone."""
        while self._paused and not self._lost:
            self._writer = asyncio.get_running_loop().create_future()
            try:
                await self._writer
            finally:
                self._writer = None
        if self._lost:
            raise ConnectionResetError("the client closed the connection")

    async def wait_taken(self, seconds: float = 0.2) -> None:
        """Wait, at most so long, until the client has read all that was sent (unix(7), SIOCOUTQ).

        A client that reads the head through a buffer and the stream past it, as docker-py does, would
        lose what comes in one piece with the head.
        """
        sock = self._transport.get_extra_info("socket")
        limit = time.monotonic() + seconds
        while sock is not None and not self._lost and time.monotonic() < limit:
            try:
                unread = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, _NOTHING)
            except OSError:
                return
            if unread == _NOTHING:
                return
            await asyncio.sleep(_POLL_SECONDS)

    def write_eof(self) -> None:
        """End our side after what is written; the client can still send."""
        if self._output_ended or self._lost:
            return
        self._output_ended = True
        if self._transport.can_write_eof():
            self._transport.write_eof()

    async def wait_lost(self) -> None:
        """Wait until the connection is gone."""
        await self._closed.wait()

    async def close(self) -> None:
        """End in good order: our end first, then for a moment whatever the client still sends.

        Closing with unread bytes would reset the connection, and the client would lose the last
        of the output.
        """
        self.write_eof()
        self._discarding = True
        self._chunks.clear()
        if not self._lost and not self._reading:
            self._reading = True
            self._transport.resume_reading()
        if not self._lost and not self._input_ended and self._transport.can_write_eof():
            try:
                async with asyncio.timeout(_LINGER_SECONDS):
                    while not self._input_ended and not self._lost:
                        self._reader = asyncio.get_running_loop().create_future()
                        await self._reader
            except TimeoutError:
                pass
        self._transport.close()

    def feed(self, data: bytes) -> None:
        """Called by the connection."""
        if self._discarding:
            return
        self._chunks.append(data)
        self._size += len(data)
        if self._reading and self._size > HIGH_WATER:
            self._reading = False
            self._transport.pause_reading()
        self._wake(self._reader)

    def feed_eof(self) -> None:
        """Called by the connection."""
        self._input_ended = True
        self._wake(self._reader)

    def pause(self, paused: bool) -> None:
        """Called by the connection: the transport's buffer is full, or not any more."""
        self._paused = paused
        if not paused:
            self._wake(self._writer)

    def lose(self) -> None:
        """Called by the connection when it is gone."""
        self._lost = True
        self._closed.set()
        self._wake(self._reader)
        self._wake(self._writer)

    def _wake(self, waiter: asyncio.Future[None] | None) -> None:
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
