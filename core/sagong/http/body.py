"""Bodies of requests: cut out of the connection's bytes, handed on with flow control."""

from __future__ import annotations

import abc
import asyncio
from collections import deque
from collections.abc import Callable

from sagong.errors import Cancelled, InvalidArgument, SagongError
from sagong.http.head import BadRequest

__all__ = ["Body", "BodyCutter", "ChunkedCutter", "LengthCutter"]

HIGH_WATER = 256 << 10
_CHUNK_LINE_LIMIT = 4096
_TRAILER_LIMIT = 16 << 10


class Body:
    """A queue of a request's bytes between the connection (feeds) and the handler (reads)."""

    __slots__ = ("_chunks", "_error", "_flow", "_size", "_waiter", "discarding", "ended", "started")

    def __init__(self, flow: Callable[[bool], None]) -> None:
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._flow = flow
        self._waiter: asyncio.Future[None] | None = None
        self._error: SagongError | None = None
        self.ended = False
        self.started = False
        self.discarding = False

    def feed(self, data: bytes) -> None:
        """Take bytes; asks the connection to pause above the high-water mark."""
        if self.discarding or not data:
            return
        self._chunks.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER:
            self._flow(False)
        self._wake()

    def finish(self, error: SagongError | None = None) -> None:
        """The body is whole, or will never be."""
        self.ended = True
        self._error = error
        self._wake()

    def abandon(self) -> None:
        """Nobody reads it any more: drop what is there and what comes."""
        self.discarding = True
        self._chunks.clear()
        self._size = 0
        self._flow(True)

    async def read(self) -> bytes:
        """The next bytes, b"" at the end; raises when the client broke off or sent garbage."""
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self.ended:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = self._chunks.popleft()
        self._size -= len(data)
        if self._size <= HIGH_WATER // 2:
            self._flow(True)
        return data

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class BodyCutter(abc.ABC):
    """Cuts one body out of a connection's bytes."""

    def __init__(self, body: Body) -> None:
        self.body = body

    @abc.abstractmethod
    def cut(self, buffer: bytearray) -> bool:
        """Move what belongs to the body out of `buffer`; True when the body is whole."""

    def broken(self) -> None:
        """The client went away in the middle."""
        if not self.body.ended:
            self.body.finish(Cancelled("the client closed the connection within the body"))


class LengthCutter(BodyCutter):
    """A body of known length."""

    def __init__(self, body: Body, length: int) -> None:
        super().__init__(body)
        self._left = length

    def cut(self, buffer: bytearray) -> bool:
        """See `BodyCutter.cut`."""
        if self._left >= len(buffer):
            self._left -= len(buffer)
            self.body.feed(bytes(buffer))
            buffer.clear()
        else:
            self.body.feed(bytes(buffer[: self._left]))
            del buffer[: self._left]
            self._left = 0
        if self._left == 0:
            self.body.finish()
            return True
        return False


class ChunkedCutter(BodyCutter):
    """A body in chunks (RFC 9112 section 7.1); extensions and trailers are read and dropped."""

    def __init__(self, body: Body) -> None:
        super().__init__(body)
        self._left = 0
        self._state = self._size_line
        self._trailers = 0

    def cut(self, buffer: bytearray) -> bool:
        """See `BodyCutter.cut`."""
        try:
            while self._state(buffer):
                pass
        except BadRequest as error:
            self.body.finish(InvalidArgument(f"malformed chunked body: {error.message}"))
            raise
        return self.body.ended

    def _line(self, buffer: bytearray, limit: int) -> bytes | None:
        end = buffer.find(b"\r\n", 0, limit + 2)
        if end < 0:
            if len(buffer) > limit:
                raise BadRequest(400, "a line is too long")
            return None
        line = bytes(buffer[:end])
        del buffer[: end + 2]
        return line

    def _size_line(self, buffer: bytearray) -> bool:
        line = self._line(buffer, _CHUNK_LINE_LIMIT)
        if line is None:
            return False
        digits = line.partition(b";")[0].strip(b" \t")
        if not digits or len(digits) > 15 or digits.strip(b"0123456789abcdefABCDEF"):
            raise BadRequest(400, "a chunk's size is not hexadecimal")
        self._left = int(digits, 16)
        self._state = self._data if self._left else self._trailer
        return True

    def _data(self, buffer: bytearray) -> bool:
        taken = min(self._left, len(buffer))
        if taken:
            self.body.feed(bytes(buffer[:taken]))
            del buffer[:taken]
            self._left -= taken
        if self._left:
            return False
        self._state = self._data_end
        return True

    def _data_end(self, buffer: bytearray) -> bool:
        if len(buffer) < 2:
            return False
        if buffer[:2] != b"\r\n":
            raise BadRequest(400, "a chunk is longer than its size")
        del buffer[:2]
        self._state = self._size_line
        return True

    def _trailer(self, buffer: bytearray) -> bool:
        line = self._line(buffer, _CHUNK_LINE_LIMIT)
        if line is None:
            return False
        self._trailers += len(line)
        if self._trailers > _TRAILER_LIMIT:
            raise BadRequest(400, "trailers are too long")
        if line:
            return True
        self.body.finish()
        return False
