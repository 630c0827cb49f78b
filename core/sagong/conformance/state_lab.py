"""The lab of the state suite: a candidate, what may be done to it, and how checks ask it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, field

from sagong.contracts.state import (
    Compare,
    Entry,
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

__all__ = [
    "LEASE_SECONDS",
    "PATIENCE",
    "StateLab",
    "next_batch",
    "next_events",
    "values_of",
    "wait_until",
]

PATIENCE = 30.0
# Long enough that a busy machine renews in time, short enough to wait for.
LEASE_SECONDS = 3.0


@dataclass
class StateLab:
    """A candidate, and two powers over it that may be missing; checks that need one then pass.

    `restart` kills the candidate without warning and starts it again on the same data;
    `restored` starts a fresh one from a snapshot's bytes.
    """

    state: State
    restart: Callable[[], Awaitable[State]] | None = None
    restored: Callable[[bytes], AbstractAsyncContextManager[State]] | None = None
    area: str = field(default_factory=lambda: f"check-{uuid.uuid4().hex}/")

    def key(self, name: str) -> str:
        """A key that no other check uses."""
        return self.area + name

    @property
    def end(self) -> str:
        """Where the check's keys end."""
        return self.area[:-1] + "0"

    async def commit(
        self,
        *operations: Operation,
        compare: tuple[Compare, ...] = (),
        failure: tuple[Operation, ...] = (),
    ) -> TransactionResult:
        """A transaction with a new id."""
        transaction = Transaction(
            id=str(uuid.uuid4()), compare=compare, success=operations, failure=failure
        )
        return await self.state.commit(transaction)

    async def put(self, name: str, value: bytes = b"", lease: str = "") -> int:
        """Put one key; the revision."""
        return (await self.commit(self.putting(name, value, lease))).revision

    async def delete(self, name: str) -> int:
        """Delete one key; the revision."""
        return (await self.commit(self.deleting(name))).revision

    def putting(self, name: str, value: bytes = b"", lease: str = "") -> Operation:
        """The operation that puts a key."""
        return Operation(kind=OperationKind.PUT, key=self.key(name), value=value, lease=lease)

    def deleting(self, name: str, end: str = "") -> Operation:
        """The operation that deletes a key, or the keys up to `end`."""
        return Operation(
            kind=OperationKind.DELETE, key=self.key(name), end=self.key(end) if end else ""
        )

    def reading(self, name: str, end: str = "") -> Operation:
        """The operation that reads a key, or the keys up to `end`."""
        return Operation(
            kind=OperationKind.RANGE, key=self.key(name), end=self.key(end) if end else ""
        )

    async def get(self, name: str, revision: int = 0) -> Entry | None:
        """The entry of a key, None if there is none."""
        request = RangeRequest(start=self.key(name), revision=revision)
        entries = (await self.state.range(request)).entries
        return entries[0] if entries else None

    async def all(self, revision: int = 0) -> dict[str, bytes]:
        """The check's keys, without their prefix, and values."""
        request = RangeRequest(start=self.area, end=self.end, revision=revision)
        found = (await self.state.range(request)).entries
        return {entry.key.removeprefix(self.area): entry.value for entry in found}

    async def revision(self) -> int:
        """The store's revision."""
        return (await self.state.status()).revision

    def watching(self, revision: int = 0, *, previous: bool = False) -> WatchRequest:
        """A watch of the check's keys."""
        return WatchRequest(start=self.area, end=self.end, revision=revision, previous=previous)

    @asynccontextmanager
    async def watch(self, request: WatchRequest) -> AsyncIterator[AsyncIterator[WatchBatch]]:
        """A watch that is closed at the end."""
        async with aclosing(self.state.watch(request)) as batches:  # type: ignore[type-var]
            yield batches


async def next_batch(batches: AsyncIterator[WatchBatch]) -> WatchBatch:
    async with asyncio.timeout(PATIENCE):
        return await anext(batches)


async def next_events(batches: AsyncIterator[WatchBatch], count: int) -> list[WatchEvent]:
    found: list[WatchEvent] = []
    while len(found) < count:
        found += (await next_batch(batches)).events
    return found


def values_of(events: list[WatchEvent]) -> list[bytes]:
    return [event.entry.value for event in events]


async def wait_until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            while not await condition():  # noqa: ASYNC110 - a candidate has nothing to wait on
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"waited {PATIENCE} s in vain until {what}") from None
