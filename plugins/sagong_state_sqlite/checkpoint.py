"""Moves the write-ahead log into the database file, mostly beside the writer.

log grows past a bound ─▶ background: copy and sync what is there now, writes go on
                       ─▶ writer, between two batches: the little that came since; the log
                          can then begin anew, which it never would under steady writing
"""

from __future__ import annotations

import contextlib
import sqlite3
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from sagong_state_sqlite.database import connect

__all__ = ["Checkpoint"]

LOG_BYTES = 16 << 20


class Checkpoint:
    """Used by the writer's thread alone."""

    def __init__(self, database: sqlite3.Connection, path: Path) -> None:
        self._database = database
        self._path = path
        self._written = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state-checkpoint")
        self._running: Future[None] | None = None

    def wrote(self, size: int) -> None:
        """About `size` bytes went to the log; call it after callers have their answers."""
        self._written += size
        if self._running is not None:
            if self._running.done():
                self._running = None
                _move(self._database)
        elif self._written >= LOG_BYTES:
            self._written = 0
            self._running = self._thread.submit(self._beside)

    def close(self) -> None:
        """Wait for what runs."""
        self._thread.shutdown()

    def _beside(self) -> None:
        with contextlib.suppress(sqlite3.Error), contextlib.closing(connect(self._path)) as own:
            _move(own)


def _move(database: sqlite3.Connection) -> None:
    # A full or failing disk shows in the next commit, which has somebody to tell.
    with contextlib.suppress(sqlite3.Error):
        database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
