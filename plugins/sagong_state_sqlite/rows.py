"""Many rows in one step of SQLite, and rows as entries.

Each step of a statement gives up the interpreter's lock once, and a busy event loop is slow to hand
it back: so the writer's thread makes few large steps instead of many small ones.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, TypeVar

from sagong.contracts.state import Entry
from sagong_state_sqlite.database import revision_of

__all__ = ["COLUMNS", "BulkInsert", "BulkSelect", "entry_of"]

T = TypeVar("T")
Row = Sequence[Any]

# Rows of one step: what is inserted takes the largest first,
SIZES = (64, 32, 16, 8, 4, 2, 1)
# and what is looked for the least that holds all of it.
FILLED = (1, 4, 16, 64)
# The form of a row that `entry_of` reads; `value` is NULL for a deletion.
COLUMNS = "h.key, h.id, h.create_revision, h.version, h.lease, h.value"


def entry_of(row: Row) -> Entry:
    """The entry that a row of `COLUMNS` holds."""
    return Entry(
        key=row[0],
        value=row[5] or b"",
        create_revision=row[2],
        revision=revision_of(row[1]),
        version=row[3],
        lease=row[4],
    )


def _portions(items: Sequence[T]) -> Iterator[Sequence[T]]:
    position = 0
    for size in SIZES:
        while len(items) - position >= size:
            yield items[position : position + size]
            position += size


class BulkInsert:
    """`INSERT … VALUES …` for any number of rows of `width` columns."""

    def __init__(self, *, head: str, width: int, tail: str = "") -> None:
        row = "(" + ", ".join("?" * width) + ")"
        self._statements = {n: f"{head} VALUES {', '.join([row] * n)} {tail}" for n in SIZES}

    def run(self, database: sqlite3.Connection, rows: Sequence[Row]) -> None:
        """Insert the rows in order."""
        for portion in _portions(rows):
            database.execute(self._statements[len(portion)], [*chain.from_iterable(portion)])


class BulkSelect:
    """`SELECT … IN (…)`, or `DELETE … IN (…)`, for any number of values.

    The last one may stand there more than once.
    """

    def __init__(self, head: str) -> None:
        self._statements = {n: f"{head} IN ({', '.join('?' * n)})" for n in FILLED}

    def run(self, database: sqlite3.Connection, values: Sequence[Any]) -> Iterator[Row]:
        """The rows found, portion by portion."""
        for start in range(0, len(values), FILLED[-1]):
            portion = [*values[start : start + FILLED[-1]]]
            size = next(n for n in FILLED if n >= len(portion))
            portion += portion[-1:] * (size - len(portion))
            yield from database.execute(self._statements[size], portion).fetchall()
