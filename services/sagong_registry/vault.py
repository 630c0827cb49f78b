"""The content store as this service uses it: bytes in and out, and small documents kept at hand."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import OrderedDict
from collections.abc import AsyncIterable

from sagong.contracts.content import (
    Blob,
    BlobRef,
    Content,
    Finish,
    Hold,
    PutRequest,
    Write,
    WriteRef,
)
from sagong.contracts.streams import Address
from sagong.errors import SagongError, Unavailable
from sagong.http import Stream
from sagong.http.splicing import wait_readable
from sagong.linux.process import receive_descriptors
from sagong.streams import connected
from sagong_registry.grammar import Span

__all__ = ["SMALL", "Vault"]

# What is as small as this is fetched whole, in one call.
SMALL = 256 << 10
_CACHE_BYTES = 8 << 20
_TRIES = 5
_PATIENCE = 10.0


class Vault:
    """Speaks to slot `content`."""

    def __init__(self, content: Content) -> None:
        self.content = content
        self._documents: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0

    async def document(self, digest: str) -> bytes:
        """A document whole."""
        found = self._documents.get(digest)
        if found is not None:
            self._documents.move_to_end(digest)
            return found
        data = (await self.content.get(BlobRef(digest=digest))).data
        self._remember(digest, data)
        return data

    def _remember(self, digest: str, data: bytes) -> None:
        if len(data) > _CACHE_BYTES // 8 or digest in self._documents:
            return
        self._documents[digest] = data
        self._bytes += len(data)
        while self._bytes > _CACHE_BYTES:
            _, dropped = self._documents.popitem(last=False)
            self._bytes -= len(dropped)

    async def put(self, data: bytes, owner: str, digest: str = "") -> Blob:
        """Keep a document."""
        return await self.content.put(PutRequest(owner=owner, data=data, digest=digest))

    async def offset(self, upload: str) -> int:
        """How many bytes of an upload are durable; 0 begins it."""
        return (await self.content.open(WriteRef(id=upload))).offset

    async def append(self, upload: str, offset: int, chunks: AsyncIterable[bytes]) -> int:
        """More bytes of an upload; the new offset, when they are durable.

        What came before `chunks` raised is kept.
        """
        address = await self.content.write(Write(id=upload, offset=offset))
        async with connected(address) as link:
            async for chunk in chunks:
                if not await link.write(chunk):
                    break
            link.end()
            line = await link.read_line()
        if not line.endswith(b"\n"):
            raise Unavailable("the content store broke off within the upload; ask how far it is")
        return int(line)

    async def finish(self, upload: str, digest: str, owner: str) -> Blob:
        """Make a blob of an upload."""
        return await self.content.finish(Finish(id=upload, digest=digest, owner=owner))

    async def abandon(self, upload: str) -> None:
        """Forget an upload."""
        await self.content.abandon(WriteRef(id=upload))

    async def hold(self, digest: str, owner: str) -> Blob:
        """Hold a blob that is here."""
        return await self.content.hold(Hold(owner=owner, digest=digest))

    async def drop(self, digest: str, owner: str) -> None:
        """Drop a hold; if nobody answers now, the next collection does it."""
        with contextlib.suppress(SagongError):
            await self.content.drop(Hold(owner=owner, digest=digest))

    async def source(self, digest: str) -> int:
        """A descriptor of a blob's file, which the caller closes; NotFound without the blob."""
        for attempt in range(_TRIES):
            address = await self.content.lend(BlobRef(digest=digest))
            try:
                return await _lent(address)
            except OSError:
                # Its process was replaced between the two.
                await asyncio.sleep(0.05 * attempt)
        raise Unavailable(f"the content store broke off {_TRIES} times, asked for {digest}")

    async def carry(self, digest: str, span: Span, source: int, out: Stream) -> None:
        """Bytes of a blob to a client, from its file."""
        moved = await out.carry_file(source, span.start, span.length)
        if moved < span.length:
            raise Unavailable(f"{digest} has {moved} bytes from {span.start} on: it is damaged")


async def _lent(address: Address) -> int:
    """The descriptor that is waiting at an address."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.setblocking(False)
        async with asyncio.timeout(_PATIENCE):
            await loop.sock_connect(connection, address.path)
            await loop.sock_sendall(connection, address.token.encode() + b"\n")
            await wait_readable(connection.fileno())
        received = receive_descriptors(connection, 1, 1)
    if not received.descriptors:
        raise ConnectionResetError("no descriptor came")
    return received.descriptors[0]
