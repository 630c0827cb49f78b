"""Reading beside the writer: points and small ranges at once, large ones in threads.

In WAL mode a reader sees the last committed state and waits for nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sagong.contracts.state import (
    Entry,
    RangeRequest,
    RangeResult,
    WatchEvent,
)
from sagong.errors import Gone, InvalidArgument
from sagong_state_sqlite.database import connect, first_id, revision_of, translated
from sagong_state_sqlite.keys import bounds
from sagong_state_sqlite.rows import COLUMNS, entry_of

__all__ = ["HistoryPage", "Reader", "compacted_away", "is_lost"]

T = TypeVar("T")
Row = Sequence[Any]
HistoryPage = tuple[int, tuple[WatchEvent, ...]]

THREADS = 2
# A range of at most so many keys is read in the loop: that takes less than a thread's round trip.
SMALL = 16
# Changes and bytes of history that a watch reads at a time.
PAGE_CHANGES = 1000
PAGE_BYTES = 1 << 20

POINT = (
    "SELECT s.revision, e.key, e.id, h.create_revision, h.version, h.lease, {value} FROM store s "
    "LEFT JOIN entries e ON e.key = ? AND NOT e.deleted LEFT JOIN history h ON h.id = e.id"
)
KEYS_COLUMNS = COLUMNS.replace("h.value", "x''")
POINTS = {False: POINT.format(value="h.value"), True: POINT.format(value="x''")}
WITHIN = "e.key >= :lower AND e.key < :upper"
PROBE = f"SELECT count(*) FROM (SELECT 1 FROM entries e WHERE {WITHIN} LIMIT {SMALL + 1})"
COUNT = f"SELECT count(*) FROM entries e WHERE {WITHIN} AND NOT e.deleted"
LIST = (
    f"FROM entries e JOIN history h ON h.id = e.id WHERE {WITHIN} AND NOT e.deleted "
    "ORDER BY e.key LIMIT :limit"
)
# Each key's changes from the last one back to the first that the asked revision includes.
CHAIN = (
    "WITH RECURSIVE chain (key, id) AS ("
    f"SELECT e.key, e.id FROM entries e WHERE {WITHIN} "
    "UNION ALL SELECT c.key, h.previous FROM chain c JOIN history h ON h.id = c.id "
    "WHERE c.id >= :after AND h.previous > 0) "
)
FROM_CHAIN = (
    "FROM chain c JOIN history h ON h.id = c.id WHERE c.id < :after AND h.value IS NOT NULL"
)
SELECTS = {
    False: (f"SELECT {COLUMNS} {LIST}", f"SELECT {KEYS_COLUMNS} {LIST}", COUNT),
    True: (
        f"{CHAIN} SELECT {COLUMNS} {FROM_CHAIN} ORDER BY c.key LIMIT :limit",
        f"{CHAIN} SELECT {KEYS_COLUMNS} {FROM_CHAIN} ORDER BY c.key LIMIT :limit",
        f"{CHAIN} SELECT count(*) {FROM_CHAIN}",
    ),
}
CHANGES = (
    f"SELECT {COLUMNS}, p.key, p.id, p.create_revision, p.version, p.lease, p.value "
    "FROM history h LEFT JOIN history p ON :previous AND p.id = h.previous "
    "WHERE h.id >= :from AND h.id < :to AND h.key >= :lower AND h.key < :upper ORDER BY h.id"
)


def compacted_away(revision: int, compacted: int) -> Gone:
    """The error for a revision that cannot be read any more."""
    return Gone(
        f"revision {revision} is compacted, the oldest one kept is {compacted}: read the keys anew"
    )


class Reader:
    """Connections that only read: one for the loop, others for threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._direct = connect(path)
        self._idle: list[sqlite3.Connection] = []
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="state-reader")

    async def range(self, request: RangeRequest) -> RangeResult:
        """The range as asked; the caller has checked the keys."""
        try:
            if request.end == "" and request.revision == 0:
                return self._point(request)
            if self._is_small(request):
                return _read_range(self._direct, request)
        except sqlite3.Error as error:
            raise translated(error, self._path) from None
        return await self._threaded(lambda database: _read_range(database, request))

    def _point(self, request: RangeRequest) -> RangeResult:
        short = request.keys_only or request.count_only
        row = self._direct.execute(POINTS[short], (request.start,)).fetchone()
        if row[1] is None:
            return RangeResult(revision=row[0])
        entries = () if request.count_only else (entry_of(row[1:]),)
        return RangeResult(entries=entries, revision=row[0], count=1)

    def _is_small(self, request: RangeRequest) -> bool:
        if request.revision:
            return False
        (found,) = self._direct.execute(PROBE, _within(request)).fetchone()
        return bool(found <= SMALL)

    async def history(
        self, start: str, end: str, *, after: int, until: int, previous: bool
    ) -> HistoryPage:
        """Changes of a range after a revision: whole revisions, and up to which they are all."""
        lower, upper = bounds(start, end)
        asked: dict[str, object] = {"lower": lower, "upper": upper, "previous": previous}
        asked |= {"from": first_id(after + 1), "to": first_id(until + 1)}
        return await self._threaded(lambda d: _read_changes(d, asked, after, until))

    async def _threaded(self, read: Callable[[sqlite3.Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._borrow, read)

    def _borrow(self, read: Callable[[sqlite3.Connection], T]) -> T:
        try:
            database = self._idle.pop() if self._idle else connect(self._path)
            try:
                return read(database)
            finally:
                self._idle.append(database)
        except sqlite3.Error as error:
            raise translated(error, self._path) from None

    async def close(self) -> None:
        """Wait for reads under way and close the connections."""
        await asyncio.to_thread(self._threads.shutdown)
        for database in (self._direct, *self._idle):
            database.close()
        self._idle.clear()


@contextlib.contextmanager
def _one_state(database: sqlite3.Connection) -> Iterator[tuple[int, int]]:
    """A read transaction; gives the revision and the oldest readable one."""
    database.execute("BEGIN")
    try:
        yield database.execute("SELECT revision, compacted FROM store").fetchone()
    finally:
        database.execute("COMMIT")


def _within(request: RangeRequest) -> dict[str, object]:
    lower, upper = bounds(request.start, request.end)
    return {
        "lower": lower,
        "upper": upper,
        "after": first_id(request.revision + 1),
        "limit": request.limit or -1,
    }


def _read_range(database: sqlite3.Connection, request: RangeRequest) -> RangeResult:
    with _one_state(database) as (now, compacted):
        if request.revision > now:
            raise InvalidArgument(f"revision {request.revision} is not yet: the store is at {now}")
        if request.revision and request.revision < compacted:
            raise compacted_away(request.revision, compacted)
        old = 0 < request.revision < now
        whole, keys, count = SELECTS[old]
        if not old and request.end == "":
            return _read_point(database, request, now)
        values = _within(request)
        if request.count_only:
            (matching,) = database.execute(count, values).fetchone()
            return RangeResult(revision=now, count=matching)
        rows = database.execute(keys if request.keys_only else whole, values).fetchall()
        matching = len(rows)
        if request.limit and matching == request.limit:
            (matching,) = database.execute(count, values).fetchone()
    entries: tuple[Entry, ...] = tuple(map(entry_of, rows))
    return RangeResult(entries=entries, revision=now, count=matching, more=len(entries) < matching)


def _read_point(database: sqlite3.Connection, request: RangeRequest, revision: int) -> RangeResult:
    short = request.keys_only or request.count_only
    row = database.execute(POINTS[short], (request.start,)).fetchone()
    if row[1] is None:
        return RangeResult(revision=revision)
    entries = () if request.count_only else (entry_of(row[1:]),)
    return RangeResult(entries=entries, revision=revision, count=1)


def _read_changes(
    database: sqlite3.Connection, asked: dict[str, object], after: int, until: int
) -> HistoryPage:
    events: list[WatchEvent] = []
    size = 0
    with _one_state(database) as (_, compacted):
        if is_lost(after, compacted, previous=bool(asked["previous"])):
            raise compacted_away(after, compacted)
        for row in database.execute(CHANGES, asked):
            revision = revision_of(row[1])
            full = len(events) >= PAGE_CHANGES or size >= PAGE_BYTES
            if full and revision != events[-1].entry.revision:
                return events[-1].entry.revision, tuple(events)
            events.append(_event_of(row))
            size += len(row[5] or b"") + len(row[11] or b"")
    return until, tuple(events)


def is_lost(position: int, compacted: int, *, previous: bool) -> bool:
    """Whether changes after `position`, or what they replaced, are compacted away."""
    return position < (compacted if previous else compacted - 1)


def _event_of(row: Row) -> WatchEvent:
    before = None if row[6] is None or row[11] is None else entry_of(row[6:])
    return WatchEvent(entry=entry_of(row), deleted=row[5] is None, previous=before)
