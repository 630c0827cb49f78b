"""A range of the state in memory: the newest is shown, whoever tells it and in whatever order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from tests.conformance.fake_state import Disk, FakeState

from sagong.contracts.state import (
    CompactRequest,
    Compare,
    Operation,
    OperationKind,
    RangeRequest,
    State,
    Transaction,
    TransactionResult,
    WatchBatch,
    WatchRequest,
)
from sagong.errors import Unavailable
from sagong.keyspace import Keyspace
from sagong.testing import awaited

LOG = logging.getLogger(__name__)


class Shown:
    """Records as they are told."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def clear(self) -> None:
        """See `Records`."""
        self.values.clear()

    def place(self, key: str, value: bytes, revision: int) -> None:
        """See `Records`."""
        self.values[key] = value

    def drop(self, key: str) -> None:
        """See `Records`."""
        self.values.pop(key, None)


class Slow(FakeState):
    """Answers to who puts something come when `answer` is set, batches of watches when `tell` is."""

    def __init__(self) -> None:
        super().__init__(Disk())
        self.done, self.answer, self.tell = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.answer.set()
        self.tell.set()
        self.cuts = 0

    async def commit(self, transaction: Transaction) -> TransactionResult:
        result = await super().commit(transaction)
        if any(operation.kind is OperationKind.PUT for operation in transaction.success):
            self.done.set()
            await self.answer.wait()
        return result

    async def watch(self, request: WatchRequest) -> AsyncIterator[WatchBatch]:
        if self.cuts:
            self.cuts -= 1
            raise Unavailable("the provider has ended")
        async for batch in super().watch(request):
            await self.tell.wait()
            yield batch


def put(key: str, value: bytes = b"1") -> Operation:
    """Write a key."""
    return Operation(kind=OperationKind.PUT, key=key, value=value)


def delete(key: str) -> Operation:
    """Remove one."""
    return Operation(kind=OperationKind.DELETE, key=key)


def keyspace(state: State) -> tuple[Keyspace, Shown]:
    """All keys below /a/."""
    shown = Shown()
    return Keyspace(state, start="/a/", end="/a0", records=shown), shown


@contextlib.asynccontextmanager
async def following(state: Slow) -> AsyncIterator[tuple[Keyspace, Shown]]:
    """The same, loaded and followed."""
    keys, shown = keyspace(awaited(State, state))
    await keys.load()
    task = asyncio.create_task(keys.follow(LOG))
    yield keys, shown
    task.cancel()


async def wait_shown(shown: Shown, **values: bytes) -> None:
    """Until these and no others are there."""
    async with asyncio.timeout(60):
        while shown.values != {f"/a/{name}": value for name, value in values.items()}:
            await asyncio.sleep(0.01)


async def test_own_writes_are_seen_at_once_and_others_soon() -> None:
    state = Slow()
    other, _ = keyspace(awaited(State, state))
    await other.commit([put("/a/old"), put("/b/x")])
    async with following(state) as (keys, shown):
        assert shown.values == {"/a/old": b"1"}
        assert await keys.commit([put("/a/own")])
        assert shown.values == {"/a/old": b"1", "/a/own": b"1"}
        assert not await keys.commit([put("/a/no")], [Compare(key="/a/own", revision=0)])
        await other.commit([put("/a/others"), delete("/a/old")])
        await wait_shown(shown, own=b"1", others=b"1")


async def test_a_late_answer_does_not_bring_back_what_others_removed() -> None:
    state = Slow()
    other, _ = keyspace(awaited(State, state))
    async with following(state) as (keys, shown):
        await keys.commit([put("/a/x")])
        state.done.clear()
        state.answer.clear()
        writing = asyncio.create_task(keys.commit([put("/a/x", b"2")]))
        await state.done.wait()
        await other.commit([delete("/a/x")])
        await wait_shown(shown)
        state.answer.set()
        assert await writing
        assert not shown.values


async def test_a_late_watch_changes_nothing_that_an_answer_or_a_read_told_better() -> None:
    state = Slow()
    other, _ = keyspace(awaited(State, state))
    async with following(state) as (keys, shown):
        state.tell.clear()
        await keys.commit([put("/a/x")])
        await keys.commit([put("/a/x", b"2")])
        await other.commit([put("/a/y"), put("/a/z")])
        await other.commit([delete("/a/y")])
        assert await keys.read("/a/y") is None
        assert await keys.read("/a/z") is not None
        seen = []
        place = shown.place
        shown.place = lambda *told: (seen.append(told[:2]), place(*told))  # type: ignore
        state.tell.set()
        await other.commit([put("/a/end")])
        await wait_shown(shown, x=b"2", z=b"1", end=b"1")
        assert seen == [("/a/end", b"1")]


async def test_where_history_is_gone_all_is_read_anew_and_own_writes_stay() -> None:
    state = Slow()
    other, _ = keyspace(awaited(State, state))
    async with following(state) as (keys, shown):
        await keys.commit([put("/a/gone"), put("/a/kept")])
        await wait_shown(shown, gone=b"1", kept=b"1")
    await other.commit([delete("/a/gone"), put("/a/new")])
    now = await state.range(RangeRequest(start="/a/kept"))
    await state.compact(CompactRequest(revision=now.revision))
    state.cuts = 1
    task = asyncio.create_task(keys.follow(LOG))
    await wait_shown(shown, kept=b"1", new=b"1")
    await other.commit([put("/a/later")])
    await wait_shown(shown, kept=b"1", new=b"1", later=b"1")
    task.cancel()
