"""Transactions carried out inside one SQLite transaction: what they read, decide and write.

An action refuses before it writes: whatever can be refused is looked at first, so one refused
transaction leaves nothing behind for the others of its batch, and no savepoints are needed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from sagong.contracts.state import (
    Entry,
    Lease,
    Operation,
    OperationKind,
    OperationResult,
    Transaction,
    TransactionResult,
    WatchEvent,
)
from sagong.errors import Conflict, InvalidArgument, NotFound
from sagong_state_sqlite.database import PLACE_BITS, first_id
from sagong_state_sqlite.keys import bounds, point_keys
from sagong_state_sqlite.rows import COLUMNS, BulkInsert, BulkSelect, entry_of

__all__ = ["Batch", "Counters", "Due", "read_counters", "read_due"]

HEADS = BulkSelect(
    f"SELECT {COLUMNS} FROM entries e JOIN history h ON h.id = e.id WHERE e.key",
)
INTERVAL = (
    f"SELECT {COLUMNS} FROM entries e JOIN history h ON h.id = e.id "
    "WHERE e.key >= ? AND e.key < ? AND NOT e.deleted ORDER BY e.key"
)
OUTCOMES = BulkSelect("SELECT id, result FROM outcomes WHERE id")
OUTCOMES_OLD = BulkSelect("DELETE FROM outcomes WHERE id")
PUT_HISTORY = BulkInsert(head="INSERT INTO history", width=7)
PUT_ENTRIES = BulkInsert(head="INSERT OR REPLACE INTO entries", width=4)
PUT_OUTCOMES = BulkInsert(head="INSERT INTO outcomes", width=3)
DROP_HISTORY = BulkSelect("DELETE FROM history WHERE id")
READ_COUNTERS = "SELECT revision, compacted, swept, keys FROM store"
WRITE_COUNTERS = "UPDATE store SET revision = ?, compacted = ?, swept = ?, keys = ?"

ENCODER = msgspec.msgpack.Encoder()
RESULTS = msgspec.msgpack.Decoder(TransactionResult)
WRITES = (OperationKind.PUT, OperationKind.DELETE)


class Head(NamedTuple):
    """A key's last change: its id (0: none is kept) and the entry, None if it was deleted."""

    id: int
    entry: Entry | None


@dataclass(frozen=True, slots=True)
class Counters:
    """The store's row: see `database`. `swept` is the id that compaction goes on at."""

    revision: int
    compacted: int
    swept: int
    keys: int


def read_counters(database: sqlite3.Connection) -> Counters:
    """The store's row as it is in the file."""
    return Counters(*database.execute(READ_COUNTERS).fetchone())


@dataclass(frozen=True, slots=True)
class Due:
    """`revision` was the newest at `time` (Unix): what is compacted when that is long ago."""

    revision: int = 0
    time: float = 0.0


def read_due(database: sqlite3.Connection) -> Due:
    """What is due as the file has it."""
    return Due(*(database.execute("SELECT revision, time FROM due").fetchone() or ()))


