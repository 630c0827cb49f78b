"""What the suite of slot `state` can't know of this plugin: how a snapshot becomes a store."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from sagong.contracts.state import State
from sagong.testing import local
from sagong_state_sqlite.plugin import StateSqlite

__all__ = ["restored"]


@contextlib.asynccontextmanager
async def restored(snapshot: bytes) -> AsyncIterator[State]:
    """A fresh store that finds the snapshot as its file."""
    with tempfile.TemporaryDirectory(prefix="sagong-state-") as directory:
        await asyncio.to_thread(Path(directory, "state.db").write_bytes, snapshot)
        async with local(StateSqlite, data=Path(directory)) as fresh:
            yield fresh
