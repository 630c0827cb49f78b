"""Bodies of HTTP as streams beside the bus, and back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec

from sagong.contracts.image import Images
from sagong.contracts.streams import Address
from sagong.errors import SagongError, Unauthenticated
from sagong.http import Request, Stream
from sagong.streams import connected
from sagong_docker.refusal import error_document

__all__ = ["Lines", "send_up", "sending", "stream_down", "uploading"]


@contextlib.asynccontextmanager
async def uploading(images: Images, request: Request) -> AsyncIterator[str]:
    """Send the request's body up while the block runs; yields the upload's token."""
    address = await images.upload()
    sending = asyncio.ensure_future(send_up(address, request))
    try:
        yield address.token
        await sending
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


@contextlib.asynccontextmanager
async def sending(images: Images, data: bytes) -> AsyncIterator[str]:
    """Send a few bytes up; yields the upload's token."""
    address = await images.upload()
    async with connected(address) as link:
        await link.write(data)
        link.end()
        yield address.token


async def send_up(address: Address, request: Request) -> None:
    """The whole body; what the receiver doesn't want is read to its end all the same."""
    async with connected(address) as link:
        async for chunk in request.chunks():
            await link.write(chunk)
        link.end()
        while await link.read():
            continue


async def stream_down(request: Request, address: Address, content_type: str) -> None:
    """A raw stream as the answer's body."""
    async with connected(address) as link:
        out = request.stream(200, {"Content-Type": content_type})
        while data := await link.read():
            await out.write(data)


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
