"""The plugin: a store in its data directory, opened at start, handed over at a swap."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from sagong.contracts.state import (
    Chunk,
    CompactRequest,
    Lease,
    LeaseList,
    LeaseRef,
    RangeRequest,
    RangeResult,
    StateStatus,
    Transaction,
    TransactionResult,
    WatchBatch,
    WatchRequest,
)
from sagong.errors import Unavailable
from sagong.host import Host
from sagong_state_sqlite.database import Hold, translated
from sagong_state_sqlite.settings import Settings
from sagong_state_sqlite.store import Store

__all__ = ["StateSqlite"]


# No lease has this name; its value is the time of the export, which may be long ago.
_WHEN = ""
# To sleep for less is not worth the start.
_SHORT_SECONDS = 60.0


class StateSqlite:
    """Slot `state` in one SQLite file.

    One process holds the file. A successor that is started while its predecessor still holds it
    opens it when `restore` is called, or with the first call after the predecessor let go.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._settings = host.config(Settings).check()
        self._path = host.data / self._settings.file
        self._hold = Hold(self._path)
        self._opening = asyncio.Lock()
        self._store: Store | None = None
        self._stopped = False

    async def start(self) -> None:
        """Open the file, unless a predecessor still has it."""
        if await self._open() is None:
            self._host.log.info("waits for its predecessor", extra={"file": str(self._path)})

    async def stop(self) -> None:
        """Finish what waits and let go of the file."""
        self._stopped = True
        await self._close()

    def busy(self) -> bool:
        """Whether there is something to do before long."""
        return self._store is not None and self._store.due_in() < _SHORT_SECONDS

    async def doze(self) -> float:
        """Sleep until a lease ends, or something is to be compacted or forgotten."""
        seconds = (await self._ready()).due_in()
        return time.time() + seconds if math.isfinite(seconds) else 0.0

    async def export(self) -> bytes:
        """Let go of the file for a successor; tells it how long each lease still has."""
        store = await self._ready()
        remaining = store.remaining()
        await self._close()
        return msgspec.msgpack.encode({**remaining, _WHEN: time.monotonic()})

    async def restore(self, state: bytes) -> None:
        """Take over from a predecessor that has exported."""
        remaining = msgspec.msgpack.decode(state, type=dict[str, float])
        since = max(time.monotonic() - remaining.pop(_WHEN, math.inf), 0.0)
        (await self._ready()).resume({name: left - since for name, left in remaining.items()})

    async def _ready(self) -> Store:
        store = self._store or await self._open()
        if store is None:
            raise Unavailable(
                f"{self._path} is held by another process: end it, or name another `file`"
            )
        return store

    async def _open(self) -> Store | None:
        """The open store; None if another process has the file."""
        async with self._opening:
            if self._store is not None:
                return self._store
            if self._stopped:
                raise Unavailable(f"the store {self._path} is closed: send the call again")
            if not self._hold.take():
                return None
            try:
                self._store = await self._open_held()
            except BaseException:
                self._hold.release()
                raise
            return self._store

    async def _open_held(self) -> Store:
        database, restored = await asyncio.to_thread(Store.prepare, self._path)
        if restored:
            self._host.log.warning("started from a snapshot", extra={"file": str(self._path)})
        try:
            return Store(database, self._path, self._settings, spawn=self._host.spawn)
        except sqlite3.Error as error:
            database.close()
            raise translated(error, self._path) from None

    async def _close(self) -> None:
        async with self._opening:
            store, self._store = self._store, None
            if store is not None:
                await store.close()
                self._hold.release()

    async def range(self, request: RangeRequest) -> RangeResult:
        """Read keys."""
        return await (self._store or await self._ready()).range(request)

    async def commit(self, transaction: Transaction) -> TransactionResult:
        """Do a transaction."""
        return await (self._store or await self._ready()).commit(transaction)

    async def watch(self, request: WatchRequest) -> AsyncGenerator[WatchBatch, None]:
        """Follow changes."""
        store = await self._ready()
        async with aclosing(store.watch(request)) as batches:
            async for batch in batches:
                yield batch

    async def grant(self, lease: Lease) -> Lease:
        """Make a lease."""
        return await (await self._ready()).grant(lease)

    async def renew(self, lease: LeaseRef) -> Lease:
        """Renew a lease."""
        return await (await self._ready()).renew(lease.id)

    async def revoke(self, lease: LeaseRef) -> None:
        """End a lease."""
        await (await self._ready()).revoke(lease.id)

    async def leases(self) -> LeaseList:
        """List living leases."""
        return LeaseList(leases=(await self._ready()).leases())

    async def compact(self, request: CompactRequest) -> StateStatus:
        """Drop history."""
        return await (await self._ready()).compact(request)

    async def snapshot(self) -> AsyncGenerator[Chunk, None]:
        """Stream the whole store."""
        store = await self._ready()
        async with aclosing(store.snapshot()) as chunks:
            async for chunk in chunks:
                yield chunk

    async def status(self) -> StateStatus:
        """Revision and sizes."""
        return await (await self._ready()).status()
