"""A range of the state's keys, kept in memory: read from there, durable in the state.

Three tell of a key: answers to this process's own writes, reads of the state, and a watch that brings
what others write (another generation of the same unit, during a swap). They come in any order; what is
true at the newest revision wins, whoever tells it, so nothing that was removed comes back by an answer
that was on its way. ::

    keyspace = Keyspace(state, start="/docker/", end="/docker0", records=catalog)
    await keyspace.load()                               # everything, at one revision
    host.spawn(keyspace.follow(host.log), "follow")     # what others write, for ever
    await keyspace.commit(operations, compare)          # seen in memory when it returns
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from sagong.contracts.state import (
    Compare,
    Entry,
    Operation,
    OperationKind,
    RangeRequest,
    State,
    Transaction,
    WatchBatch,
    WatchRequest,
    transaction_id,
)
from sagong.errors import Gone, SagongError, Unavailable

__all__ = ["Keyspace", "Records"]

_PAGE: Final = 5000
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 5.0


class Records(Protocol):
    """What is made of the keys and their values."""

    def clear(self) -> None:
        """Everything is told anew."""
        ...

    def place(self, key: str, value: bytes, revision: int) -> None:
        """A key has this value since `revision`."""
        ...

    def drop(self, key: str) -> None:
        """A key is gone, if it was there."""
        ...


class Keyspace:
    """The keys of `[start, end)`; `load` first, then `follow` in the background."""

    def __init__(self, state: State, *, start: str, end: str, records: Records) -> None:
        self._state = state
        self._start, self._end = start, end
        self._records = records
        # The watch, or a whole, has told all up to here.
        self._revision = 0
        # What answers and reads told of later revisions: as of when, and the entry, if there is one.
        self._ahead: dict[str, tuple[int, Entry | None]] = {}

    async def load(self) -> None:
        """Read everything at one revision, and only then show it: no half of it is ever acted on."""
        entries: list[Entry] = []
        start, revision, more = self._start, 0, True
        while more:
            page = await self._state.range(
                RangeRequest(start=start, end=self._end, revision=revision, limit=_PAGE)
            )
            revision = revision or page.revision
            entries += page.entries
            more = page.more and bool(page.entries)
            start = page.entries[-1].key + "\0" if page.entries else start
        self._records.clear()
        for entry in entries:
            self._records.place(entry.key, entry.value, entry.revision)
        self._advance(revision)
        for key, (_, later) in self._ahead.items():
            self._show(key, later)

    async def follow(self, log: logging.Logger) -> None:
        """Show what others write, for ever; survives restarts of the state's provider."""
        pause = FIRST_PAUSE
        while True:
            try:
                await self._watch()
                pause = FIRST_PAUSE
            except Unavailable:
                pass
            except SagongError as error:
                log.warning("can't follow %s: %s", self._start, error.message)
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _watch(self) -> None:
        """Until the stream ends; where history does not reach back, all is read anew."""
        request = WatchRequest(start=self._start, end=self._end, revision=self._revision)
        try:
            async for batch in self._state.watch(request):
                self._take(batch)
        except Gone:
            await self.load()

    async def commit(
        self,
        operations: Sequence[Operation],
        compare: Iterable[Compare] = (),
        *,
        patience: float = 0.0,
    ) -> bool:
        """Do all operations if every condition holds; whether they were done. See `Transaction`."""
        done = await self._state.commit(
            Transaction(
                id=transaction_id(),
                compare=tuple(compare),
                success=tuple(operations),
                patience=patience,
            )
        )
        if done.succeeded:
            for operation in operations:
                self._hear(operation.key, _entry_of(operation, done.revision), done.revision)
        return done.succeeded

    async def read(self, key: str) -> Entry | None:
        """Ask the state for a key, which is shown then."""
        found = await self._state.range(RangeRequest(start=key))
        entry = found.entries[0] if found.entries else None
        self._hear(key, entry, found.revision)
        return entry

    def _hear(self, key: str, entry: Entry | None, revision: int) -> None:
        """As of `revision` this is so."""
        if revision > max(self._revision, self._ahead.get(key, (0, None))[0]):
            self._ahead[key] = (revision, entry)
            self._show(key, entry)

    def _take(self, batch: WatchBatch) -> None:
        for event in batch.events:
            entry = event.entry
            if entry.revision > self._ahead.get(entry.key, (0, None))[0]:
                self._show(entry.key, None if event.deleted else entry)
        self._advance(batch.revision)

    def _advance(self, revision: int) -> None:
        self._revision = revision
        self._ahead = {key: told for key, told in self._ahead.items() if told[0] > revision}

    def _show(self, key: str, entry: Entry | None) -> None:
        if entry is None:
            self._records.drop(key)
        else:
            self._records.place(key, entry.value, entry.revision)


def _entry_of(operation: Operation, revision: int) -> Entry | None:
    if operation.kind is OperationKind.DELETE:
        return None
    return Entry(
        key=operation.key, value=operation.value, create_revision=0, revision=revision, version=0
    )
