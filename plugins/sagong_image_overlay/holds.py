"""Who holds which blob of the content store: roots of garbage collection that survive restarts.

A SQLite file, made when the first hold is: a registry has tens of thousands of holds, and each is
kept on its own (ADR 55).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sagong.errors import FailedPrecondition, ResourceExhausted
from sagong_image_overlay.streams import in_thread

__all__ = ["Holds"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS holds (
    caller TEXT NOT NULL, owner TEXT NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (caller, owner, digest)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS holds_digest ON holds (digest);
"""
_KNOWN = "SELECT 1 FROM holds WHERE caller = ? AND owner = ? AND digest = ?"


class Holds:
    """Holds by the calling plugin, its word for the owner, and the digest."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reading: sqlite3.Connection | None = None
        self._writing: sqlite3.Connection | None = None
        self._lock = asyncio.Lock()

    def load(self) -> None:
        """Open the file, if there is one."""
        if self._path.exists():
            self._open()

    def close(self) -> None:
        """Close the file."""
        for connection in (self._reading, self._writing):
            if connection is not None:
                connection.close()
        self._reading = self._writing = None

    def _open(self) -> sqlite3.Connection:
        """The connection that writes; the other one reads beside it, in the loop's thread."""
        if self._writing is None:
            with self._translated():
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
                self._writing = _connect(self._path)
                self._writing.executescript(_SCHEMA)
                self._reading = _connect(self._path)
        return self._writing

    async def add(self, caller: str, owner: str, digest: str) -> None:
        """Hold; durable when it returns."""
        if not self._knows(caller, owner, digest):
            await self._change(
                "INSERT OR IGNORE INTO holds VALUES (?, ?, ?)", caller, owner, digest
            )

    async def drop(self, caller: str, owner: str, digest: str) -> None:
        """Hold no longer."""
        if self._knows(caller, owner, digest):
            condition = "caller = ? AND owner = ? AND digest = ?"
            await self._change(f"DELETE FROM holds WHERE {condition}", caller, owner, digest)

    async def _change(self, statement: str, *values: str) -> None:
        def work() -> None:
            with self._translated():
                self._open().execute(statement, values)

        async with self._lock:
            self._open()
            # A cancelled caller waits: two threads must not use the connection at once.
            await in_thread(work)

    def _knows(self, *values: str) -> bool:
        return self._reading is not None and self._one(_KNOWN, *values)

    def is_held(self, digest: str) -> bool:
        """Whether anybody holds the blob."""
        found = "SELECT 1 FROM holds WHERE digest = ?"
        return self._reading is not None and self._one(found, digest)

    def held(self) -> set[str]:
        """All blobs that are held, for a thread that has time to read them."""
        if self._reading is None:
            return set()
        with self._translated(), contextlib.closing(_connect(self._path)) as connection:
            return {row[0] for row in connection.execute("SELECT DISTINCT digest FROM holds")}

    def _one(self, statement: str, *values: str) -> bool:
        assert self._reading is not None
        with self._translated():
            return self._reading.execute(statement, values).fetchone() is not None

    def page(
        self, caller: str, owner: str, after: tuple[str, str], limit: int
    ) -> list[tuple[str, str]]:
        """Owner and digest of a caller's holds, in order, behind `after`."""
        if self._reading is None:
            return []
        narrowed = " AND owner = ?" if owner else ""
        statement = (
            f"SELECT owner, digest FROM holds WHERE caller = ?{narrowed} "
            "AND (owner, digest) > (?, ?) ORDER BY owner, digest LIMIT ?"
        )
        values = (caller, *((owner,) if owner else ()), *after, limit)
        with self._translated():
            return self._reading.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if "full" in str(error):
                raise ResourceExhausted(f"{self._path}: no space left on device") from None
            raise FailedPrecondition(
                f"{self._path} can't be used ({error}); restore it or move it away"
            ) from None


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "temp_store = MEMORY"):
        connection.execute(f"PRAGMA {pragma}")
    return connection
