"""A snapshot of the whole store: a SQLite file of its own, streamed in chunks."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import uuid
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path

from sagong.contracts.state import Chunk
from sagong_state_sqlite.database import connect, translated

__all__ = ["remove_leftovers", "stream_snapshot"]

CHUNK_BYTES = 256 << 10


async def stream_snapshot(path: Path) -> AsyncIterator[Chunk]:
    """The database at one revision, without free pages and without a log.

    The copy has no name while it is streamed, so a crash leaves nothing behind.
    """
    descriptor = await asyncio.to_thread(_copy, path)
    try:
        while data := await asyncio.to_thread(os.read, descriptor, CHUNK_BYTES):
            yield Chunk(data=data)
    finally:
        os.close(descriptor)


def _copy(path: Path) -> int:
    copy = Path(f"{path}.snapshot-{uuid.uuid4().hex}")
    try:
        with closing(connect(path)) as database:
            database.execute("VACUUM INTO ?", (str(copy),))
        return os.open(copy, os.O_RDONLY | os.O_CLOEXEC)
    except sqlite3.Error as error:
        raise translated(error, path) from None
    finally:
        copy.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove copies that a crash left while they were made."""
    for copy in path.parent.glob(f"{path.name}.snapshot-*"):
        with suppress(FileNotFoundError):
            copy.unlink()
