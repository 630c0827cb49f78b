"""Moves the write-ahead log into the database file, mostly beside the writer.

log grows past a bound ─▶ background: copy and sync what is there now, writes go on
                       ─▶ writer, between two batches: the little that came since; the log
                          can then begin anew, which it never would under steady writing
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from sagong_state_sqlite.database import connect

__all__ = ["LOG_BYTES", "Checkpoint", "LogIndex"]

LOG_BYTES = 16 << 20
_INDEX = struct.Struct("=14xHI")
_FRAME_HEAD = 24


class Checkpoint:
    """Used by the writer's thread alone."""

    def __init__(self, database: sqlite3.Connection, path: Path) -> None:
        self._database = database
        self._path = path
        self._index = LogIndex(path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state-checkpoint")
        self._running: Future[None] | None = None

    def wrote(self) -> None:
        """Something went to the log; call it after callers have their answers."""
        if self._running is not None:
            if self._running.done():
                self._running = None
                _move(self._database)
        elif self._index.size() >= LOG_BYTES:
            self._running = self._thread.submit(self._beside)

    def close(self) -> None:
        """Wait for what runs."""
        self._thread.shutdown()
        self._index.close()

    def _beside(self) -> None:
        with contextlib.suppress(sqlite3.Error), contextlib.closing(connect(self._path)) as own:
            _move(own)


class LogIndex:
    """The log's index, to be read after each commit.

    It stays open: a process that closes such a file loses its locks on it, SQLite's own, too
    (https://sqlite.org/howtocorrupt.html, 2.2).
    """

    def __init__(self, path: Path) -> None:
        self._path = f"{path}-shm"
        self._file = -1

    def size(self) -> int:
        """Bytes of the log that count (https://sqlite.org/walformat.html, 2.1).

        A small change takes whole pages: a dozen of them for a hundred bytes.
        """
        try:
            if self._file < 0:
                self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            page, frames = _INDEX.unpack(os.pread(self._file, _INDEX.size, 0))
        except (OSError, struct.error):
            return 0
        return int(frames) * (int(page) + _FRAME_HEAD)

    def close(self) -> None:
        """Once nobody has the database open any more."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _move(database: sqlite3.Connection) -> None:
    # A full or failing disk shows in the next commit, which has somebody to tell.
    with contextlib.suppress(sqlite3.Error):
        database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
