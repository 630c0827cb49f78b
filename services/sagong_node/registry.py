"""The registry of records: in memory for reading, in the state for ever.

Changes are written behind: all keys that changed since the last write go in one transaction, and
whoever must not answer before his change is durable awaits `flushed`. What a crash loses of the
rest (that a container started, or ended) is read back from the runtime: that ripens for a moment,
since most records change again before it is over, and need be written once.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from sagong.call import detached
from sagong.contracts.state import (
    Operation,
    OperationKind,
    RangeRequest,
    State,
    Transaction,
    transaction_id,
)
from sagong.errors import Conflict, ResourceExhausted, SagongError, Unavailable
from sagong_node.records import ContainerRecord, Ended, SandboxRecord

__all__ = ["Registry"]

_CONTAINERS, _SANDBOXES, _ENDED = "/node/containers/", "/node/sandboxes/", "/node/ended/"
_BATCH = 100
_REMEMBERED = 120.0
_GATHER = 0.1
_PATIENCE, _PATIENCE_FULL = 20.0, 2.0
R = TypeVar("R", ContainerRecord, SandboxRecord, Ended)
# Keys with what is to be written (None: nothing is left), each with the number of its change.
Change = tuple[int, ContainerRecord | SandboxRecord | Ended | None]
Changes = dict[str, Change]


class Registry:
    """All containers and sandboxes of this machine."""

    def __init__(self, state: State) -> None:
        self.containers: dict[str, ContainerRecord] = {}
        self.sandboxes: dict[str, SandboxRecord] = {}
        self._state = state
        self.ended: dict[str, Ended] = {}
        self._changes = 0
        # In the order in which they are written: what ripens, what waits for its turn, what is on its
        # way. A key is in one of the first two at most, with the number of its oldest change there.
        self._ripening: Changes = {}
        self._dirty: Changes = {}
        self._writing: Changes = {}
        self._oldest: float | None = math.inf
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
        self.containers.update(sorted(found.items(), key=lambda item: item[1].created_at))
        self.sandboxes.update(await self._read(_SANDBOXES, SandboxRecord))
        ended = await self._read(_ENDED, Ended)
        self.ended.update(sorted(ended.items(), key=lambda item: item[1].at))

    def keep(self, record: ContainerRecord | SandboxRecord, *, later: bool = False) -> int:
        """Take a new or changed record; the number of the change, for `flushed`.

        It is written at once; or, `later`, with whatever else comes in the next moment: for what
        nobody waits for, and is told again by the runtime after a crash.
        """
        id_ = record.spec.id
        if isinstance(record, ContainerRecord):
            self.containers[id_] = record
            if not later:
                # What runs is never written without the network that it is on.
                self._hasten(_SANDBOXES + record.spec.sandbox)
            return self._mark(_CONTAINERS + id_, record, later=later)
        self.sandboxes[id_] = record
        return self._mark(_SANDBOXES + id_, record, later=later)

    def intend(self, record: ContainerRecord) -> int:
        """Write down at once a container that is being made, and nobody is to see yet.

        With its sandbox, or before: a container's record is never without that.
        """
        self._hasten(_SANDBOXES + record.spec.sandbox)
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
        # The first is the oldest; one of a clock that was set back since is as good as old.
        while oldest := next(iter(self.ended.values()), None):
            if 0 <= now - oldest.at < _REMEMBERED:
                break
            del self.ended[oldest.id]
            self._mark(_ENDED + oldest.id, None, later=True)
        ended = Ended(id=record.spec.id, code=record.code, error=record.error, at=now)
        self.ended[ended.id] = ended
        return self._mark(_ENDED + ended.id, ended, later=True)

    def is_durable(self, record: ContainerRecord) -> bool:
        """Whether it is written as it is."""
        key = _CONTAINERS + record.spec.id
        return not any(key in changes for changes in self._undone())

    async def flushed(self, change: int | None = None) -> None:
        """Write now; wait until this change and all before it, or all so far, are durable."""
        self._ripen()
        await self.written(change)

    async def written(self, change: int | None = None) -> None:
        """Wait until this change and all before it are durable, without hurry."""
        last = self._changes if change is None else change
        while self._first() <= last:
            await self._written.wait()

    async def patiently(self, change: int, *, hurry: bool = False) -> None:
        """As `flushed` with `hurry`, else as `written`, for what can't be taken back.

        A disk that stands still is not waited for long. One that is full may have room as soon as what
        is removed here is gone; without any it is written when there is some.
        """
        if hurry:
            self._ripen()
        began, refusals = time.monotonic(), self._refusals
        self._again.set()
        while self._first() <= change:
            most = _PATIENCE if self._refusals == refusals else _PATIENCE_FULL
            try:
                async with asyncio.timeout(began + most - time.monotonic()):
                    await self._written.wait()
            except TimeoutError:
                return

    async def stored(self, *records: ContainerRecord | SandboxRecord) -> None:
        """As `flushed`, of these records alone if any are given; but the state's refusal is raised:
        there is no room, and who asked is told."""
        last, refusals = self._changes, self._refusals
        keys = [_key(record) for record in records]
        for key in keys:
            self._hasten(key)
        if not keys:
            self._ripen()
        self._again.set()
        while self._first(keys) <= last:
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
            self._writing, self._oldest = {}, None
            self._tell()

    def _tell(self) -> None:
        """Whoever waits looks again."""
        written, self._written = self._written, asyncio.Event()
        written.set()

    async def close(self) -> None:
        """Write the rest."""
        self._ripen()
        while self._dirty or self._writing:
            batch, self._dirty, self._writing = {**self._writing, **self._dirty}, {}, {}
            await self._write(batch)

    def _undone(self) -> tuple[Changes, Changes, Changes]:
        return self._writing, self._dirty, self._ripening

    def _first(self, keys: Iterable[str] = ()) -> float:
        """The number of the oldest change, of these keys or any, that is not durable."""
        if keys:
            found = (changes.get(key) for key in keys for changes in self._undone())
            return min((change[0] for change in found if change is not None), default=math.inf)
        if self._oldest is None:
            numbers = (number for changes in self._undone() for number, _ in changes.values())
            self._oldest = min(numbers, default=math.inf)
        return self._oldest

    def _mark(
        self, key: str, record: ContainerRecord | SandboxRecord | Ended | None, *, later: bool
    ) -> int:
        self._changes += 1
        if self._oldest == math.inf:
            self._oldest = self._changes
        # A copy as it is now. What waits already is written by the newer one: it keeps its number.
        waiting = self._dirty.get(key) or self._ripening.get(key)
        change = (
            self._changes if waiting is None else waiting[0],
            None if record is None else msgspec.structs.replace(record),
        )
        if later and key not in self._dirty:
            self._ripening[key] = change
            self._ripen_later()
        else:
            self._dirty[key] = change
            self._pick(key)
            self._wake.set()
        return self._changes

    def _hasten(self, key: str) -> None:
        """Of a record, what ripens is written now."""
        change = self._pick(key)
        if change is not None:
            self._dirty[key] = change
            self._wake.set()

    def _pick(self, key: str) -> Change | None:
        """It does not ripen any more; who comes next has the whole time again."""
        change = self._ripening.pop(key, None)
        if self._timer is not None and not self._ripening:
            self._timer.cancel()
            self._timer = None
        return change

    def _ripen_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_GATHER, self._ripen)

    def _ripen(self) -> None:
        """All of it is written now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._dirty |= self._ripening
        self._ripening = {}
        if self._dirty:
            self._wake.set()

    def _take_along(self) -> None:
        """What does not change again has nothing to ripen for."""
        final = [k for k, (_, r) in self._ripening.items() if r is None or isinstance(r, Ended)]
        for key in final:
            self._hasten(key)

    def _take_batch(self) -> None:
        self._take_along()
        keys = list(self._dirty)[:_BATCH]
        self._writing = {key: self._dirty.pop(key) for key in keys}
        if not self._dirty:
            self._wake.clear()

    async def _write(self, batch: Changes) -> None:
        operations = tuple(
            Operation(kind=OperationKind.DELETE, key=key, quiet=True)
            if record is None
            else Operation(kind=OperationKind.PUT, key=key, value=self._encoder.encode(record))
            for key, (_, record) in batch.items()
        )
        transaction = Transaction(id=transaction_id(), success=operations)
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


def _key(record: ContainerRecord | SandboxRecord) -> str:
    prefix = _CONTAINERS if isinstance(record, ContainerRecord) else _SANDBOXES
    return prefix + record.spec.id
