"""What every implementation of slot `content` must do, sentence by sentence of its contract.

The lab holds the candidate as one plugin calls it, and as another does where that can be had.
Checks use bytes and names of their own, so one candidate can serve them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from sagong.conformance.refusals import raises
from sagong.contracts.content import (
    Blob,
    BlobRange,
    BlobRef,
    Content,
    Finish,
    Hold,
    HoldQuery,
    PutRequest,
    Write,
    WriteRef,
)
from sagong.contracts.streams import Address
from sagong.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)
from sagong.linux.process import receive_descriptors

__all__ = ["ContentLab", "digest_of", "fetched", "raises", "sent"]

_LIMIT = 4 << 20


@dataclass
class ContentLab:
    """A candidate, and powers that may be missing; checks that need one then pass.

    `other` is the candidate as another plugin calls it; `restart` stops it and starts it again on
    the same data, behind the same objects.
    """

    content: Content
    other: Content | None = None
    restart: Callable[[], Awaitable[None]] | None = None
    area: str = field(default_factory=lambda: secrets.token_hex(4))

    def data(self, size: int = 40) -> bytes:
        """Bytes that no other check has."""
        return (self.area.encode() + secrets.token_bytes(16)).ljust(size, b".")[:size]

    def name(self, name: str = "w") -> str:
        """An owner or an id that no other check uses."""
        return f"{self.area}-{name}"

    async def put(self, data: bytes, owner: str = "o", digest: str = "") -> Blob:
        """Keep a document."""
        request = PutRequest(owner=self.name(owner), data=data, digest=digest)
        return await self.content.put(request)

    async def written(self, data: bytes, name: str = "w", owner: str = "o") -> Blob:
        """A blob by a write."""
        offset = (await self.content.open(WriteRef(id=self.name(name)))).offset
        await self.write(data[offset:], offset, name)
        return await self.finish(digest_of(data), name, owner)

    async def write(self, data: bytes, offset: int = 0, name: str = "w") -> int:
        """Send more bytes; the offset that comes back."""
        address = await self.content.write(Write(id=self.name(name), offset=offset))
        return int(await sent(address, data))

    async def finish(self, digest: str, name: str = "w", owner: str = "o") -> Blob:
        """Finish a write."""
        request = Finish(id=self.name(name), digest=digest, owner=self.name(owner))
        return await self.content.finish(request)

    async def offset(self, name: str = "w") -> int:
        """How far a write is."""
        return (await self.content.open(WriteRef(id=self.name(name)))).offset

    async def drop(self, digest: str, owner: str = "o") -> None:
        """Drop a hold."""
        await self.content.drop(Hold(owner=self.name(owner), digest=digest))

    async def has(self, digest: str) -> bool:
        """Whether a blob is there."""
        try:
            return bool(await self.content.stat(BlobRef(digest=digest)))
        except NotFound:
            return False

    async def held(self, owner: str = "o") -> list[str]:
        """What an owner holds."""
        found = await self.content.holds(HoldQuery(owner=self.name(owner)))
        return [hold.digest for hold in found.holds]


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    """The digest of bytes."""
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


async def sent(address: Address, data: bytes) -> bytes:
    """Send bytes, half-close, and read what comes back."""
    reader, writer = await asyncio.open_unix_connection(address.path)
    writer.write(address.token.encode() + b"\n" + data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


async def fetched(address: Address) -> bytes:
    """All bytes of an address."""
    reader, writer = await asyncio.open_unix_connection(address.path)
    writer.write(address.token.encode() + b"\n")
    data = await reader.read()
    writer.close()
    return data


# Documents and blobs.


async def check_documents_are_kept(lab: ContentLab) -> None:
    data = lab.data()
    blob = await lab.put(data)
    assert blob == Blob(digest=digest_of(data), size=len(data))
    assert (await lab.content.get(BlobRef(digest=blob.digest))).data == data
    assert await lab.content.stat(BlobRef(digest=blob.digest)) == blob
    assert await lab.put(data) == blob


async def check_documents_can_have_sha512(lab: ContentLab) -> None:
    data = lab.data()
    wanted = digest_of(data, "sha512")
    assert (await lab.put(data, digest=wanted)).digest == wanted
    assert (await lab.content.get(BlobRef(digest=wanted))).data == data


async def check_another_digest_is_refused(lab: ContentLab) -> None:
    data, wanted = lab.data(), digest_of(lab.data())
    with raises(InvalidArgument, "put of bytes with another digest") as said:
        await lab.put(data, digest=wanted)
    assert wanted in said[0].message and digest_of(data) in said[0].message, said
    assert not await lab.has(digest_of(data))


async def check_documents_end_at_4_mib(lab: ContentLab) -> None:
    fits = lab.data(_LIMIT)
    blob = await lab.put(fits)
    assert len((await lab.content.get(BlobRef(digest=blob.digest))).data) == _LIMIT
    with raises(ResourceExhausted, "a document of more than 4 MiB"):
        await lab.put(lab.data(_LIMIT + 1))
    large = await lab.written(lab.data(_LIMIT + 1))
    with raises(ResourceExhausted, "get of a large blob"):
        await lab.content.get(BlobRef(digest=large.digest))


async def check_unknown_blobs_are_not_found(lab: ContentLab) -> None:
    digest = digest_of(lab.data())
    for work in (
        lambda: lab.content.stat(BlobRef(digest=digest)),
        lambda: lab.content.get(BlobRef(digest=digest)),
        lambda: lab.content.read(BlobRange(digest=digest)),
        lambda: lab.content.hold(Hold(owner="o", digest=digest)),
    ):
        with raises(NotFound, "an unknown digest") as said:
            await work()
        assert digest in said[0].message


async def check_impossible_digests_are_invalid(lab: ContentLab) -> None:
    for digest in ("", "sha256:", "sha256:" + "A" * 64, "md5:" + "a" * 32, "sha256:../../x"):
        with raises(InvalidArgument, f"digest {digest!r}"):
            await lab.content.stat(BlobRef(digest=digest))
        with raises(InvalidArgument, f"hold of {digest!r}"):
            await lab.content.hold(Hold(owner="o", digest=digest))


async def check_a_blob_is_lent_as_a_file(lab: ContentLab) -> None:
    data = lab.data(100_000)
    blob = await lab.put(data, owner="lender")
    address = await lab.content.lend(BlobRef(digest=blob.digest))
    assert address.protocol == "file"
    descriptor = await asyncio.to_thread(_descriptor_at, address)
    try:
        # It is good for its whole length, whatever becomes of the blob.
        await lab.content.drop(Hold(owner=lab.name("lender"), digest=blob.digest))
        await lab.content.sweep()
        assert not await lab.has(blob.digest)
        assert os.pread(descriptor, len(data) + 1, 0) == data
    finally:
        os.close(descriptor)
    with raises(NotFound, "a blob that is gone"):
        await lab.content.lend(BlobRef(digest=blob.digest))


def _descriptor_at(address: Address) -> int:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(address.path)
        connection.sendall(address.token.encode() + b"\n")
        return receive_descriptors(connection, 1, 1).descriptors[0]


async def check_blobs_are_read_in_parts(lab: ContentLab) -> None:
    data = bytes(range(256)) * 4096 + lab.data()
    digest = (await lab.written(data)).digest

    async def part(offset: int, length: int) -> bytes:
        request = BlobRange(digest=digest, offset=offset, length=length)
        return await fetched(await lab.content.read(request))

    assert await fetched(await lab.content.read(BlobRange(digest=digest))) == data
    assert await part(1000, 2000) == data[1000:3000]
    assert await part(len(data) - 5, -1) == data[-5:]
    assert await part(len(data), -1) == b"" and await part(7, 0) == b""


async def check_ranges_beyond_the_end_are_invalid(lab: ContentLab) -> None:
    digest = (await lab.put(lab.data(40))).digest
    for offset, length in ((41, -1), (0, 41), (40, 1), (-1, 1), (0, -2)):
        with raises(InvalidArgument, f"{length} bytes from {offset} of 40"):
            await lab.content.read(BlobRange(digest=digest, offset=offset, length=length))


async def check_an_address_is_good_once(lab: ContentLab) -> None:
    data = lab.data()
    digest = (await lab.put(data)).digest
    address = await lab.content.read(BlobRange(digest=digest))
    assert await fetched(address) == data
    assert await fetched(address) == b""


# Writes.


async def check_a_write_becomes_a_blob(lab: ContentLab) -> None:
    data = lab.data(300_000)
    assert await lab.offset() == 0
    assert await lab.write(data[:100_000]) == 100_000
    assert await lab.write(data[100_000:], 100_000) == len(data)
    assert not await lab.has(digest_of(data))
    assert await lab.finish(digest_of(data)) == Blob(digest=digest_of(data), size=len(data))
    assert await fetched(await lab.content.read(BlobRange(digest=digest_of(data)))) == data
    assert await lab.held() == [digest_of(data)]
    assert await lab.offset() == 0, "a finished write is still there"


async def check_a_write_can_be_empty(lab: ContentLab) -> None:
    assert await lab.offset() == 0
    assert (await lab.finish(digest_of(b""))).size == 0
    assert (await lab.content.get(BlobRef(digest=digest_of(b"")))).data == b""


async def check_a_write_can_have_sha512(lab: ContentLab) -> None:
    data = lab.data()
    await lab.offset()
    await lab.write(data)
    wanted = digest_of(data, "sha512")
    assert (await lab.finish(wanted)).digest == wanted


async def check_finishing_again_changes_nothing(lab: ContentLab) -> None:
    data = lab.data()
    blob = await lab.written(data)
    assert await lab.finish(blob.digest) == blob
    assert await lab.held() == [blob.digest]


async def check_a_damaged_write_is_refused(lab: ContentLab) -> None:
    data, wanted = lab.data(), digest_of(lab.data())
    await lab.offset()
    await lab.write(data)
    with raises(InvalidArgument, "another digest") as said:
        await lab.finish(wanted)
    assert wanted in said[0].message and digest_of(data) in said[0].message, said
    assert not await lab.has(wanted) and await lab.held() == []
    assert await lab.offset() == len(data), "the write is gone"
    assert (await lab.finish(digest_of(data))).size == len(data)


async def check_unknown_writes_are_not_found(lab: ContentLab) -> None:
    with raises(NotFound, "write"):
        await lab.content.write(Write(id=lab.name(), offset=0))
    with raises(NotFound, "finish"):
        await lab.finish(digest_of(lab.data()))
    await lab.content.abandon(WriteRef(id=lab.name()))


async def check_impossible_names_are_invalid(lab: ContentLab) -> None:
    for identity in ("", "UP", "a/b", "..", "a" * 65, "a b"):
        with raises(InvalidArgument, f"id {identity!r}"):
            await lab.content.open(WriteRef(id=identity))
    digest = (await lab.put(lab.data())).digest
    for owner in ("", "o" * 1025):
        with raises(InvalidArgument, f"owner of {len(owner)} characters"):
            await lab.content.hold(Hold(owner=owner, digest=digest))
        with raises(InvalidArgument, f"owner of {len(owner)} characters"):
            await lab.content.put(PutRequest(owner=owner, data=b"x"))


async def check_writing_goes_on_where_it_was(lab: ContentLab) -> None:
    data = lab.data()
    await lab.offset()
    await lab.write(data[:10])
    for offset in (0, 9, 11):
        with raises(FailedPrecondition, f"writing from {offset} of 10"):
            await lab.content.write(Write(id=lab.name(), offset=offset))
    assert await lab.write(data[10:], 10) == len(data)
    assert (await lab.finish(digest_of(data))).size == len(data)


async def check_a_broken_stream_keeps_what_came(lab: ContentLab) -> None:
    data = lab.data(200_000)
    await lab.offset()
    address = await lab.content.write(Write(id=lab.name(), offset=0))
    _, writer = await asyncio.open_unix_connection(address.path)
    writer.write(address.token.encode() + b"\n" + data[:100_000])
    await writer.drain()
    await _until(lambda: _reached(lab, 100_000))
    writer.transport.abort()
    await _until(lambda: _writable(lab, 100_000))
    assert await lab.write(data[100_000:], 100_000) == len(data)
    assert (await lab.finish(digest_of(data))).size == len(data)


async def _reached(lab: ContentLab, offset: int) -> bool:
    return await lab.offset() == offset


async def _writable(lab: ContentLab, offset: int) -> bool:
    with contextlib.suppress(FailedPrecondition):
        return bool(await lab.content.write(Write(id=lab.name(), offset=offset)))
    return False


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(40):
        while not await condition():  # noqa: ASYNC110 - a candidate has nothing to wait on
            await asyncio.sleep(0.01)


async def check_one_stream_writes_at_a_time(lab: ContentLab) -> None:
    data = lab.data()
    await lab.offset()
    address = await lab.content.write(Write(id=lab.name(), offset=0))
    reader, writer = await asyncio.open_unix_connection(address.path)
    writer.write(address.token.encode() + b"\n" + data[:20])
    await writer.drain()
    await _until(lambda: _reached(lab, 20))
    with raises(FailedPrecondition, "a second stream"):
        await lab.content.write(Write(id=lab.name(), offset=20))
    with raises(FailedPrecondition, "finish while a stream is writing"):
        await lab.finish(digest_of(data))
    writer.write(data[20:])
    writer.write_eof()
    assert int(await reader.read()) == len(data)
    writer.close()
    assert (await lab.finish(digest_of(data))).size == len(data)


async def check_abandoned_writes_are_gone(lab: ContentLab) -> None:
    await lab.offset()
    await lab.write(lab.data())
    await lab.content.abandon(WriteRef(id=lab.name()))
    with raises(NotFound, "an abandoned write"):
        await lab.content.write(Write(id=lab.name(), offset=0))
    assert await lab.offset() == 0


async def check_writes_survive_a_restart(lab: ContentLab) -> None:
    if lab.restart is None:
        return
    data = lab.data(100_000)
    await lab.offset()
    await lab.write(data[:70_000])
    await lab.restart()
    assert await lab.offset() == 70_000
    assert await lab.write(data[70_000:], 70_000) == len(data)
    assert (await lab.finish(digest_of(data))).size == len(data)


async def check_writes_are_the_caller_s_own(lab: ContentLab) -> None:
    if lab.other is None:
        return
    data = lab.data()
    await lab.offset()
    await lab.write(data)
    assert (await lab.other.open(WriteRef(id=lab.name()))).offset == 0
    await lab.other.abandon(WriteRef(id=lab.name()))
    assert await lab.offset() == len(data)


# Holds.


async def check_holds_keep_blobs(lab: ContentLab) -> None:
    kept, freed = await lab.put(lab.data()), await lab.put(lab.data())
    await lab.drop(freed.digest)
    swept = await lab.content.sweep()
    assert swept.blobs >= 1 and swept.bytes >= freed.size
    assert await lab.has(kept.digest) and not await lab.has(freed.digest)
    await lab.drop(kept.digest)
    await lab.content.sweep()
    assert not await lab.has(kept.digest)


async def check_each_owner_holds_for_itself(lab: ContentLab) -> None:
    blob = await lab.written(lab.data(), owner="a")
    held = await lab.content.hold(Hold(owner=lab.name("b"), digest=blob.digest))
    assert held == blob
    await lab.drop(blob.digest, "a")
    await lab.drop(blob.digest, "a")
    await lab.content.sweep()
    assert await lab.has(blob.digest), "another owner still holds it"
    assert await lab.held("a") == [] and await lab.held("b") == [blob.digest]


async def check_holding_twice_is_holding_once(lab: ContentLab) -> None:
    blob = await lab.put(lab.data())
    await lab.content.hold(Hold(owner=lab.name("o"), digest=blob.digest))
    assert await lab.held() == [blob.digest]
    await lab.drop(blob.digest)
    assert await lab.held() == []


async def check_holds_survive_a_restart(lab: ContentLab) -> None:
    if lab.restart is None:
        return
    blob = await lab.put(lab.data())
    await lab.restart()
    await lab.content.sweep()
    assert await lab.has(blob.digest) and await lab.held() == [blob.digest]


async def check_holds_come_in_pages(lab: ContentLab) -> None:
    wanted = set()
    for owner in ("a", "b", "c"):
        for _ in range(3):
            blob = await lab.put(lab.data(), owner)
            wanted.add((lab.name(owner), blob.digest))
    found: list[tuple[str, str]] = []
    more, after = True, (lab.name(""), "")
    while more:
        page = await lab.content.holds(HoldQuery(after=after, limit=4))
        assert len(page.holds) <= 4
        found += [(hold.owner, hold.digest) for hold in page.holds]
        more, after = page.more, found[-1]
    assert found == sorted(found)
    assert wanted <= set(found) and len(found) == len(set(found))


async def check_holds_are_the_caller_s_own(lab: ContentLab) -> None:
    if lab.other is None:
        return
    blob = await lab.put(lab.data())
    hold = Hold(owner=lab.name("o"), digest=blob.digest)
    assert (await lab.other.holds(HoldQuery(owner=hold.owner))).holds == ()
    await lab.other.drop(hold)
    assert await lab.held() == [blob.digest], "another plugin dropped the hold"
    await lab.other.hold(hold)
    await lab.drop(blob.digest)
    await lab.content.sweep()
    assert await lab.has(blob.digest), "what another plugin holds was swept"


async def check_sweeping_leaves_writes(lab: ContentLab) -> None:
    await lab.offset()
    await lab.write(lab.data())
    await lab.content.sweep()
    assert await lab.offset() == 40
