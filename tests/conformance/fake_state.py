"""A small store in memory that passes the state suite."""

from __future__ import annotations

import asyncio
import pickle
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

from msgspec.structs import replace

from sagong.contracts.state import (
    Chunk,
    CompactRequest,
    Compare,
    Entry,
    Lease,
    LeaseList,
    LeaseRef,
    Operation,
    OperationKind,
    OperationResult,
    RangeRequest,
    RangeResult,
    StateStatus,
    Transaction,
    TransactionResult,
    WatchBatch,
    WatchEvent,
    WatchRequest,
)
from sagong.errors import Conflict, Gone, InvalidArgument, NotFound

__all__ = ["Disk", "FakeState", "check_range"]

Entries = dict[str, Entry]


@dataclass
class Disk:
    """What survives a crash: every change ever, answers and leases."""

    revision: int = 1
    compacted: int = 1
    changes: list[WatchEvent] = field(default_factory=list)
    answers: dict[str, TransactionResult] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)

    def entries(self, revision: int) -> Entries:
        """All entries as they were at a revision."""
        found: Entries = {}
        for change in self.changes:
            if change.entry.revision > revision:
                break
            if change.deleted:
                del found[change.entry.key]
            else:
                found[change.entry.key] = change.entry
        return found

    def after(self, revision: int) -> int:
        """Where the changes of later revisions begin."""
        return bisect_right(self.changes, revision, key=lambda change: change.entry.revision)

    def dump(self) -> bytes:
        """As a snapshot."""
        return pickle.dumps(self)

    @staticmethod
    def load(data: bytes) -> Disk:
        """From a snapshot that this test made."""
        disk: Disk = pickle.loads(data)
        return disk


def within(key: str, start: str, end: str) -> bool:
    """Whether a key is in a range."""
    if end == "":
        return key == start
    return key >= start and (end == "\0" or key < end)


def check_range(start: str, end: str) -> None:
    """Refuse the empty key."""
    if start == "" and end == "":
        raise InvalidArgument("an empty key: give one")


