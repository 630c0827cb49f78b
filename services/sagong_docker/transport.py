"""Bodies of HTTP as streams beside the bus, and back."""

from __future__ import annotations

import contextlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import msgspec

from sagong.contracts.image import Images
from sagong.contracts.streams import Address
from sagong.downloading import fetched
from sagong.errors import SagongError, Unauthenticated, Unavailable
from sagong.http import Request, Stream
from sagong.uploading import send_chunks, send_file
from sagong_docker.refusal import error_document

__all__ = ["Lines", "send_up", "sending", "stream_down"]


@contextlib.asynccontextmanager
async def sending(images: Images, data: bytes) -> AsyncIterator[str]:
    """Send a few bytes up; yields the upload's token."""
    address = await images.upload()
    await send_file(address, io.BytesIO(data))
    yield address.token


async def send_up(address: Address, request: Request) -> None:
    """The whole body; what the receiver doesn't want is read to its end all the same."""
    await send_chunks(address, request.chunks())


async def stream_down(
    request: Request, ask: Callable[[], Awaitable[Address]], headers: Mapping[str, str]
) -> None:
    """A whole stream as the answer's body; one that can't be gone on with cuts the answer off."""
    async with contextlib.aclosing(fetched(ask)) as chunks:
        first = await anext(chunks, b"")
        out = request.stream(200, headers)
        await out.write(first)
        try:
            async for data in chunks:
                await out.write(data)
        except Unavailable as error:
            raise ConnectionAbortedError(error.message) from None


class Lines:
    """JSON lines of a long operation: the head waits for the first line, so that an early failure
    has a status of its own. The operation ends with its client."""

    def __init__(self, request: Request) -> None:
        request.promise_stream()
        self._request = request
        self._out: Stream | None = None

    async def write(self, document: object) -> None:
        """One line."""
        if self._out is None:
            self._out = self._request.stream(200, {"Content-Type": "application/json"})
        await self._out.write(msgspec.json.encode(document) + b"\r\n")

    async def begin(self) -> None:
        """Send the head without a line."""
        if self._out is None:
            self._out = self._request.stream(200, {"Content-Type": "application/json"})

    async def fail(self, error: SagongError) -> None:
        """An error within; raised when nothing was sent yet.

        That a registry wants a login is 500, as in Docker: 401 would be the engine's own wish, and
        the command line would ask for a password and wait.
        """
        if self._out is None:
            raise SagongError(error.message) if isinstance(error, Unauthenticated) else error
        await self.write(error_document(error))
