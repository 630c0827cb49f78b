"""A small correct content store in memory: what the suite of `content` accepts beside image_overlay."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
import socket
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

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
from sagong.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted

__all__ = ["Disk", "FakeContent"]

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_LIMIT = 4 << 20


@dataclass
class Disk:
    """What outlives a restart."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    writes: dict[tuple[str, str], bytearray] = field(default_factory=dict)
    holds: set[tuple[str, str, str]] = field(default_factory=set)


def checked(digest: str) -> str:
    """A digest of a known algorithm."""
    if not re.fullmatch(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}", digest):
        raise InvalidArgument(f"{digest!r} is no digest")
    return digest


def digest_of(data: bytes, like: str) -> str:
    """The digest by the same algorithm as another."""
    algorithm = like.partition(":")[0] or "sha256"
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def named(identity: str) -> tuple[str, str]:
    """A write's key."""
    if not re.fullmatch(r"[a-z0-9-]{1,64}", identity):
        raise InvalidArgument(f"{identity!r} is no id")
    return call.current().caller, identity


def held(owner: str, digest: str) -> tuple[str, str, str]:
    """A hold's key."""
    if not 0 < len(owner) <= 1024:
        raise InvalidArgument("no usable owner")
    return call.current().caller, owner, checked(digest)


class FakeContent:
    """The fake."""

    def __init__(self, disk: Disk, top: Path) -> None:
        self.disk = disk
        self.path = str(top / f"{secrets.token_hex(4)}.sock")
        self.offers: dict[str, Serve] = {}
        self.busy: set[tuple[str, str]] = set()
        self.server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen for streams."""
        self.server = await asyncio.start_unix_server(self.serve, self.path)

    async def stop(self) -> None:
        """Listen no more."""
        assert self.server is not None
        self.server.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One stream."""
        offered = self.offers.pop((await reader.readline()).decode().strip(), None)
        with contextlib.suppress(ConnectionError):
            if offered is not None:
                await offered(reader, writer)
                await writer.drain()
        writer.close()

    def offer(self, serve: Serve) -> Address:
        """An address for it."""
        token = secrets.token_hex(16)
        self.offers[token] = serve
        return Address(path=self.path, token=token)

    def found(self, digest: str) -> bytes:
        """A blob's bytes."""
        if checked(digest) not in self.disk.blobs:
            raise NotFound(f"no {digest}")
        return self.disk.blobs[digest]

    async def stat(self, blob: BlobRef) -> Blob:
        return Blob(digest=blob.digest, size=len(self.found(blob.digest)))

    async def read(self, blob: BlobRange) -> Address:
        data = self.found(blob.digest)
        length = len(data) - blob.offset if blob.length == -1 else blob.length
        if blob.offset < 0 or length < 0 or blob.offset + length > len(data):
            raise InvalidArgument("not within the blob")

        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(data[blob.offset : blob.offset + length])

        return self.offer(serve)

    async def lend(self, blob: BlobRef) -> Address:
        data = self.found(blob.digest)

        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with tempfile.TemporaryFile() as file:
                file.write(data)
                file.flush()
                number = writer.get_extra_info("socket").fileno()
                with socket.socket(fileno=os.dup(number)) as peer:
                    socket.send_fds(peer, [b"\0"], [file.fileno()])

        return replace(self.offer(serve), protocol="file")

    async def get(self, blob: BlobRef) -> Document:
        data = self.found(blob.digest)
        if len(data) > _LIMIT:
            raise ResourceExhausted("no document")
        return Document(digest=blob.digest, data=data)

    async def put(self, request: PutRequest) -> Blob:
        digest = digest_of(request.data, request.digest)
        key = held(request.owner, digest)
        if request.digest and request.digest != digest:
            raise InvalidArgument(f"{digest}, not {request.digest}")
        if len(request.data) > _LIMIT:
            raise ResourceExhausted("no document")
        self.disk.blobs[digest] = request.data
        self.disk.holds.add(key)
        return Blob(digest=digest, size=len(request.data))

    async def open(self, write: WriteRef) -> WriteState:
        data = self.disk.writes.setdefault(named(write.id), bytearray())
        return WriteState(id=write.id, offset=len(data))

    def check(self, key: tuple[str, str], offset: int) -> bytearray:
        """The write, if a stream may begin there."""
        if key not in self.disk.writes:
            raise NotFound("no such write")
        data = self.disk.writes[key]
        if key in self.busy or len(data) != offset:
            raise FailedPrecondition(f"at {len(data)}")
        return data

    async def write(self, write: Write) -> Address:
        key = named(write.id)
        self.check(key, write.offset)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            data = self.check(key, write.offset)
            self.busy.add(key)
            try:
                while more := await reader.read(1 << 16):
                    data += more
            finally:
                self.busy.discard(key)
            writer.write(b"%d\n" % len(data))

        return self.offer(serve)

    async def finish(self, request: Finish) -> Blob:
        key, hold = named(request.id), held(request.owner, request.digest)
        data = self.disk.writes.get(key)
        if data is None and request.digest not in self.disk.blobs:
            raise NotFound("no such write")
        if key in self.busy:
            raise FailedPrecondition("a stream is writing")
        if data is not None:
            self.keep(bytes(data), request.digest)
            del self.disk.writes[key]
        self.disk.holds.add(hold)
        return await self.stat(BlobRef(digest=request.digest))

    def keep(self, data: bytes, digest: str) -> None:
        """Verify and keep."""
        if digest_of(data, digest) != digest:
            raise InvalidArgument(f"{digest_of(data, digest)}, not {digest}")
        self.disk.blobs[digest] = data

    async def abandon(self, write: WriteRef) -> None:
        self.disk.writes.pop(named(write.id), None)

    async def hold(self, hold: Hold) -> Blob:
        key = held(hold.owner, hold.digest)
        found = await self.stat(BlobRef(digest=hold.digest))
        self.disk.holds.add(key)
        return found

    async def drop(self, hold: Hold) -> None:
        self.disk.holds.discard(held(hold.owner, hold.digest))

    async def holds(self, query: HoldQuery) -> HoldList:
        own = sorted(
            (owner, digest)
            for caller, owner, digest in self.disk.holds
            if caller == call.current().caller and query.owner in ("", owner)
        )
        rest = [pair for pair in own if pair > query.after]
        page = tuple(Hold(owner=owner, digest=digest) for owner, digest in rest[: query.limit])
        return HoldList(holds=page, more=len(rest) > query.limit)

    async def sweep(self) -> Swept:
        wanted = {digest for _, _, digest in self.disk.holds}
        gone = {digest: data for digest, data in self.disk.blobs.items() if digest not in wanted}
        for digest in gone:
            del self.disk.blobs[digest]
        return Swept(blobs=len(gone), bytes=sum(map(len, gone.values())))
