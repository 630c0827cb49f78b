"""A store in memory with the semantics of slot `state`, for tests of the API server alone."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator

from sagong.contracts.state import (
    Chunk,
    CompactRequest,
    Entry,
    Lease,
    LeaseList,
    LeaseRef,
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
from sagong.errors import Gone, InvalidArgument, NotFound


class FakeState:
    """Every version of every key, and the events of every revision."""

    def __init__(self) -> None:
        self.revision = 1
        self.compacted = 0
        self.commits = 0
        self._versions: dict[str, list[tuple[int, Entry | None]]] = {}
        self._log: list[tuple[int, tuple[WatchEvent, ...]]] = []
        self._done: dict[str, TransactionResult] = {}
        self._leases: dict[str, Lease] = {}
        self._news = asyncio.Event()

    def _at(self, key: str, revision: int) -> Entry | None:
        versions = self._versions.get(key, [])
        at = bisect_right(versions, revision, key=lambda version: version[0])
        return versions[at - 1][1] if at else None

    def _keys(self, start: str, end: str) -> list[str]:
        if not end:
            return [start] if start in self._versions else []
        return sorted(k for k in self._versions if k >= start and (end == "\0" or k < end))

    async def range(self, request: RangeRequest) -> RangeResult:
        if request.revision and request.revision < self.compacted:
            raise Gone(f"revision {request.revision} is compacted")
        if request.revision > self.revision:
            raise InvalidArgument(f"revision {request.revision} is in the future")
        revision = request.revision or self.revision
        found = [self._at(key, revision) for key in self._keys(request.start, request.end)]
        entries = [entry for entry in found if entry is not None]
        cut = entries[: request.limit] if request.limit else entries
        more = len(cut) < len(entries)
        shown = () if request.count_only else tuple(cut)
        return RangeResult(entries=shown, revision=self.revision, count=len(entries), more=more)

    async def commit(self, transaction: Transaction) -> TransactionResult:
        if transaction.id in self._done:
            return self._done[transaction.id]
        holds = all(
            (entry.revision if (entry := self._at(c.key, self.revision)) else 0) == c.revision
            for c in transaction.compare
        )
        operations = transaction.success if holds else transaction.failure
        writes = [op.key for op in operations if op.kind is not OperationKind.RANGE]
        if len(set(writes)) < len(writes):
            raise InvalidArgument("a transaction writes a key twice")
        events: list[WatchEvent] = []
        results = tuple(self._operate(operation, events) for operation in operations)
        if events:
            self.commits += 1
            self.revision += 1
            self._log.append((self.revision, tuple(events)))
            self._news.set()
            self._news = asyncio.Event()
        result = TransactionResult(succeeded=holds, revision=self.revision, results=results)
        self._done[transaction.id] = result
        return result

    def _operate(self, operation: object, events: list[WatchEvent]) -> OperationResult:
        op = operation
        revision = self.revision + 1
        match op.kind:
            case OperationKind.PUT:
                if op.lease and op.lease not in self._leases:
                    raise NotFound(f"lease {op.lease} is not")
                old = self._at(op.key, revision)
                entry = Entry(
                    key=op.key,
                    value=op.value,
                    create_revision=old.create_revision if old else revision,
                    revision=revision,
                    version=old.version + 1 if old else 1,
                    lease=op.lease,
                )
                self._versions.setdefault(op.key, []).append((revision, entry))
                events.append(WatchEvent(entry=entry, previous=old))
                return OperationResult(count=1)
            case OperationKind.DELETE:
                gone = [e for k in self._keys(op.key, op.end) if (e := self._at(k, revision))]
                for old in gone:
                    self._versions[old.key].append((revision, None))
                    dead = Entry(key=old.key, create_revision=0, revision=revision, version=0)
                    events.append(WatchEvent(entry=dead, deleted=True, previous=old))
                return OperationResult(entries=tuple(gone), count=len(gone))
        found = [e for k in self._keys(op.key, op.end) if (e := self._at(k, revision))]
        return OperationResult(entries=tuple(found), count=len(found))

    async def watch(self, request: WatchRequest) -> AsyncIterator[WatchBatch]:
        revision = request.revision or self.revision
        if revision < self.compacted:
            raise Gone(f"revision {revision} is compacted")
        at = bisect_right(self._log, revision, key=lambda batch: batch[0])
        yield WatchBatch(revision=revision)
        while True:
            while at < len(self._log):
                number, events = self._log[at]
                at += 1
                if chosen := tuple(e for e in events if _inside(e.entry.key, request)):
                    yield WatchBatch(revision=number, events=chosen)
            news = self._news
            try:
                # Not wait_for: in Python 3.11 it swallows a cancellation that meets the news.
                async with asyncio.timeout(request.progress_seconds or None):
                    await news.wait()
            except TimeoutError:
                yield WatchBatch(revision=self.revision)

    async def grant(self, lease: Lease) -> Lease:
        self._leases[lease.id] = lease
        return lease

    async def renew(self, lease: LeaseRef) -> Lease:
        if lease.id not in self._leases:
            raise NotFound(f"lease {lease.id} is not")
        return self._leases[lease.id]

    async def revoke(self, lease: LeaseRef) -> None:
        if self._leases.pop(lease.id, None):
            entries = [self._at(key, self.revision) for key in list(self._versions)]
            from sagong.contracts.state import Operation

            doomed = [e.key for e in entries if e is not None and e.lease == lease.id]
            operations = tuple(Operation(kind=OperationKind.DELETE, key=k) for k in doomed)
            await self.commit(Transaction(id=f"revoke-{lease.id}", success=operations))

    async def leases(self) -> LeaseList:
        return LeaseList(leases=tuple(self._leases.values()))

    async def compact(self, request: CompactRequest) -> StateStatus:
        self.compacted = max(self.compacted, request.revision)
        return await self.status()

    async def snapshot(self) -> AsyncIterator[Chunk]:
        yield Chunk(data=b"")

    async def status(self) -> StateStatus:
        return StateStatus(
            revision=self.revision, compacted=self.compacted, size=0, keys=len(self._versions)
        )


def _inside(key: str, request: WatchRequest) -> bool:
    if not request.end:
        return key == request.start
    return key >= request.start and (request.end == "\0" or key < request.end)
