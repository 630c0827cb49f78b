"""Slot `content`: blobs, writes and holds over the store that images are made of."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Callable

from msgspec.structs import replace

from sagong import call
from sagong.contracts.content import (
    Blob,
    BlobRange,
    BlobRef,
    Document,
    Finish,
    Hold,
    HoldList,
    HoldQuery,
    PutRequest,
    Swept,
    Write,
    WriteRef,
    WriteState,
)
from sagong.contracts.streams import Address
from sagong.errors import InvalidArgument, NotFound, ResourceExhausted
from sagong.model.oci import check_digest
from sagong_image_overlay.store import Store
from sagong_image_overlay.streams import Streams, in_thread

__all__ = ["Blobs"]

_ID = re.compile(r"[a-z0-9-]{1,64}")
_DOCUMENT = 4 << 20
_OWNER = 1024
_PAGE = 1000
_SEND = 1 << 20


class Blobs:
    """The slot. Who calls is told by the bus; holds and writes are that one's own."""

    def __init__(self, store: Store, streams: Streams, tidy: Callable[[], None]) -> None:
        self._store = store
        self._content = store.content
        self._holds = store.holds
        self._writes = store.writes
        self._streams = streams
        self._tidy = tidy

    async def stat(self, blob: BlobRef) -> Blob:
        """Size of a blob."""
        return self._found(blob.digest)

    def _found(self, digest: str) -> Blob:
        try:
            return Blob(digest=digest, size=self._content.size(digest))
        except FileNotFoundError:
            raise NotFound(f"content {digest} is not in the store") from None

    async def read(self, blob: BlobRange) -> Address:
        """A stream of a blob, or of a part of it."""
        size = self._found(blob.digest).size
        length = size - blob.offset if blob.length == -1 else blob.length
        if blob.offset < 0 or length < 0 or blob.offset + length > size:
            raise InvalidArgument(
                f"{blob.length} bytes from {blob.offset} on are not within the {size} bytes of "
                f"{blob.digest}"
            )
        path = self._content.path(blob.digest)

        async def serve(peer: socket.socket) -> None:
            source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                await _send(peer, source, blob.offset, length)
            finally:
                os.close(source)

        return self._streams.offer(serve)

    async def lend(self, blob: BlobRef) -> Address:
        """The file itself, to be read by others."""
        path = self._content.path(self._found(blob.digest).digest)

        async def serve(peer: socket.socket) -> None:
            source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                socket.send_fds(peer, [b"\0"], [source])
            finally:
                os.close(source)

        return replace(self._streams.offer(serve), protocol="file")

    async def get(self, blob: BlobRef) -> Document:
        """A document whole."""
        size = self._found(blob.digest).size
        if size > _DOCUMENT:
            raise ResourceExhausted(
                f"{blob.digest} has {size} bytes, which is no document; read it as a stream"
            )
        data = await asyncio.to_thread(self._content.read, blob.digest)
        return Document(digest=blob.digest, data=data)

    async def put(self, request: PutRequest) -> Blob:
        """Keep a document."""
        _check_owner(request.owner)
        if len(request.data) > _DOCUMENT:
            raise ResourceExhausted(
                f"a document has at most {_DOCUMENT} bytes, not {len(request.data)}; write it"
            )
        digest = self._content.digest_of(request.data, request.digest)
        with self._content.pinned(digest):
            await asyncio.to_thread(self._content.put, request.data, digest)
            await self._holds.add(_caller(), request.owner, digest)
        return Blob(digest=digest, size=len(request.data))

    async def open(self, write: WriteRef) -> WriteState:
        """Begin a write, or go on with it."""
        _check_id(write.id)
        return WriteState(id=write.id, offset=await self._writes.open(_caller(), write.id))

    async def write(self, write: Write) -> Address:
        """A stream for more bytes."""
        _check_id(write.id)
        caller = _caller()
        self._writes.check(caller, write.id, write.offset)

        async def serve(peer: socket.socket) -> None:
            await self._writes.receive(caller, write.id, write.offset, peer)

        return self._streams.offer(serve)

    async def finish(self, request: Finish) -> Blob:
        """Verify a write and keep it as a blob."""
        _check_id(request.id)
        _check_owner(request.owner)
        digest = check_digest(request.digest)
        with self._content.pinned(digest):
            known = await self._writes.finish(_caller(), request.id, digest)
            if not known and not self._content.has(digest):
                raise NotFound(f"there is no write {request.id}, and no blob {digest}")
            await self._holds.add(_caller(), request.owner, digest)
            return self._found(digest)

    async def abandon(self, write: WriteRef) -> None:
        """Forget a write."""
        _check_id(write.id)
        self._writes.abandon(_caller(), write.id)

    async def hold(self, hold: Hold) -> Blob:
        """Hold a blob that is here."""
        _check_owner(hold.owner)
        with self._content.pinned(hold.digest):
            found = self._found(hold.digest)
            await self._holds.add(_caller(), hold.owner, hold.digest)
        return found

    async def drop(self, hold: Hold) -> None:
        """Drop a hold."""
        check_digest(hold.digest)
        await self._holds.drop(_caller(), hold.owner, hold.digest)

    async def holds(self, query: HoldQuery) -> HoldList:
        """The caller's holds, a page of them."""
        limit = min(max(query.limit, 1), _PAGE)
        rows = self._holds.page(_caller(), query.owner, query.after, limit + 1)
        found = tuple(Hold(owner=owner, digest=digest) for owner, digest in rows[:limit])
        return HoldList(holds=found, more=len(rows) > limit)

    async def sweep(self) -> Swept:
        """Free what no image needs and nobody holds."""
        self._writes.expire()
        freed = await self._store.collect()
        self._tidy()
        return Swept(blobs=freed.blobs, bytes=freed.bytes)


def _caller() -> str:
    return call.current().caller


def _check_id(identity: str) -> None:
    if not _ID.fullmatch(identity):
        raise InvalidArgument(f"{identity[:80]!r} is no id of a write: [a-z0-9-], at most 64")


def _check_owner(owner: str) -> None:
    if not 0 < len(owner) <= _OWNER or "\0" in owner:
        raise InvalidArgument(f"an owner of a hold has 1 to {_OWNER} characters, not {len(owner)}")


async def _send(peer: socket.socket, source: int, offset: int, length: int) -> None:
    """The bytes from the file to the socket without passing through this process."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND)
    while length:
        try:
            # In a thread: the file may have to come from the disk.
            sent = await in_thread(os.sendfile, peer.fileno(), source, offset, length)
        except BlockingIOError:
            await _writable(peer)
            continue
        if not sent:
            return
        offset += sent
        length -= sent


async def _writable(peer: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(peer.fileno(), wake)
    try:
        await ready
    finally:
        loop.remove_writer(peer.fileno())
