"""The registry of records: in memory for reading, in the state for ever.

Changes are written behind: all keys that changed since the last write go in one transaction, and
whoever must not answer before his change is durable awaits `flushed`. What a crash loses of the
rest (that a container started, or ended) is read back from the runtime.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from typing import TypeVar

import msgspec

from sagong.call import detached
from sagong.contracts.state import Operation, OperationKind, RangeRequest, State, Transaction
from sagong.errors import Conflict, SagongError, Unavailable
from sagong_node.records import ContainerRecord, Ended, SandboxRecord

__all__ = ["Registry"]

_CONTAINERS, _SANDBOXES, _ENDED = "/node/containers/", "/node/sandboxes/", "/node/ended/"
_BATCH = 100
_REMEMBERED = 120.0
R = TypeVar("R", ContainerRecord, SandboxRecord, Ended)


class Registry:
    """All containers and sandboxes of this machine."""

    def __init__(self, state: State) -> None:
        self.containers: dict[str, ContainerRecord] = {}
        self.sandboxes: dict[str, SandboxRecord] = {}
        self._state = state
        self.ended: dict[str, Ended] = {}
        self._dirty: dict[str, ContainerRecord | SandboxRecord | Ended | None] = {}
        self._written = asyncio.Event()
        self._wake = asyncio.Event()
        self._encoder = msgspec.msgpack.Encoder()

    async def load(self) -> None:
        """Read everything; called once, before anything else."""
        found = await self._read(_CONTAINERS, ContainerRecord)
        self.containers = dict(sorted(found.items(), key=lambda item: item[1].created_at))
        self.sandboxes = await self._read(_SANDBOXES, SandboxRecord)
        ended = await self._read(_ENDED, Ended)
        self.ended = dict(sorted(ended.items(), key=lambda item: item[1].at))

    def keep(self, record: ContainerRecord | SandboxRecord) -> None:
        """Take a new or changed record; it is written soon."""
        id_ = record.spec.id
        if isinstance(record, ContainerRecord):
            self.containers[id_] = record
            self._mark(_CONTAINERS + id_, record)
        else:
            self.sandboxes[id_] = record
            self._mark(_SANDBOXES + id_, record)

    def forget(self, record: ContainerRecord | SandboxRecord) -> None:
        """Delete a record."""
        id_ = record.spec.id
        if isinstance(record, ContainerRecord):
            self.containers.pop(id_, None)
            self._mark(_CONTAINERS + id_, None)
        else:
            self.sandboxes.pop(id_, None)
            self._mark(_SANDBOXES + id_, None)

    def bury(self, record: ContainerRecord) -> None:
        """Delete a container's record, and remember for a while how it ended."""
        self.forget(record)
        now = time.time()
        for id_ in [id_ for id_, e in self.ended.items() if e.at < now - _REMEMBERED]:
            del self.ended[id_]
            self._mark(_ENDED + id_, None)
        ended = Ended(id=record.spec.id, code=record.code, error=record.error, at=now)
        self.ended[ended.id] = ended
        self._mark(_ENDED + ended.id, ended)

    async def kept(self, record: ContainerRecord, seconds: float) -> None:
        """Wait until this record as it is now is durable; no longer than `seconds` (a full disk)."""
        key = _CONTAINERS + record.spec.id
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while key in self._dirty:
                    await self._written.wait()

    async def flushed(self) -> None:
        """Wait until all changes so far are durable."""
        while self._dirty or self._wake.is_set():
            await self._written.wait()

    async def write_behind(self) -> None:
        """Write what changes, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch = dict(list(self._dirty.items())[:_BATCH])
            await self._write(batch)
            for key, record in batch.items():
                if self._dirty.get(key) is record:
                    del self._dirty[key]
            if self._dirty:
                self._wake.set()
            written, self._written = self._written, asyncio.Event()
            written.set()

    async def close(self) -> None:
        """Write the rest."""
        while self._dirty:
            batch, self._dirty = dict(self._dirty), {}
            await self._write(batch)

    def _mark(self, key: str, record: ContainerRecord | SandboxRecord | Ended | None) -> None:
        # A copy, so that `is` tells afterwards whether the record has changed while it was written.
        self._dirty[key] = None if record is None else msgspec.structs.replace(record)
        self._wake.set()

    async def _write(
        self, batch: dict[str, ContainerRecord | SandboxRecord | Ended | None]
    ) -> None:
        operations = tuple(
            Operation(kind=OperationKind.DELETE, key=key)
            if record is None
            else Operation(kind=OperationKind.PUT, key=key, value=self._encoder.encode(record))
            for key, record in batch.items()
        )
        transaction = Transaction(id=uuid.uuid4().hex, success=operations)
        while True:
            try:
                with detached():
                    await self._state.commit(transaction)
                return
            except (Unavailable, Conflict):
                await asyncio.sleep(0.1)
            except SagongError:
                # The disk is full: what waits for it is told by its deadline; try on.
                await asyncio.sleep(1.0)

    async def _read(self, prefix: str, kind: type[R]) -> dict[str, R]:
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        found = await self._state.range(RangeRequest(start=prefix, end=end))
        decoder = msgspec.msgpack.Decoder(kind)
        return {e.key.removeprefix(prefix): decoder.decode(e.value) for e in found.entries}
