"""The fake content store broken in one way each: the suite of `content` must catch every one."""

from __future__ import annotations

import contextlib

from msgspec.structs import replace
from tests.conformance.fake_content import Disk, FakeContent, digest_of

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
    WriteRef,
    WriteState,
)
from sagong.contracts.streams import Address
from sagong.errors import NotFound

__all__ = ["MUTATIONS"]


class TrustsDigests(FakeContent):
    """Keeps writes under the digest that it is told."""

    def keep(self, data: bytes, digest: str) -> None:
        self.disk.blobs[digest] = data


class TrustsDocuments(FakeContent):
    """Keeps documents under their own digest, whatever was wanted."""

    async def put(self, request: PutRequest) -> Blob:
        return await super().put(replace(request, digest=""))


class KnowsOneAlgorithm(FakeContent):
    """Has sha256 only."""

    async def finish(self, request: Finish) -> Blob:
        data = bytes(self.disk.writes.get((call.current().caller, request.id), b""))
        return await super().finish(replace(request, digest=digest_of(data, "")))


class HasNoLimit(FakeContent):
    """Sends documents of any size."""

    async def get(self, blob: BlobRef) -> Document:
        return Document(digest=blob.digest, data=self.found(blob.digest))


class CutsRanges(FakeContent):
    """Gives what there is of a range."""

    async def read(self, blob: BlobRange) -> Address:
        size = len(self.found(blob.digest))
        offset = min(max(blob.offset, 0), size)
        length = size - offset if blob.length < 0 else min(blob.length, size - offset)
        return await super().read(replace(blob, offset=offset, length=length))


class ForgetsOffsets(FakeContent):
    """Begins each stream at the beginning."""

    async def open(self, write: WriteRef) -> WriteState:
        state = await super().open(write)
        if (call.current().caller, write.id) not in self.busy:
            self.disk.writes[call.current().caller, write.id].clear()
        return replace(state, offset=0)


class WritesAtOnce(FakeContent):
    """Lets several streams write."""

    def check(self, key: tuple[str, str], offset: int) -> bytearray:
        with contextlib.suppress(KeyError):
            self.busy.remove(key)
        return super().check(key, offset)


class ForgetsToHold(FakeContent):
    """Finishes without a hold."""

    async def finish(self, request: Finish) -> Blob:
        before = set(self.disk.holds)
        try:
            return await super().finish(request)
        finally:
            self.disk.holds = before


class FinishesOnce(FakeContent):
    """Knows nothing of what it finished."""

    async def finish(self, request: Finish) -> Blob:
        if (call.current().caller, request.id) not in self.disk.writes:
            raise NotFound("no such write")
        return await super().finish(request)


class DropsRefusedWrites(FakeContent):
    """Throws away what does not have the digest."""

    async def finish(self, request: Finish) -> Blob:
        try:
            return await super().finish(request)
        finally:
            self.disk.writes.pop((call.current().caller, request.id), None)


class SharesHolds(FakeContent):
    """Takes all callers for one."""

    async def drop(self, hold: Hold) -> None:
        self.disk.holds = {
            (caller, owner, digest)
            for caller, owner, digest in self.disk.holds
            if (owner, digest) != (hold.owner, hold.digest)
        }


class CountsHolds(FakeContent):
    """Drops all owners' holds at once."""

    async def drop(self, hold: Hold) -> None:
        self.disk.holds = {key for key in self.disk.holds if key[2] != hold.digest}


class SweepsEverything(FakeContent):
    """Sweeps what is held."""

    async def sweep(self) -> Swept:
        held, self.disk.holds = self.disk.holds, set()
        try:
            return await super().sweep()
        finally:
            self.disk.holds = held


class SweepsWrites(FakeContent):
    """Takes writes for garbage."""

    async def sweep(self) -> Swept:
        self.disk.writes.clear()
        return await super().sweep()


class ListsOnePage(FakeContent):
    """Says that a page is all."""

    async def holds(self, query: HoldQuery) -> HoldList:
        return replace(await super().holds(query), more=False)


class KeepsNothing(FakeContent):
    """Holds and writes in memory alone."""

    def __init__(self, disk: Disk, top: object) -> None:
        super().__init__(Disk(blobs=disk.blobs), top)  # type: ignore[arg-type]


# Each mutation names the check of the suite that must catch it.
MUTATIONS: dict[type[FakeContent], str] = {
    TrustsDigests: "a_damaged_write_is_refused",
    TrustsDocuments: "another_digest_is_refused",
    KnowsOneAlgorithm: "a_write_can_have_sha512",
    HasNoLimit: "documents_end_at_4_mib",
    CutsRanges: "ranges_beyond_the_end_are_invalid",
    ForgetsOffsets: "writes_survive_a_restart",
    WritesAtOnce: "one_stream_writes_at_a_time",
    ForgetsToHold: "a_write_becomes_a_blob",
    FinishesOnce: "finishing_again_changes_nothing",
    DropsRefusedWrites: "a_damaged_write_is_refused",
    SharesHolds: "holds_are_the_caller_s_own",
    CountsHolds: "each_owner_holds_for_itself",
    SweepsEverything: "holds_keep_blobs",
    SweepsWrites: "sweeping_leaves_writes",
    ListsOnePage: "holds_come_in_pages",
    KeepsNothing: "holds_survive_a_restart",
}
