"""state_sqlite does what a store of a few lines does, whatever the order of what it is asked."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import cast

import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conformance.fake_state import Disk, FakeState

from sagong.contracts.state import (
    CompactRequest,
    Compare,
    Operation,
    OperationKind,
    RangeRequest,
    State,
    Transaction,
    WatchBatch,
    WatchEvent,
    WatchRequest,
)
from sagong.errors import SagongError
from sagong.testing import local
from sagong_state_sqlite import StateSqlite

KEYS = st.sampled_from(["a", "b", "ba", "c", "d"])
ENDS = st.sampled_from(["", "", "c", "e", "\0"])
BACK = st.integers(0, 12)

PUT = st.builds(Operation, kind=st.just(OperationKind.PUT), key=KEYS, value=st.binary(max_size=3))
OTHER = st.builds(
    Operation,
    kind=st.sampled_from([OperationKind.DELETE, OperationKind.DELETE, OperationKind.RANGE]),
    key=KEYS,
    end=ENDS,
)
BRANCH = st.lists(st.one_of(PUT, PUT, OTHER), max_size=4).map(tuple)
COMMIT = st.tuples(st.just("commit"), st.lists(st.tuples(KEYS, BACK), max_size=1), BRANCH, BRANCH)
RANGE = st.tuples(st.just("range"), KEYS, ENDS, BACK, st.integers(0, 3))
COMPACT = st.tuples(st.just("compact"), BACK)
STEPS = st.lists(st.one_of(COMMIT, COMMIT, COMMIT, RANGE, RANGE, COMPACT), max_size=40)


async def outcome(state: State, step: tuple[object, ...], number: int, now: int) -> object:
    """What a store answers to a step, or how it refuses."""
    try:
        match step:
            case ("commit", compares, success, failure):
                pairs = cast("list[tuple[str, int]]", compares)
                transaction = Transaction(
                    id=f"t{number}",
                    compare=tuple(Compare(key=k, revision=max(0, now - b)) for k, b in pairs),
                    success=cast("tuple[Operation, ...]", success),
                    failure=cast("tuple[Operation, ...]", failure),
                )
                return await state.commit(transaction)
            case ("range", str(start), str(end), int(back), int(limit)):
                revision = max(1, now - back) if back else 0
                return await state.range(
                    RangeRequest(start=start, end=end, revision=revision, limit=limit)
                )
            case ("compact", int(back)):
                status = await state.compact(CompactRequest(revision=max(0, now - back)))
                return status.revision, status.compacted, status.keys
    except SagongError as error:
        return type(error)
    raise AssertionError(f"unknown step {step}")


async def changes(state: State, after: int, until: int) -> list[WatchEvent]:
    """All changes of `(after, until]`, with what they replaced."""
    found: list[WatchEvent] = []
    request = WatchRequest(start="", end="\0", revision=after, previous=True)
    watch = cast("AsyncGenerator[WatchBatch, None]", state.watch(request))
    async with aclosing(watch) as batches:
        async for batch in batches:
            found += batch.events
            if batch.revision >= until:
                return found
    return found


async def compare_stores(steps: list[tuple[object, ...]], directory: Path) -> None:
    """Ask both the same."""
    fake = FakeState(Disk())
    config = {"recent_bytes": 1 << 16}
    async with local(StateSqlite, data=directory, config=config) as real:
        for number, step in enumerate(steps):
            now = fake.disk.revision
            expected = await outcome(fake, step, number, now)
            assert await outcome(real, step, number, now) == expected, step
    # Started again, its journal is empty: the changes come from the file.
    async with local(StateSqlite, data=directory, config=config) as real:
        for number, step in enumerate(steps):
            if step[0] == "range":
                now = fake.disk.revision
                assert await outcome(real, step, number, now) == await outcome(
                    fake, step, number, now
                )
        compacted = fake.disk.compacted
        if compacted < fake.disk.revision:
            last = fake.disk.revision
            assert await changes(real, compacted, last) == await changes(fake, compacted, last)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_store_answers_as_its_model(steps: list[tuple[object, ...]]) -> None:
    with tempfile.TemporaryDirectory(prefix="sagong-state-") as directory:
        uvloop.run(compare_stores(steps, Path(directory)))
