"""The SQLite file: its tables, how it is opened, and what its errors mean.

    store      one row: the revision, the oldest readable one, how far compaction has swept, keys
    history    every change, in order; `previous` is the change of the same key before it
    entries    each key's last change; deleted keys stay until compaction sweeps them
    leases     those that live; their remaining times are in memory only
    outcomes   answers to transactions of the last ten minutes

A change's `id` is its revision and its place in the transaction: `revision << 20 | place`.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from sagong.errors import (
    FailedPrecondition,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    SagongError,
    Unavailable,
)
from sagong.failures import FULL

__all__ = [
    "PLACE_BITS",
    "Hold",
    "adopt_restored",
    "connect",
    "first_id",
    "open_database",
    "revision_of",
    "translated",
]

PLACE_BITS = 20
APPLICATION_ID = 0x73616701
FORMAT = 1
# A restored store goes on far above any revision that a watcher may have seen before.
RESTORE_STEP = 1_000_000_000

# The revision that will be compacted next, and since when it was the newest.
DUE = """
CREATE TABLE IF NOT EXISTS due (
    only INTEGER PRIMARY KEY CHECK (only = 1), revision INTEGER NOT NULL, time REAL NOT NULL);
"""
SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE store (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    revision INTEGER NOT NULL, compacted INTEGER NOT NULL,
    swept INTEGER NOT NULL, keys INTEGER NOT NULL);
INSERT INTO store VALUES (1, 1, 1, 0, 0);
CREATE TABLE history (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, create_revision INTEGER NOT NULL,
    version INTEGER NOT NULL, lease TEXT NOT NULL, previous INTEGER NOT NULL, value BLOB);
CREATE TABLE entries (
    key TEXT PRIMARY KEY, id INTEGER NOT NULL, deleted INTEGER NOT NULL,
    lease TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX entries_lease ON entries (lease) WHERE lease <> '';
CREATE TABLE leases (
    id TEXT PRIMARY KEY, seconds REAL NOT NULL, volatile INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE outcomes (
    id TEXT PRIMARY KEY, time REAL NOT NULL, result BLOB NOT NULL) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
COMMIT;
"""


def first_id(revision: int) -> int:
    """The id of a revision's first change."""
    return revision << PLACE_BITS


def revision_of(change: int) -> int:
    """The revision that a change belongs to."""
    return change >> PLACE_BITS


class Hold:
    """Exclusive use of a database file, so that two processes never write it; a crash frees it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    def take(self) -> bool:
        """Take it; False if another process has it."""
        lock = f"{self.path}.lock"
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise translated(error, self.path) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Let another process have it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def connect(path: Path) -> sqlite3.Connection:
    """A connection in WAL mode with full synchronisation and transactions by hand."""
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    try:
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "wal_autocheckpoint = 0",  # the writer does it after it has answered
            "journal_size_limit = 67108864",
            "temp_store = MEMORY",
            "secure_delete = OFF",
        ):
            database.execute(f"PRAGMA {pragma}")
    except BaseException:
        database.close()
        raise
    return database


def open_database(path: Path) -> sqlite3.Connection:
    """The writer's connection; makes the tables of a new file, refuses what is not a store."""
    try:
        # The log takes its permissions from the file: nobody else may read secrets in them.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        database = connect(path)
    except (OSError, sqlite3.Error) as error:
        raise translated(error, path) from None
    try:
        if _is_new(database):
            database.executescript(SCHEMA)
        _check_format(database, path)
        database.executescript(DUE)
        database.execute("SELECT revision FROM store").fetchone()
        sync_directory(path.parent)
    except sqlite3.Error as error:
        database.close()
        raise translated(error, path) from None
    except BaseException:
        database.close()
        raise
    return database


def _is_new(database: sqlite3.Connection) -> bool:
    (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    (application,) = database.execute("PRAGMA application_id").fetchone()
    return bool(tables == 0 and application == 0)


def _check_format(database: sqlite3.Connection, path: Path) -> None:
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise FailedPrecondition(
            f"{path} is a SQLite database, but no store of state_sqlite: move it away, or set "
            "`file` to another name"
        )
    if version != FORMAT:
        raise FailedPrecondition(
            f"{path} has format {version}, this version reads format {FORMAT}: start the version "
            "of sagong that wrote it"
        )


def sync_directory(path: Path) -> None:
    """Make new names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def adopt_restored(path: Path) -> bool:
    """Put `FILE.restore`, a snapshot, in the database's place if there is one.

    The old database is kept as `FILE.replaced`. Revisions go on far above the snapshot's, and its
    history counts as compacted: whoever watched the old store gets `Gone` and reads again.
    """
    fresh = Path(f"{path}.restore")
    if not fresh.exists():
        return False
    _raise_revision(fresh)
    for suffix in ("", "-wal"):
        old = Path(f"{path}{suffix}")
        if old.exists():
            old.replace(f"{path}.replaced{suffix}")
    Path(f"{path}-shm").unlink(missing_ok=True)
    fresh.replace(path)
    sync_directory(path.parent)
    return True


def _raise_revision(path: Path) -> None:
    with closing(open_database(path)) as database:
        problem = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise FailedPrecondition(f"{path} is damaged ({problem}): put an intact snapshot there")
        database.execute(
            "UPDATE store SET revision = revision + ?1, compacted = revision + ?1",
            (RESTORE_STEP,),
        )


def translated(error: BaseException, path: Path) -> SagongError:
    """What an error of SQLite means to callers: says which file, and what to do."""
    if isinstance(error, SagongError):
        return error
    if isinstance(error, OverflowError):
        return InvalidArgument(str(error))
    if isinstance(error, OSError):
        return _translated_system(error, path)
    if not isinstance(error, sqlite3.Error):
        return Internal(f"state_sqlite failed with {type(error).__name__}: {error}")
    code = getattr(error, "sqlite_errorcode", None) or 0
    match code & 0xFF:
        case sqlite3.SQLITE_FULL:
            return ResourceExhausted(
                f"the disk of {path} is full; nothing was written: free space there"
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return FailedPrecondition(
                f"{path} is damaged ({error}): stop, keep a copy of it and of {path.name}-wal, put "
                f"the last snapshot as {path}.restore, and start again"
            )
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return FailedPrecondition(
                f"cannot open {path} for writing ({error}): check that its directory exists and "
                "belongs to the plugin's user"
            )
    name = getattr(error, "sqlite_errorname", "") or type(error).__name__
    return Unavailable(f"{path}: {name}: {error}", maybe_executed=False)


def _translated_system(error: OSError, path: Path) -> SagongError:
    what = f"{error.filename or path}: {error.strerror}"
    if error.errno in FULL:
        return ResourceExhausted(f"{what}; free space there")
    return FailedPrecondition(
        f"{what}; check that its directory exists and belongs to the plugin's user"
    )