class Batch:
    """One SQLite transaction's work; `counters` and `changes` count once it is committed."""

    def __init__(self, database: sqlite3.Connection, counters: Counters, *, now: float) -> None:
        self._revision, self._compacted = counters.revision, counters.compacted
        self._swept, self._keys = counters.swept, counters.keys
        self.changes: list[tuple[int, tuple[WatchEvent, ...]]] = []
        self.remembered = False
        self._before = counters
        self._database = database
        self._now = now
        self._heads: dict[str, Head] = {}
        self._outcomes: dict[str, TransactionResult | None] = {}
        self._history_rows: list[tuple[object, ...]] = []
        self._entry_rows: dict[str, tuple[object, ...]] = {}
        self._outcome_rows: list[tuple[object, ...]] = []

    @property
    def counters(self) -> Counters:
        """As they are after what was done."""
        return Counters(self._revision, self._compacted, self._swept, self._keys)

    # Reading

    def prefetch(self, transactions: Sequence[Transaction]) -> None:
        """Read at once what the transactions of the batch will ask for."""
        keys = [*{key for t in transactions for key in point_keys(t)}]
        self._heads.update(dict.fromkeys(keys, Head(0, None)))
        for row in HEADS.run(self._database, keys):
            self._heads[row[0]] = _head(row)
        ids = [*{t.id for t in transactions}]
        self._outcomes.update(dict.fromkeys(ids))
        for name, result in OUTCOMES.run(self._database, ids):
            self._outcomes[name] = RESULTS.decode(result)

    def _head(self, key: str) -> Head:
        found = self._heads.get(key)
        if found is None:
            row = next(iter(HEADS.run(self._database, [key])), None)
            found = self._heads[key] = Head(0, None) if row is None else _head(row)
        return found

    def _select(self, start: str, end: str) -> list[Entry]:
        if end == "":
            entry = self._head(start).entry
            return [] if entry is None else [entry]
        self._flush()
        rows = self._database.execute(INTERVAL, bounds(start, end)).fetchall()
        for row in rows:
            self._heads[row[0]] = _head(row)
        return [entry_of(row) for row in rows]

    # Transactions

    def commit(self, transaction: Transaction) -> TransactionResult:
        """Carry out a transaction, or answer as the first time."""
        known = self._outcomes.get(transaction.id)
        if known is not None:
            return known
        succeeded = all(self._holds(c.key, c.revision) for c in transaction.compare)
        branch = transaction.success if succeeded else transaction.failure
        self._check_leases(o.lease for o in branch if o.lease != "")
        events: list[WatchEvent] = []
        results = tuple(self._operate(operation, events) for operation in branch)
        self._close_revision(events)
        result = TransactionResult(succeeded=succeeded, revision=self._revision, results=results)
        self._remember(transaction, result)
        return result

    def _holds(self, key: str, revision: int) -> bool:
        entry = self._head(key).entry
        return (0 if entry is None else entry.revision) == revision

    def _check_leases(self, leases: Iterable[str]) -> None:
        for lease in leases:
            if self.lease(lease) is None:
                raise NotFound(f"lease {lease} has ended or never was: grant it first")

    def _operate(self, operation: Operation, events: list[WatchEvent]) -> OperationResult:
        match operation.kind:
            case OperationKind.PUT:
                self._put(operation, events)
                return OperationResult(count=1)
            case OperationKind.DELETE:
                found = self._select(operation.key, operation.end)
                for entry in found:
                    self._delete(entry, events)
                if operation.quiet:
                    return OperationResult(count=len(found))
            case OperationKind.RANGE:
                found = self._select(operation.key, operation.end)
        return OperationResult(entries=tuple(found), count=len(found))

    def _put(self, operation: Operation, events: list[WatchEvent]) -> None:
        before = self._head(operation.key)
        old, revision = before.entry, self._revision + 1
        entry = Entry(
            key=operation.key,
            value=operation.value,
            create_revision=revision if old is None else old.create_revision,
            revision=revision,
            version=1 if old is None else old.version + 1,
            lease=operation.lease,
        )
        self._write(entry, value=entry.value, before=before, events=events)
        events.append(WatchEvent(entry=entry, previous=old))

    def _delete(self, old: Entry, events: list[WatchEvent]) -> None:
        revision = self._revision + 1
        gone = Entry(key=old.key, create_revision=0, revision=revision, version=0)
        self._write(gone, value=None, before=self._head(old.key), events=events)
        events.append(WatchEvent(entry=gone, deleted=True, previous=old))

    def _write(
        self, entry: Entry, *, value: bytes | None, before: Head, events: Sequence[WatchEvent]
    ) -> None:
        change, deleted = first_id(entry.revision) + len(events), value is None
        self._history_rows.append(
            (
                change,
                entry.key,
                entry.create_revision,
                entry.version,
                entry.lease,
                before.id,
                value,
            )
        )
        self._entry_rows[entry.key] = (entry.key, change, deleted, entry.lease)
        self._heads[entry.key] = Head(change, None if deleted else entry)
        if (before.entry is None) != deleted:
            self._keys += -1 if deleted else 1

    def _close_revision(self, events: list[WatchEvent]) -> None:
        if len(events) >> PLACE_BITS:
            # Not a SagongError: rows are written already, so the batch must be rolled back.
            raise OverflowError(f"a transaction changes {len(events)} keys: split it")
        if events:
            self._revision += 1
            self.changes.append((self._revision, tuple(events)))

    def _remember(self, transaction: Transaction, result: TransactionResult) -> None:
        operations = (*transaction.success, *transaction.failure)
        if not any(operation.kind in WRITES for operation in operations):
            return  # a question may be asked again: there is nothing to do twice
        self._outcomes[transaction.id] = result
        self._outcome_rows.append((transaction.id, self._now, ENCODER.encode(result)))
        self.remembered = True

    def forget_outcomes(self, *, before: float, after: str, limit: int) -> str:
        """Drop answers given before a time among the `limit` ids after `after`; the last looked at.

        "" means that there are no more.
        """
        self._flush()
        rows = self._database.execute(
            "SELECT id, time FROM outcomes WHERE id > ? ORDER BY id LIMIT ?", (after, limit)
        ).fetchall()
        old = [name for name, time in rows if time < before]
        for _ in OUTCOMES_OLD.run(self._database, old):
            pass
        return rows[-1][0] if len(rows) == limit else ""

    def has_outcomes(self) -> bool:
        """Whether any answer is kept."""
        self._flush()
        return self._database.execute("SELECT 1 FROM outcomes LIMIT 1").fetchone() is not None

    # Leases

    def lease(self, name: str) -> Lease | None:
        """A lease that lives."""
        row = self._database.execute(
            "SELECT id, seconds, volatile FROM leases WHERE id = ?", (name,)
        ).fetchone()
        return None if row is None else Lease(id=row[0], seconds=row[1], volatile=bool(row[2]))

    def grant(self, lease: Lease) -> Lease:
        """Make a lease durable."""
        known = self.lease(lease.id)
        if known is not None and known != lease:
            raise Conflict(f"lease {lease.id} lives with {known.seconds} s: take another id")
        if known is None:
            self._database.execute(
                "INSERT INTO leases VALUES (?, ?, ?)", (lease.id, lease.seconds, lease.volatile)
            )
        return lease

    def revoke(self, name: str) -> None:
        """End a lease and delete its keys, at one revision."""
        self._flush()
        keys = self._database.execute(
            "SELECT key FROM entries WHERE lease = ? AND lease <> '' AND NOT deleted ORDER BY key",
            (name,),
        ).fetchall()
        events: list[WatchEvent] = []
        for (key,) in keys:
            entry = self._head(key).entry
            if entry is not None:
                self._delete(entry, events)
        self._close_revision(events)
        self._database.execute("DELETE FROM leases WHERE id = ?", (name,))

    # Compaction

    def compact(self, revision: int) -> None:
        """From now on nothing before `revision` can be read; `sweep` makes the room."""
        if revision > self._revision:
            raise InvalidArgument(
                f"cannot compact to revision {revision}: the store is at {self._revision}"
            )
        if revision > self._compacted:
            self._compacted = revision

    def defer(self, due: Due) -> None:
        """Remember what will be due, for a successor of this process."""
        self._database.execute(
            "INSERT OR REPLACE INTO due VALUES (1, ?, ?)", (due.revision, due.time)
        )

    def sweep(self, limit: int) -> bool:
        """Drop what compaction has made unreadable, up to `limit` changes; True if more is left.

        A change up to the compacted revision makes the one before it unreadable; a deletion before
        that revision is unreadable itself.
        """
        self._flush()
        oldest = first_id(self._compacted)
        rows = self._database.execute(
            "SELECT id, previous, value IS NULL, key FROM history "
            "WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
            (self.counters.swept, first_id(self._compacted + 1), limit),
        ).fetchall()
        ended = [(row[3], row[0]) for row in rows if row[2] and row[0] < oldest]
        dropped = [row[1] for row in rows if row[1]] + [change for _, change in ended]
        for _ in DROP_HISTORY.run(self._database, dropped):
            pass
        self._database.executemany("DELETE FROM entries WHERE key = ? AND id = ?", ended)
        for key, _ in ended:
            self._heads.pop(key, None)
        more = len(rows) == limit
        swept = rows[-1][0] + 1 if more else oldest
        self._swept = swept
        return more

    # Writing

    def _flush(self) -> None:
        PUT_HISTORY.run(self._database, self._history_rows)
        PUT_ENTRIES.run(self._database, [*self._entry_rows.values()])
        PUT_OUTCOMES.run(self._database, self._outcome_rows)
        self._history_rows.clear()
        self._entry_rows.clear()
        self._outcome_rows.clear()

    def finish(self) -> None:
        """Hand everything to SQLite; what remains is its commit."""
        self._flush()
        now = self.counters
        if now != self._before:
            values = (now.revision, now.compacted, now.swept, now.keys)
            self._database.execute(WRITE_COUNTERS, values)


def _head(row: Sequence[object]) -> Head:
    return Head(row[1], None if row[5] is None else entry_of(row))  # type: ignore[arg-type]
