"""The suite of `objects` against the API server, and the mutations it must catch."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from tests.conformance.platform_suites import Wrapper, hold

from sagong.conformance import objects as suite
from sagong.contracts.objects import (
    Commit,
    CommitResult,
    GetRequest,
    ListRequest,
    ListResult,
    Object,
    ObjectBatch,
    Objects,
    ObjectWatch,
    Reminder,
    Verb,
    Write,
)

changed = msgspec.structs.replace


class EachForItself(Wrapper[Objects]):
    async def commit(self, commit: Commit) -> CommitResult:
        return await self._inner.commit(changed(commit, id=secrets.token_hex(16)))


class Writing(Wrapper[Objects]):
    """Broken in how it takes writes."""

    def write(self, write: Write) -> Write:
        raise NotImplementedError

    async def commit(self, commit: Commit) -> CommitResult:
        writes = tuple(self.write(write) for write in commit.writes)
        return await self._inner.commit(changed(commit, writes=writes))


class IgnoresRevisions(Writing):
    def write(self, write: Write) -> Write:
        if write.verb is not Verb.UPDATE:
            return write
        body = msgspec.json.decode(write.body)
        body["metadata"].pop("resourceVersion", None)
        return changed(write, body=msgspec.json.encode(body))


class IgnoresUids(Writing):
    def write(self, write: Write) -> Write:
        return changed(write, uid="")


class PatchesReplace(Writing):
    def write(self, write: Write) -> Write:
        if write.verb is not Verb.PATCH or b'"mark":null' not in write.body:
            return write
        return changed(write, body=write.body.replace(b'"mark":null', b'"mark":"left"'))


class BindsNobody(Writing):
    def write(self, write: Write) -> Write:
        return changed(write, node="elsewhere") if write.verb is Verb.BIND else write


class ListsAll(Wrapper[Objects]):
    async def list(self, request: ListRequest) -> ListResult:
        return await self._inner.list(changed(request, labels=""))


class IgnoresFields(Wrapper[Objects]):
    async def list(self, request: ListRequest) -> ListResult:
        return await self._inner.list(changed(request, fields=""))


class OnePage(Wrapper[Objects]):
    async def list(self, request: ListRequest) -> ListResult:
        return await self._inner.list(changed(request, limit=0))


class Reading(Wrapper[Objects]):
    async def get(self, request: GetRequest) -> Object:
        found = await self._inner.get(request)
        return changed(found, revision=found.revision + 1)


class Watching(Wrapper[Objects]):
    """Broken in what it follows."""

    def asked(self, request: ObjectWatch) -> ObjectWatch:
        return request

    def told(self, batch: ObjectBatch) -> ObjectBatch:
        return batch

    async def watch(self, request: ObjectWatch) -> AsyncIterator[ObjectBatch]:
        stream = self._inner.watch(self.asked(request))
        try:
            async for batch in stream:
                yield self.told(batch)
        finally:
            await stream.aclose()  # type: ignore[attr-defined]


class BeginsAnew(Watching):
    def asked(self, request: ObjectWatch) -> ObjectWatch:
        return changed(request, revision=0)


class SeesAll(Watching):
    def asked(self, request: ObjectWatch) -> ObjectWatch:
        return changed(request, labels="")


class MissesDeletions(Watching):
    def told(self, batch: ObjectBatch) -> ObjectBatch:
        kept = tuple(change for change in batch.changes if change.kind != "DELETED")
        told = tuple(changed(c, kind="DELETED") for c in batch.changes if c not in kept)
        return changed(batch, changes=(*kept, *(changed(c, kind="MODIFIED") for c in told)))


class TakesAnyReminder(Wrapper[Objects]):
    async def remind(self, reminder: Reminder) -> None:
        pass


BROKEN: dict[type, str] = {
    EachForItself: "the_same_commit_is_done_once",
    IgnoresRevisions: "a_stale_write_is_a_conflict",
    IgnoresUids: "a_delete_means_one_uid",
    PatchesReplace: "a_patch_merges_and_removes",
    BindsNobody: "writes_of_a_batch_see_each_other",
    ListsAll: "lists_choose_by_labels_and_fields",
    IgnoresFields: "lists_choose_by_labels_and_fields",
    OnePage: "lists_come_in_pages_of_one_revision",
    Reading: "what_is_written_is_read",
    BeginsAnew: "a_watch_resumes_after_a_revision",
    SeesAll: "a_watch_sees_by_its_selector",
    TakesAnyReminder: "a_reminder_is_of_resources_that_there_are",
    MissesDeletions: "a_watch_begins_with_all_and_goes_on_without_a_gap",
}


def broken(lab: Objects, kind: Any) -> Objects:
    """A broken API."""
    made: Objects = kind(lab)
    return made


@pytest.mark.root
def test_the_api_and_broken_ones() -> None:
    hold("objects", "kube", suite, BROKEN, broken)
