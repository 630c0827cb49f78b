"""The registry of records: in memory for reading, in the state for ever.

Changes are written behind: all keys that changed since the last write go in one transaction, and
whoever must not answer before his change is durable awaits `flushed`. What a crash loses of the
rest (that a container started, or ended) is read back from the runtime.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
import uuid
from typing import TypeVar

import msgspec

from sagong.call import detached
from sagong.contracts.state import Operation, OperationKind, RangeRequest, State, Transaction
from sagong.errors import Conflict, ResourceExhausted, SagongError, Unavailable
from sagong_node.records import ContainerRecord, Ended, SandboxRecord

__all__ = ["Registry"]

_CONTAINERS, _SANDBOXES, _ENDED = "/node/containers/", "/node/sandboxes/", "/node/ended/"
_BATCH = 100
_REMEMBERED = 120.0
_GATHER = 0.1
R = TypeVar("R", ContainerRecord, SandboxRecord, Ended)
# Keys with what is to be written (None: nothing is left), each with its change's number.
Changes = dict[str, tuple[int, ContainerRecord | SandboxRecord | Ended | None]]


class Registry:
    """All containers and sandboxes of this machine."""

    def __init__(self, state: State) -> None:
        self.containers: dict[str, ContainerRecord] = {}
        self.sandboxes: dict[str, SandboxRecord] = {}
        self._state = state
        self.ended: dict[str, Ended] = {}
        self._changes = 0
        self._dirty: Changes = {}
        self._writing: Changes = {}
        self._written = asyncio.Event()
        self._wake = asyncio.Event()
        self._refusal: SagongError | None = None
        self._refusals = 0
        self._again = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._encoder = msgspec.msgpack.Encoder()

    async def load(self) -> None:
        """Read everything; called once, before anything else."""
        found = await self._read(_CONTAINERS, ContainerRecord)
        self.containers = dict(sorted(found.items(), key=lambda item: item[1].created_at))
        self.sandboxes = await self._read(_SANDBOXES, SandboxRecord)
        ended = await self._read(_ENDED, Ended)
        self.ended = dict(sorted(ended.items(), key=lambda item: item[1].at))

    def keep(self, record: ContainerRecord | SandboxRecord, *, later: bool = False) -> int:
        """Take a new or changed record; the number of the change, for `flushed`.

        It is written at once; or, `later`, with whatever else comes in the next moment: for what
        need not outlive a power cut and is told again by the runtime after a crash.
        """
        id_ = record.spec.id
        if isinstance(record, ContainerRecord):
            self.containers[id_] = record
            return self._mark(_CONTAINERS + id_, record, later=later)
        self.sandboxes[id_] = record
        return self._mark(_SANDBOXES + id_, record, later=later)

    def intend(self, record: ContainerRecord) -> int:
        """Write down at once a container that is being made, and nobody is to see yet."""
        return self._mark(_CONTAINERS + record.spec.id, record, later=False)

    def forget(self, record: ContainerRecord | SandboxRecord) -> int:
        """Delete a record; the number of the change."""
        id_ = record.spec.id
        if isinstance(record, ContainerRecord):
            self.containers.pop(id_, None)
            return self._mark(_CONTAINERS + id_, None, later=True)
        self.sandboxes.pop(id_, None)
        return self._mark(_SANDBOXES + id_, None, later=True)

    def bury(self, record: ContainerRecord) -> int:
        """Delete a container's record, and remember for a while how it ended."""
        self.forget(record)
        now = time.time()
        for id_ in [id_ for id_, e in self.ended.items() if e.at < now - _REMEMBERED]:
            del self.ended[id_]
            self._mark(_ENDED + id_, None, later=True)
        ended = Ended(id=record.spec.id, code=record.code, error=record.error, at=now)
        self.ended[ended.id] = ended
        return self._mark(_ENDED + ended.id, ended, later=True)

    def is_durable(self, record: ContainerRecord) -> bool:
        """Whether it is written as it is."""
        key = _CONTAINERS + record.spec.id
        return key not in self._dirty and key not in self._writing

    async def flushed(self, change: int | None = None) -> None:
        """Write now; wait until this change and all before it, or all so far, are durable."""
        if self._dirty:
            self._wake.set()
        await self.written(change)

    async def written(self, change: int | None = None) -> None:
        """Wait until this change and all before it are durable, without hurry."""
        last = self._changes if change is None else change
        while self._oldest() <= last:
            await self._written.wait()

    async def stored(self) -> None:
        """As `flushed`, but the state's refusal is raised: there is no room, and who asked is told."""
        last, refusals = self._changes, self._refusals
        if self._dirty:
            self._wake.set()
        self._again.set()
        while self._oldest() <= last:
            if self._refusals > refusals and self._refusal is not None:
                raise self._refusal
            await self._written.wait()

    async def settled(self) -> None:
        """As `flushed`, for deletions: without room for them they are written when there is some."""
        with contextlib.suppress(ResourceExhausted):
            await self.stored()

    async def write_behind(self) -> None:
        """Write what changes, for ever."""
        while True:
            await self._wake.wait()
            self._take_batch()
            await self._write(self._writing)
            self._writing = {}
            self._tell()

    def _tell(self) -> None:
        """Whoever waits looks again."""
        written, self._written = self._written, asyncio.Event()
        written.set()

    async def close(self) -> None:
        """Write the rest."""
        while self._dirty or self._writing:
            batch, self._dirty, self._writing = {**self._writing, **self._dirty}, {}, {}
            await self._write(batch)

    def _oldest(self) -> float:
        """The number of the oldest change that is not durable."""
        for changes in (self._writing, self._dirty):
            for number, _ in changes.values():
                return number  # they stand in order
        return math.inf

    def _mark(
        self, key: str, record: ContainerRecord | SandboxRecord | Ended | None, *, later: bool
    ) -> int:
        self._changes += 1
        # A copy as it is now. What waits already is written by the newer one: it keeps its number.
        number, _ = self._dirty.get(key, (self._changes, None))
        self._dirty[key] = number, None if record is None else msgspec.structs.replace(record)
        if not later:
            self._wake.set()
        elif self._timer is None and not self._wake.is_set():
            self._timer = asyncio.get_running_loop().call_later(_GATHER, self._wake.set)
        return self._changes

    def _take_batch(self) -> None:
        keys = list(self._dirty)[:_BATCH]
        self._writing = {key: self._dirty.pop(key) for key in keys}
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._dirty:
            self._wake.clear()

    async def _write(self, batch: Changes) -> None:
        operations = tuple(
            Operation(kind=OperationKind.DELETE, key=key)
            if record is None
            else Operation(kind=OperationKind.PUT, key=key, value=self._encoder.encode(record))
            for key, (_, record) in batch.items()
        )
        transaction = Transaction(id=uuid.uuid4().hex, success=operations)
        while True:
            try:
                with detached():
                    await self._state.commit(transaction)
                return
            except (Unavailable, Conflict):
                await asyncio.sleep(0.1)
            except SagongError as error:
                await self._refused(error)

    async def _refused(self, error: SagongError) -> None:
        """The disk is full: tell those who can be refused, and try on."""
        self._refusal = error
        self._refusals += 1
        self._again.clear()
        self._tell()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._again.wait()

    async def _read(self, prefix: str, kind: type[R]) -> dict[str, R]:
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        found = await self._state.range(RangeRequest(start=prefix, end=end))
        decoder = msgspec.msgpack.Decoder(kind)
        return {e.key.removeprefix(prefix): decoder.decode(e.value) for e in found.entries}
