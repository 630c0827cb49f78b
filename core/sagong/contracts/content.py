"""Slot `content`: blobs by digest, and the holds that keep them.

What a registry is sent lies here, in the store that images are made of, so no layer is kept twice.
A blob lives while an image needs it or somebody *holds* it; `sweep` frees the others. A *write* is
a blob on its way, named by whoever began it; it survives restarts, so an upload can go on::

    open ──► write … write ──► finish ──► a blob, held by `owner`
      └────────┴── abandon / untouched for a day ──► gone

Ids of writes and owners of holds are the calling plugin's own: others have theirs. An owner is any
text of at most 1024 characters. Bytes travel beside the bus (`sagong.contracts.streams`); only
documents of at most 4 MiB (manifests) travel as fields. Digests are those of the OCI image
specification 1.1: sha256, sha512.
"""

from __future__ import annotations

from typing import Protocol

from sagong.contract import Message, method, slot
from sagong.contracts.streams import Address
from sagong.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted

__all__ = [
    "Blob",
    "BlobRange",
    "BlobRef",
    "Content",
    "Document",
    "Finish",
    "Hold",
    "HoldList",
    "HoldQuery",
    "PutRequest",
    "Swept",
    "Write",
    "WriteRef",
    "WriteState",
]


class BlobRef(Message):
    """Names a blob by its digest."""

    digest: str


class Blob(Message):
    """A blob that is here: `size` in bytes."""

    digest: str
    size: int


class BlobRange(Message):
    """Bytes of a blob from `offset`; `length` -1 is to its end."""

    digest: str
    offset: int = 0
    length: int = -1


class WriteRef(Message):
    """Names a write: whoever begins it makes the id (`[a-z0-9-]`, at most 64)."""

    id: str


class WriteState(Message):
    """A write: `offset` bytes are durable."""

    id: str
    offset: int


class Write(Message):
    """More bytes of a write, from `offset`, which must be what it has."""

    id: str
    offset: int


class Finish(Message):
    """Make a blob of a write, if it has that digest, and hold it for `owner`."""

    id: str
    digest: str
    owner: str


class Hold(Message):
    """Keeps a blob for `owner` (a caller's own word: `docker.io/library/busybox`)."""

    owner: str
    digest: str


class HoldQuery(Message):
    """Holds of an owner, or of all; `after` continues behind the last (owner, digest) of a page.

    `limit` is at most 1000; more is taken as 1000.
    """

    owner: str = ""
    after: tuple[str, str] = ("", "")
    limit: int = 1000


class HoldList(Message):
    """A page of holds in order of owner and digest; `more` if others follow."""

    holds: tuple[Hold, ...] = ()
    more: bool = False


class PutRequest(Message):
    """Keep a document and hold it for `owner`; `digest`, when given, must be its own."""

    owner: str
    data: bytes
    digest: str = ""


class Document(Message):
    """A document of at most 4 MiB."""

    digest: str
    data: bytes


class Swept(Message):
    """What was freed: blobs, and bytes on disk."""

    blobs: int
    bytes: int


@slot("content", version=1)
class Content(Protocol):
    """The content store. Holds belong to the calling plugin: others neither see nor drop them."""

    @method(idempotent=True, raises=(NotFound, InvalidArgument))
    async def stat(self, blob: BlobRef) -> Blob:
        """Size of a blob."""
        ...

    @method(idempotent=True, raises=(NotFound, InvalidArgument))
    async def read(self, blob: BlobRange) -> Address:
        """A raw stream of a blob, or of a part of it. A range beyond its end is InvalidArgument."""
        ...

    @method(idempotent=True, raises=(NotFound, InvalidArgument))
    async def lend(self, blob: BlobRef) -> Address:
        """A descriptor of a blob's file, protocol "file": whoever has it reads to the end, though the
        blob is swept meanwhile or this slot's process ends.
        """
        ...

    @method(idempotent=True, raises=(NotFound, InvalidArgument, ResourceExhausted))
    async def get(self, blob: BlobRef) -> Document:
        """A document whole; ResourceExhausted if it is above 4 MiB."""
        ...

    @method(idempotent=True, raises=(InvalidArgument, ResourceExhausted))
    async def put(self, request: PutRequest) -> Blob:
        """Keep a document, durably; InvalidArgument names both digests if they differ."""
        ...

    @method(idempotent=True, raises=(InvalidArgument, ResourceExhausted))
    async def open(self, write: WriteRef) -> WriteState:
        """Begin a write, or tell how far one that was begun is."""
        ...

    @method(
        idempotent=False,
        raises=(NotFound, InvalidArgument, FailedPrecondition, ResourceExhausted),
    )
    async def write(self, write: Write) -> Address:
        """A raw stream for more bytes. Its half-close ends it; then the new offset comes back as a
        decimal number and a newline, once the bytes are durable. FailedPrecondition if `offset` is
        not what the write has, or another stream is writing. A broken stream keeps what came; one
        that can't be kept (the disk is full, somebody abandoned it) is cut without a number.
        """
        ...

    @method(idempotent=True, raises=(NotFound, InvalidArgument, FailedPrecondition), seconds=300.0)
    async def finish(self, request: Finish) -> Blob:
        """Verify and keep; InvalidArgument (both digests) leaves the write to be abandoned.

        Again after success: the blob, held. FailedPrecondition while a stream is still writing.
        """
        ...

    @method(idempotent=True, raises=(InvalidArgument,))
    async def abandon(self, write: WriteRef) -> None:
        """Forget a write; unknown is no error."""
        ...

    @method(idempotent=True, raises=(NotFound, InvalidArgument))
    async def hold(self, hold: Hold) -> Blob:
        """Hold a blob that is here."""
        ...

    @method(idempotent=True, raises=(InvalidArgument,))
    async def drop(self, hold: Hold) -> None:
        """Drop a hold; unknown is no error."""
        ...

    @method(idempotent=True)
    async def holds(self, query: HoldQuery) -> HoldList:
        """Holds of the calling plugin."""
        ...

    @method(idempotent=True, seconds=600.0)
    async def sweep(self) -> Swept:
        """Free what no image needs and nobody holds."""
        ...
