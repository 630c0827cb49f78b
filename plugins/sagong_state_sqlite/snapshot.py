"""A snapshot of the whole store: a SQLite file of its own, streamed in chunks."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import uuid
from collections.abc import AsyncGenerator
from contextlib import closing, suppress
from pathlib import Path
from typing import BinaryIO

from sagong.contracts.state import Chunk
from sagong_state_sqlite.database import connect, translated

__all__ = ["remove_leftovers", "stream_snapshot"]

CHUNK_BYTES = 256 << 10


async def stream_snapshot(path: Path) -> AsyncGenerator[Chunk, None]:
    """The database at one revision, without free pages and without a log.

    The copy has no name while it is streamed, so a crash leaves nothing behind.
    """
    copying = asyncio.ensure_future(asyncio.to_thread(_copy, path))
    try:
        # A thread cannot be cancelled: whoever goes away early leaves the closing to its end.
        file = await asyncio.shield(copying)
        while data := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield Chunk(data=data)
    finally:
        copying.add_done_callback(_close)


def _close(copying: asyncio.Future[BinaryIO]) -> None:
    if not copying.cancelled() and copying.exception() is None:
        copying.result().close()


def _copy(path: Path) -> BinaryIO:
    copy = Path(f"{path}.snapshot-{uuid.uuid4().hex}")
    try:
        os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(connect(path)) as database:
            database.execute("VACUUM INTO ?", (str(copy),))
        return copy.open("rb", buffering=0)
    except (OSError, sqlite3.Error) as error:
        raise translated(error, path) from None
    finally:
        copy.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove copies that a crash left while they were made."""
    for copy in path.parent.glob(f"{path.name}.snapshot-*"):
        with suppress(FileNotFoundError):
            copy.unlink()