class FakeState:
    """Every method is small, so that a mutation changes one thing."""

    # Of a mutation: the check of the suite that must catch it.
    caught_by = ""

    def __init__(self, disk: Disk | None = None) -> None:
        self.disk = disk = disk or Disk()
        self.now: Entries = disk.entries(disk.revision)
        self.changed = asyncio.Event()
        self.timers: dict[str, asyncio.TimerHandle] = {}
        for lease in disk.leases.values():
            self.start_lease(lease)

    def kill(self) -> None:
        """Stop as a crash does."""
        for timer in self.timers.values():
            timer.cancel()

    # Ranges

    async def range(self, request: RangeRequest) -> RangeResult:
        check_range(request.start, request.end)
        self.check_readable(request.revision)
        entries = self.disk.entries(request.revision) if request.revision else self.now
        found = self.ordered(e for k, e in entries.items() if self.matches(k, request))
        shown = self.cut(found, request)
        return RangeResult(
            entries=tuple(self.shown(e, request) for e in shown),
            revision=self.disk.revision,
            count=self.counted(found, shown),
            more=len(shown) < len(found) and not request.count_only,
        )

    def check_readable(self, revision: int) -> None:
        if revision > self.disk.revision:
            raise InvalidArgument("a revision that is not yet: wait")
        if revision and revision < self.disk.compacted:
            raise Gone("a compacted revision: read anew")

    def matches(self, key: str, request: RangeRequest) -> bool:
        return within(key, request.start, request.end)

    def ordered(self, entries: Iterable[Entry]) -> list[Entry]:
        return sorted(entries, key=lambda e: e.key)

    def cut(self, found: list[Entry], request: RangeRequest) -> list[Entry]:
        return [] if request.count_only else found[: request.limit or None]

    def counted(self, found: list[Entry], shown: list[Entry]) -> int:
        return len(found)

    def shown(self, entry: Entry, request: RangeRequest) -> Entry:
        return replace(entry, value=b"") if request.keys_only else entry

    # Transactions

    async def commit(self, transaction: Transaction) -> TransactionResult:
        known = self.disk.answers.get(transaction.id)
        if known is not None:
            return self.repeated(transaction, known)
        self.check(transaction)
        succeeded = self.holds(transaction.compare)
        branch = transaction.success if succeeded else transaction.failure
        self.check_leases(branch)
        result = self.carry_out(branch, succeeded)
        self.remember(transaction, result)
        await asyncio.sleep(0)
        return result

    def repeated(self, transaction: Transaction, known: TransactionResult) -> TransactionResult:
        return known

    def remember(self, transaction: Transaction, result: TransactionResult) -> None:
        self.disk.answers[transaction.id] = result

    def check(self, transaction: Transaction) -> None:
        for branch in (transaction.success, transaction.failure):
            put = [o.key for o in branch if o.kind is OperationKind.PUT]
            for operation in branch:
                check_range(operation.key, operation.end)
                deletes = operation.kind is OperationKind.DELETE
                if deletes and any(within(k, operation.key, operation.end) for k in put):
                    raise InvalidArgument("a key is put and deleted: keep one")
            if len(put) != len(set(put)):
                raise InvalidArgument("a key is put twice: keep one")

    def holds(self, compares: tuple[Compare, ...]) -> bool:
        return all(self.revision_of(c.key) == c.revision for c in compares)

    def revision_of(self, key: str) -> int:
        return self.now[key].revision if key in self.now else 0

    def check_leases(self, branch: tuple[Operation, ...]) -> None:
        for operation in branch:
            if operation.lease and operation.lease not in self.disk.leases:
                raise NotFound("no such lease: grant it")

    def carry_out(self, branch: tuple[Operation, ...], succeeded: bool) -> TransactionResult:
        revision, before = self.disk.revision + 1, len(self.disk.changes)
        results = tuple(self.operate(operation, revision) for operation in branch)
        if len(self.disk.changes) > before:
            self.close_revision(revision)
        return TransactionResult(succeeded=succeeded, revision=self.disk.revision, results=results)

    def close_revision(self, revision: int) -> None:
        self.disk.revision = revision
        self.changed.set()
        self.changed = asyncio.Event()

    def operate(self, operation: Operation, revision: int) -> OperationResult:
        if operation.kind is OperationKind.PUT:
            self.put(operation, revision)
            return OperationResult(count=1)
        found = self.ordered(
            e for k, e in self.now.items() if within(k, operation.key, operation.end)
        )
        if operation.kind is OperationKind.DELETE:
            for entry in found:
                self.delete(entry, revision)
            if operation.quiet:
                return OperationResult(count=len(found))
        return OperationResult(entries=tuple(found), count=len(found))

    def put(self, operation: Operation, revision: int) -> None:
        old = self.now.get(operation.key)
        entry = Entry(
            key=operation.key,
            value=operation.value,
            create_revision=old.create_revision if old else revision,
            revision=revision,
            version=old.version + 1 if old else 1,
            lease=operation.lease,
        )
        self.now[entry.key] = entry
        self.disk.changes.append(WatchEvent(entry=entry, previous=old))

    def delete(self, old: Entry, revision: int) -> None:
        del self.now[old.key]
        gone = Entry(key=old.key, create_revision=0, revision=revision, version=0)
        self.disk.changes.append(WatchEvent(entry=gone, deleted=True, previous=old))

    # Watches

    async def watch(self, request: WatchRequest) -> AsyncIterator[WatchBatch]:
        check_range(request.start, request.end)
        if request.revision > self.disk.revision:
            raise InvalidArgument("a watch from the future: read anew")
        position = self.begin(request)
        yield WatchBatch(revision=position)
        while True:
            changed, last = self.changed, self.disk.revision
            self.check_kept(position)
            for batch in self.batches(request, position):
                yield batch
            position = last
            if self.disk.revision == last:
                try:
                    async with asyncio.timeout(request.progress_seconds or None):
                        await changed.wait()
                except TimeoutError:
                    yield WatchBatch(revision=position)

    def begin(self, request: WatchRequest) -> int:
        return request.revision or self.disk.revision

    def check_kept(self, position: int) -> None:
        if position < self.disk.compacted - 1:
            raise Gone("the watch needs compacted changes: read anew")

    def batches(self, request: WatchRequest, position: int) -> list[WatchBatch]:
        events = [
            self.event(change, request)
            for change in self.disk.changes[self.disk.after(position) :]
            if within(change.entry.key, request.start, request.end)
        ]
        return [WatchBatch(revision=self.disk.revision, events=tuple(events))] if events else []

    def event(self, change: WatchEvent, request: WatchRequest) -> WatchEvent:
        return change if request.previous else replace(change, previous=None)

    # Leases

    async def grant(self, lease: Lease) -> Lease:
        if lease.seconds <= 0:
            raise InvalidArgument("a lease without a time: give one")
        known = self.disk.leases.get(lease.id)
        if known is not None and known != lease:
            raise Conflict("a lease of that name lives: take another")
        self.disk.leases[lease.id] = lease
        self.start_lease(lease)
        return lease

    def start_lease(self, lease: Lease) -> None:
        if lease.id in self.timers:
            self.timers[lease.id].cancel()
        loop = asyncio.get_running_loop()
        self.timers[lease.id] = loop.call_later(lease.seconds, self.end_lease, lease.id)

    async def renew(self, lease: LeaseRef) -> Lease:
        known = self.disk.leases.get(lease.id)
        if known is None:
            raise NotFound("no such lease: grant it")
        self.start_lease(known)
        return known

    async def revoke(self, lease: LeaseRef) -> None:
        self.end_lease(lease.id)

    def end_lease(self, name: str) -> None:
        if name in self.timers:
            self.timers.pop(name).cancel()
        self.disk.leases.pop(name, None)
        held = [e for e in self.ordered(self.now.values()) if name and e.lease == name]
        for entry in held:
            self.delete(entry, self.disk.revision + 1)
        if held:
            self.close_revision(self.disk.revision + 1)

    async def leases(self) -> LeaseList:
        return LeaseList(leases=tuple(self.disk.leases.values()))

    # Compaction, snapshot, status

    async def compact(self, request: CompactRequest) -> StateStatus:
        if request.revision > self.disk.revision:
            raise InvalidArgument("compaction in the future: wait")
        self.disk.compacted = max(self.disk.compacted, request.revision)
        return await self.status()

    async def snapshot(self) -> AsyncIterator[Chunk]:
        yield Chunk(data=self.disk.dump())

    async def status(self) -> StateStatus:
        return StateStatus(
            revision=self.disk.revision,
            compacted=self.disk.compacted,
            size=1,
            keys=len(self.now),
        )
