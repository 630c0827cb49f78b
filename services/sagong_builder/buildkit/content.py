"""A content store of the client's: the directory of a cache, an OCI layout that is read or written.

Blobs are asked for, and sent, by their digests; each call says which of the client's stores is meant.
Source: the package containerd.services.content.v1; BuildKit's session/content.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import AsyncGenerator, Iterable
from typing import BinaryIO

from sagong.errors import AlreadyExists, InvalidArgument, NotFound, Unavailable
from sagong.model import oci
from sagong_builder.buildkit import messages as m
from sagong_builder.buildkit.rpc import Call, Connection

__all__ = ["ContentStore"]

_SERVICE = "/containerd.services.content.v1.Content/"
_STORE = "buildkit-attachable-store-id"
_WRITE, _COMMIT = 1, 2
_DOCUMENT = 8 << 20


class ContentStore:
    """One of a session's, by its name there."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self._metadata = [(_STORE, name)]

    async def document(self, digest: str) -> bytes:
        """A small blob: a manifest, an index, a config."""
        async with contextlib.aclosing(self._pieces(digest, _DOCUMENT)) as pieces:
            raw = b"".join([piece async for piece in pieces])
        if oci.digest_of(raw) != digest:
            raise _other(digest)
        return raw

    async def fetch(self, blob: oci.Descriptor, file: BinaryIO) -> None:
        """Write a blob's bytes into a file, where that is."""
        digest, size = hashlib.sha256(), 0
        async with contextlib.aclosing(self._pieces(blob.digest, blob.size)) as pieces:
            async for piece in pieces:
                digest.update(piece)
                size += len(piece)
                file.write(piece)
        if size != blob.size or f"sha256:{digest.hexdigest()}" != blob.digest:
            raise _other(blob.digest)

    async def _pieces(self, digest: str, limit: int) -> AsyncGenerator[bytes, None]:
        call = self._connection.open(f"{_SERVICE}Read", self._metadata)
        try:
            await call.send(m.ReadContentRequest(digest=oci.check_digest(digest)))
            call.end()
            while (answer := await call.receive(m.ReadContentResponse)) is not None:
                limit -= len(answer.data)
                if limit < 0:
                    raise _other(digest)
                yield answer.data
        finally:
            call.cancel()

    async def put(self, digest: str, size: int, pieces: Iterable[bytes]) -> None:
        """Write a blob, unless it is there."""
        if await self._has(digest):
            return
        call = self._connection.open(f"{_SERVICE}Write", self._metadata)
        ref = f"sagong-{secrets.token_hex(8)}"
        offset = 0
        try:
            for piece in pieces:
                wanted = m.WriteContentRequest(_WRITE, ref, size, digest, offset, piece)
                await self._told(call, wanted)
                offset += len(piece)
            await self._told(call, m.WriteContentRequest(_COMMIT, ref, size, digest, offset))
            call.end()
        except AlreadyExists:
            return
        finally:
            call.cancel()

    async def _told(self, call: Call, wanted: m.WriteContentRequest) -> None:
        await call.send(wanted)
        if await call.receive(m.WriteContentResponse) is None:
            raise Unavailable(f"the client's store did not take {wanted.expected}")

    async def _has(self, digest: str) -> bool:
        request = m.InfoContentRequest(digest)
        try:
            await self._connection.ask(f"{_SERVICE}Info", request, m.Empty, self._metadata)
        except NotFound:
            return False
        return True


def _other(digest: str) -> InvalidArgument:
    return InvalidArgument(f"the client's store holds something else as {digest[:100]}")
