"""An open store: writer, readers, journal and leases around one database file."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path

from sagong.call import detached
from sagong.contracts.state import (
    Chunk,
    CompactRequest,
    Lease,
    RangeRequest,
    RangeResult,
    StateStatus,
    Transaction,
    TransactionResult,
    WatchBatch,
    WatchRequest,
)
from sagong.errors import InvalidArgument, NotFound, Unavailable
from sagong_state_sqlite.batch import Counters
from sagong_state_sqlite.database import adopt_restored, open_database
from sagong_state_sqlite.housekeeping import Housekeeping, insist
from sagong_state_sqlite.journal import Journal, Watcher
from sagong_state_sqlite.keys import check_key, check_range, check_transaction, weight
from sagong_state_sqlite.reader import Reader, compacted_away, is_lost
from sagong_state_sqlite.settings import Settings
from sagong_state_sqlite.snapshot import remove_leftovers, stream_snapshot
from sagong_state_sqlite.tenure import Tenure
from sagong_state_sqlite.writer import Commit, Writer

__all__ = ["Store"]

SWEEP_CHANGES = 500
FORGET_ANSWERS = 500


class Store:
    """All that `State` promises, on a file that this process holds alone."""

    def __init__(
        self,
        database: sqlite3.Connection,
        path: Path,
        settings: Settings,
        *,
        spawn: Callable[..., asyncio.Task[None]],
    ) -> None:
        self._path = path
        self._spawn = spawn
        self._closed = False
        self._compacting = asyncio.Lock()
        leases = [
            Lease(id=row[0], seconds=row[1], volatile=bool(row[2]))
            for row in database.execute("SELECT id, seconds, volatile FROM leases")
        ]
        (answers,) = database.execute(
            "SELECT count(*) FROM (SELECT 1 FROM outcomes LIMIT 1)"
        ).fetchone()
        self._reader = Reader(path)
        self._writer = Writer(
            database,
            path,
            published=self._publish,
            waiting_bytes=settings.waiting_bytes,
            history_seconds=settings.history_seconds,
        )
        self._counters: Counters = self._writer.counters
        self._journal = Journal(self._counters.revision, budget=settings.recent_bytes)
        self._tenure = Tenure(leases, ended=self._expire)
        self._housekeeping = Housekeeping(
            settings, compact=self._compact_to, forget=self._forget, spawn=spawn
        )
        self._housekeeping.begin(
            Commit(self._counters, remembered=bool(answers), due=self._writer.due)
        )

    @staticmethod
    def prepare(path: Path) -> tuple[sqlite3.Connection, bool]:
        """Open the file, a restored one first; blocking. Tells whether one was restored."""
        remove_leftovers(path)
        restored = adopt_restored(path)
        return open_database(path), restored

    async def close(self) -> None:
        """End watches, finish waiting writes, close the file."""
        self._closed = True
        self._housekeeping.stop()
        self._tenure.stop()
        self._journal.wake_all()
        await self._writer.close()
        await self._reader.close()

    def _publish(self, commit: Commit) -> None:
        self._counters = commit.counters
        self._journal.publish(commit.changes)
        if not self._closed:
            self._housekeeping.look(commit)

    # Keys

    async def range(self, request: RangeRequest) -> RangeResult:
        """See the contract."""
        check_range(request.start, request.end)
        if request.limit < 0 or request.revision < 0:
            raise InvalidArgument(
                f"limit {request.limit}, revision {request.revision}: give 0 or more"
            )
        return await self._reader.range(request)

    async def commit(self, transaction: Transaction) -> TransactionResult:
        """See the contract."""
        check_transaction(transaction)
        return await self._writer.do(
            lambda batch: batch.commit(transaction),
            weight=weight(transaction),
            transaction=transaction,
        )

    # Watches

    async def watch(self, request: WatchRequest) -> AsyncGenerator[WatchBatch, None]:
        """See the contract."""
        watcher = self._begin_watch(request)
        yield WatchBatch(revision=watcher.position)
        while True:
            yield await self._next_batch(watcher, request.progress_seconds)

    def _begin_watch(self, request: WatchRequest) -> Watcher:
        check_range(request.start, request.end)
        now = self._counters.revision
        if not 0 <= request.revision <= now:
            raise InvalidArgument(
                f"cannot watch from revision {request.revision}: the store is at {now}; read anew"
            )
        if not 0 <= request.progress_seconds < float("inf"):
            raise InvalidArgument(f"progress_seconds {request.progress_seconds}: give 0 or more")
        watcher = Watcher(request, position=request.revision or now)
        self._check_kept(watcher)
        return watcher

    def _check_kept(self, watcher: Watcher) -> None:
        if self._closed:
            raise Unavailable(f"the store {self._path} is closed: resume the watch")
        caught_up = watcher.position >= self._counters.revision
        compacted = self._counters.compacted
        if not caught_up and is_lost(watcher.position, compacted, previous=watcher.previous):
            raise compacted_away(watcher.position, compacted)

    async def _next_batch(self, watcher: Watcher, progress: float) -> WatchBatch:
        while True:
            self._check_kept(watcher)
            if not self._journal.holds(watcher.position):
                batch = await self._read_history(watcher)
            elif watcher.position < self._journal.last:
                batch = self._journal.take(watcher)
                await asyncio.sleep(0)
            elif await self._journal.wait_change(watcher, progress):
                continue
            else:
                self._check_kept(watcher)
                batch = WatchBatch(revision=watcher.position)
            if batch is not None:
                return batch

    async def _read_history(self, watcher: Watcher) -> WatchBatch | None:
        watcher.position, events = await self._reader.history(
            watcher.start,
            watcher.end,
            after=watcher.position,
            until=self._journal.last,
            previous=watcher.previous,
        )
        return WatchBatch(revision=watcher.position, events=events) if events else None

    # Leases

    async def grant(self, lease: Lease) -> Lease:
        """See the contract."""
        check_key(lease.id)
        if not 0 < lease.seconds < float("inf"):
            raise InvalidArgument(f"lease {lease.id}: {lease.seconds} seconds; give more than 0")
        if self._tenure.find(lease.id) != lease:
            await self._writer.do(lambda batch: batch.grant(lease))
        self._tenure.begin(lease)
        return lease

    async def renew(self, name: str) -> Lease:
        """See the contract."""
        lease = self._tenure.find(name)
        if lease is None:
            raise NotFound(f"lease {name} has ended or never was: grant it anew")
        self._tenure.begin(lease)
        return lease

    async def revoke(self, name: str) -> None:
        """See the contract."""
        await self._writer.do(lambda batch: batch.revoke(name))
        self._tenure.end(name)

    def leases(self) -> tuple[Lease, ...]:
        """Those that live."""
        return self._tenure.living()

    def remaining(self) -> dict[str, float]:
        """Seconds that each lease has left."""
        return self._tenure.remaining()

    def due_in(self) -> float:
        """Seconds until a lease ends or something is to be tidied; infinite if nothing is."""
        return min(self._tenure.next_end(), self._housekeeping.next_ring())

    def resume(self, remaining: Mapping[str, float]) -> None:
        """Go on with remaining times that another process measured."""
        self._tenure.resume(remaining)

    def _expire(self, lease: Lease) -> None:
        with detached():
            self._spawn(self._end_lease(lease), f"lease {lease.id} ends")

    async def _end_lease(self, lease: Lease) -> None:
        # While the disk refused, somebody may have granted it again.
        await insist(
            lambda: self.revoke(lease.id),
            needless=lambda: self._closed or self._tenure.find(lease.id) is not None,
        )

    # Compaction, snapshot, status

    async def compact(self, request: CompactRequest) -> StateStatus:
        """See the contract."""
        if request.revision < 0:
            raise InvalidArgument(f"cannot compact to revision {request.revision}: give 0 or more")
        await self._compact_to(request.revision)
        return await self.status()

    async def _compact_to(self, revision: int) -> None:
        async with self._compacting:
            await self._writer.do(lambda batch: batch.compact(revision))
            while await self._writer.do(lambda batch: batch.sweep(SWEEP_CHANGES)):
                pass

    async def _forget(self, seconds: float) -> bool:
        before = time.time() - seconds
        last = await self._forget_some(before, "")
        while last:
            last = await self._forget_some(before, last)
        return await self._writer.do(lambda batch: batch.has_outcomes())

    async def _forget_some(self, before: float, after: str) -> str:
        return await self._writer.do(
            lambda batch: batch.forget_outcomes(before=before, after=after, limit=FORGET_ANSWERS)
        )

    def snapshot(self) -> AsyncGenerator[Chunk, None]:
        """See the contract."""
        return stream_snapshot(self._path)

    async def status(self) -> StateStatus:
        """See the contract."""
        size = 0
        for suffix in ("", "-wal"):
            try:
                size += Path(f"{self._path}{suffix}").stat().st_size
            except FileNotFoundError:
                continue
        now = self._counters
        return StateStatus(revision=now.revision, compacted=now.compacted, size=size, keys=now.keys)
