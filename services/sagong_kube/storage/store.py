"""The storage: a cache of all API objects that follows the store, and the one way to write them."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import uuid
from collections.abc import Callable, Sequence
from typing import Protocol

from sagong import call
from sagong.contracts.state import (
    Compare,
    Entry,
    Lease,
    Operation,
    OperationKind,
    RangeRequest,
    State,
    Transaction,
    TransactionResult,
    WatchBatch,
    WatchEvent,
    WatchRequest,
)
from sagong.errors import DeadlineExceeded, Gone, SagongError, Unavailable
from sagong_kube.storage.change import Change, Event, Write
from sagong_kube.storage.collection import Collection, Selection
from sagong_kube.storage.history import History
from sagong_kube.storage.keys import EVERYTHING, REGISTRY, object_key, split_key, storage_prefix
from sagong_kube.storage.record import Record
from sagong_kube.storage.seal import Seal
from sagong_kube.storage.watcher import Watcher, Watchers

__all__ = ["Beside", "Store"]

_PAGE = 500
_PROGRESS_SECONDS = 60.0
# How often the store is asked for what a watch has missed: more often it is not replaced in a moment.
_REPLAYS = 3


class Beside(Protocol):
    """Keeps what stands in the store beside objects (allocations, commits)."""

    def put(self, key: str, value: bytes, revision: int) -> None:
        """A key was written."""
        ...

    def remove(self, key: str) -> None:
        """A key was deleted."""
        ...


class Store:
    """Reads come from the cache, once it has seen all that this process has written."""

    def __init__(self, state: State, *, seal: Seal, consistent: bool = False) -> None:
        self._state = state
        self._seal = seal
        self._consistent = consistent
        self._collections: dict[str, Collection] = {}
        self._history = History()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._ticket = 0
        # Unique for ever: a chance of this process's own, and a number.
        self._prefix = uuid.uuid4().hex
        self._numbers = itertools.count(1)
        self._beside: dict[str, Beside] = {}
        self._volatile: dict[str, set[str]] = {}
        self.watchers = Watchers()
        self.revision = 0
        self.written = 0
        self.listeners: list[Callable[[Event], None]] = []

    # What is there

    def collection(self, storage: str) -> Collection:
        """All objects of a storage, made when first asked for."""
        found = self._collections.get(storage)
        if found is None:
            found = self._collections[storage] = Collection(storage)
        return found

    def get(self, storage: str, key: str) -> Record | None:
        """One object as cached."""
        return self.collection(storage).records.get(key)

    def keep(self, prefix: str, beside: Beside) -> None:
        """Let `beside` know of all keys below `prefix`; before `load`."""
        self._beside[prefix] = beside

    # Following the store

    async def load(self) -> None:
        """Read everything at one revision; what differs from the cache becomes events."""
        seen: dict[str, set[str]] = {}
        news: list[WatchEvent] = []
        start, revision = EVERYTHING[0], 0
        while True:
            page = await self._state.range(
                RangeRequest(start=start, end=EVERYTHING[1], revision=revision, limit=_PAGE)
            )
            revision = revision or page.revision
            news += [WatchEvent(entry=e) for e in page.entries if self._is_news(e, seen)]
            if not self.revision:
                self._apply_all(news)
            if not page.more or not page.entries:
                break
            start = page.entries[-1].key + "\0"
        # Watchers resume by the last revision they saw, so they must see them in order.
        news.sort(key=lambda event: event.entry.revision)
        self._apply_all(news)
        self._drop_unseen(seen, revision)
        self._history.reset(revision)
        self._advance(revision)

    def _apply_all(self, events: list[WatchEvent]) -> None:
        for event in events:
            self._apply(event)
        events.clear()

    def _is_news(self, entry: Entry, seen: dict[str, set[str]]) -> bool:
        if not entry.key.startswith(REGISTRY):
            return True
        storage, key = split_key(entry.key)
        seen.setdefault(storage, set()).add(key)
        known = self.collection(storage).records.get(key)
        return known is None or known.revision != entry.revision

    def _drop_unseen(self, seen: dict[str, set[str]], revision: int) -> None:
        for storage, collection in self._collections.items():
            for key in collection.records.keys() - seen.get(storage, set()):
                self._removed(collection, key, revision)

    async def follow(self) -> None:
        """Keep the cache for ever; survives restarts of the store's provider."""
        pause = 0.05
        with call.detached():
            while True:
                try:
                    async for batch in self._state.watch(self._watch_request()):
                        pause = 0.05
                        self._take(batch)
                except Gone:
                    await self._reload()
                except SagongError:
                    pause = min(pause * 2, 2.0)
                await asyncio.sleep(pause)

    def _watch_request(self) -> WatchRequest:
        start, end = EVERYTHING
        return WatchRequest(
            start=start, end=end, revision=self.revision, progress_seconds=_PROGRESS_SECONDS
        )

    async def _reload(self) -> None:
        try:
            await self.load()
        except SagongError:
            return

    def _take(self, batch: WatchBatch) -> None:
        for event in batch.events:
            if event.entry.revision > self.revision:
                self._apply(event)
        self._advance(batch.revision)

    def _apply(self, event: WatchEvent) -> None:
        entry = event.entry
        if not entry.key.startswith(REGISTRY):
            self._apply_beside(event)
            return
        storage, key = split_key(entry.key)
        collection = self.collection(storage)
        if event.deleted:
            self._removed(collection, key, entry.revision)
            return
        value = self._seal.open(entry.key, entry.value)
        record = collection.reader.read(key, value, entry.revision)
        previous = collection.put(record)
        self._tell(collection, Event(storage, entry.revision, record, previous))

    def _removed(self, collection: Collection, key: str, revision: int) -> None:
        previous = collection.remove(key)
        if previous is not None:
            self._tell(collection, Event(collection.storage, revision, None, previous))

    def _apply_beside(self, event: WatchEvent) -> None:
        entry = event.entry
        beside = self._beside.get(entry.key[: entry.key.index("/", 1) + 1])
        if beside is None:
            return
        if event.deleted:
            beside.remove(entry.key)
        else:
            beside.put(entry.key, entry.value, entry.revision)

    def _tell(self, collection: Collection, event: Event) -> None:
        collection.changed = event.revision
        self._history.add(event)
        self.watchers.offer(event, collection)
        for listener in self.listeners:
            listener(event)

    def replace(self, storage: str, record: Record) -> None:
        """Show another body under an unchanged revision (volatile renewals), to watchers too."""
        collection = self.collection(storage)
        previous = collection.put(record)
        self._volatile.setdefault(storage, set()).add(record.key)
        self.watchers.offer(Event(storage, record.revision, record, previous), collection)

    def _advance(self, revision: int) -> None:
        self.revision = max(self.revision, revision)
        while self._waiting and self._waiting[0][0] <= self.revision:
            _, _, future = heapq.heappop(self._waiting)
            if not future.done():
                future.set_result(None)

    # Waiting

    async def settle(self) -> None:
        """Wait until reads see every write that was acknowledged before."""
        if self._consistent:
            start = EVERYTHING[0]
            found = await self._state.range(RangeRequest(start=start, keys_only=True))
            self.written = max(self.written, found.revision)
        if self.revision < self.written:
            await self.wait_revision(self.written, 10.0)

    async def wait_revision(self, revision: int, seconds: float) -> None:
        """Wait until the cache is at least at `revision`; DeadlineExceeded after `seconds`."""
        if revision <= self.revision:
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._ticket += 1
        heapq.heappush(self._waiting, (revision, self._ticket, future))
        timer = loop.call_later(seconds, _expire, future, revision)
        try:
            await future
        finally:
            timer.cancel()

    # Writing

    async def write(self, changes: Sequence[Change], transaction: str = "") -> Write:
        """Do all changes in one transaction if nobody changed their objects meanwhile.

        A failed write returns after the cache has seen what it failed on.
        """
        operations: list[Operation] = []
        compares: list[Compare] = []
        for change in changes:
            key = object_key(change.storage, change.key)
            compares += (Compare(key=key, revision=change.expected), *change.guards)
            operations += (self._operation(key, change), *change.beside)
        result = await self._commit(operations, compares, transaction)
        if not result.succeeded:
            await self.wait_revision(result.revision, 10.0)
        return Write(result.succeeded, result.revision)

    def _operation(self, key: str, change: Change) -> Operation:
        if change.value is None:
            return Operation(kind=OperationKind.DELETE, key=key)
        value = self._seal.close(key, change.value)
        return Operation(kind=OperationKind.PUT, key=key, value=value, lease=change.lease)

    async def _commit(
        self, operations: list[Operation], compares: list[Compare], transaction: str
    ) -> TransactionResult:
        result = await self._state.commit(
            Transaction(
                id=transaction or self._next_id(),
                compare=tuple(compares),
                success=tuple(operations),
            )
        )
        self.written = max(self.written, result.revision)
        return result

    def _next_id(self) -> str:
        return f"{self._prefix}-{next(self._numbers):x}"

    async def grant(self, lease: Lease) -> None:
        """Make a lease for keys that shall vanish by themselves."""
        await self._state.grant(lease)

    # History

    async def page(
        self, storage: str, selection: Selection, revision: int, after: str, limit: int
    ) -> tuple[list[Record], bool]:
        """Objects as they were at `revision`, from the store; and whether there are more."""
        prefix = storage_prefix(storage)
        collection = self.collection(storage)
        test = collection.test(selection)
        start = max(
            prefix + after, prefix + (f"{selection.namespace}/" if selection.namespace else "")
        )
        end = f"{prefix}{selection.namespace}0" if selection.namespace else prefix[:-1] + "0"
        found: list[Record] = []
        while True:
            page = await self._state.range(
                RangeRequest(start=start, end=end, revision=revision, limit=_PAGE)
            )
            for entry in page.entries:
                value = self._seal.open(entry.key, entry.value)
                record = collection.reader.read(entry.key[len(prefix) :], value, entry.revision)
                if test(record):
                    if limit and len(found) == limit:
                        return found, True
                    found.append(record)
            if not page.more or not page.entries:
                return found, False
            start = page.entries[-1].key + "\0"

    async def watch(self, watcher: Watcher, revision: int | None) -> None:
        """Begin to fill a watcher: after `revision`, or with all objects when it is None.

        The caller removes it from `watchers` when its reader goes away. `Gone` if the history
        after `revision` is not kept.
        """
        if revision is None:
            await self.settle()
            watcher.show(watcher.collection.select(watcher.selection), self.revision)
            watcher.revision = self.revision
            self.watchers.add(watcher)
            return
        await self.wait_revision(revision, 3.0)
        events = self._history.since(revision, watcher.collection.storage)
        while events is None:
            border = self.revision
            older = await self._replay(watcher.collection, revision, border)
            newer = self._history.since(border, watcher.collection.storage)
            events = None if newer is None else older + newer
        for event in (*events, *self._replaced(watcher.collection)):
            watcher.offer(event)
        watcher.revision = self.revision
        self.watchers.add(watcher)

    def _replaced(self, collection: Collection) -> list[Event]:
        # History has no renewals: who resumes is shown the present bodies.
        keys = self._volatile.get(collection.storage, set())
        records = [collection.records[key] for key in keys if key in collection.records]
        return [Event(collection.storage, r.revision, r, r) for r in records]

    async def _replay(self, collection: Collection, revision: int, border: int) -> list[Event]:
        """Events up to `border`; a store that is replaced meanwhile is asked for the rest anew."""
        events: list[Event] = []
        for _ in range(_REPLAYS):
            revision = await self._replay_some(collection, revision, border, events)
            if revision >= border:
                return events
        raise Unavailable("the store ended a watch before its present; try again")

    async def _replay_some(
        self, collection: Collection, revision: int, border: int, events: list[Event]
    ) -> int:
        """Add the events after `revision` until the border or the stream's end; up to which."""
        prefix = storage_prefix(collection.storage)
        request = WatchRequest(
            start=prefix,
            end=prefix[:-1] + "0",
            revision=revision,
            previous=True,
            progress_seconds=1.0,
        )
        async with call.leaving(self._state.watch(request)) as stream:
            try:
                async for batch in stream:
                    events += [
                        self._old_event(collection, prefix, event)
                        for event in batch.events
                        if event.entry.revision <= border
                    ]
                    revision = batch.revision
                    if revision >= border:
                        break
            except Unavailable:
                return revision
        return revision

    def _old_event(self, collection: Collection, prefix: str, event: WatchEvent) -> Event:
        entry, previous = event.entry, event.previous
        key = entry.key[len(prefix) :]
        record = (
            None
            if event.deleted
            else self._read(collection, key, entry.key, entry.value, entry.revision)
        )
        before = previous and self._read(
            collection, key, entry.key, previous.value, previous.revision
        )
        return Event(collection.storage, entry.revision, record, before or None)

    def _read(
        self, collection: Collection, key: str, full: str, value: bytes, revision: int
    ) -> Record:
        return collection.reader.read(key, self._seal.open(full, value), revision)


def _expire(future: asyncio.Future[None], revision: int) -> None:
    if not future.done():
        future.set_exception(
            DeadlineExceeded(f"the store has not reached revision {revision}; try again later")
        )
