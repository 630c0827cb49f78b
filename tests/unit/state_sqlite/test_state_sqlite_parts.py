"""Parts of state_sqlite alone: key ranges, the journal, writes under pressure, neighbours' failures."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagong.contracts.state import (
    Compare,
    Entry,
    Operation,
    OperationKind,
    RangeRequest,
    Transaction,
    WatchEvent,
    WatchRequest,
)
from sagong.errors import InvalidArgument, ResourceExhausted
from sagong.testing import local
from sagong_state_sqlite import StateSqlite
from sagong_state_sqlite.journal import Journal, Watcher
from sagong_state_sqlite.keys import bounds, covers

KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)
ENDS = st.one_of(st.just(""), st.just("\0"), KEYS)


@given(KEYS, ENDS, KEYS)
def test_bounds_say_what_covers_says(start: str, end: str, key: str) -> None:
    lower, upper = bounds(start, end)
    inside = lower.encode() <= key.encode()
    if isinstance(upper, str):
        inside = inside and key.encode() < upper.encode()
    assert inside == covers(start, end, key)


def event(key: str, revision: int, size: int = 0) -> WatchEvent:
    """A put."""
    value = bytes(size)
    return WatchEvent(
        entry=Entry(key=key, value=value, create_revision=1, revision=revision, version=1)
    )


def test_journal_keeps_to_its_budget() -> None:
    journal = Journal(10, budget=10_000)
    journal.publish([(n, (event("a", n, 1000),)) for n in range(11, 31)])
    assert journal.last == 30 and 20 < journal.before < 30
    assert journal.holds(journal.before) and not journal.holds(journal.before - 1)
    watcher = Watcher(WatchRequest(start="a"), position=journal.before)
    batch = journal.take(watcher)
    assert batch is not None and batch.revision == 30
    assert [e.entry.revision for e in batch.events] == [*range(journal.before + 1, 31)]


async def test_caught_up_watcher_moves_on_over_others_changes() -> None:
    journal = Journal(1, budget=2000)
    watcher = Watcher(WatchRequest(start="a"), position=1)
    waiting = asyncio.ensure_future(journal.wait_change(watcher, 0))
    await asyncio.sleep(0)
    journal.publish([(n, (event("b", n, 900),)) for n in range(2, 9)])
    await asyncio.sleep(0)
    assert watcher.position == 8 and not waiting.done()
    journal.publish([(9, (event("a", 9),))])
    journal.publish([(10, (event("b", 10),))])
    assert await waiting and watcher.position == 8
    batch = journal.take(watcher)
    assert batch is not None and [e.entry.revision for e in batch.events] == [9]


def put(key: str, value: bytes = b"", *, patience: float = 0.0) -> Transaction:
    """A transaction of one put."""
    operation = Operation(kind=OperationKind.PUT, key=key, value=value)
    return Transaction(id=str(uuid.uuid4()), success=(operation,), patience=patience)


async def test_too_many_waiting_bytes_are_refused(tmp_path: Path) -> None:
    async with local(StateSqlite, data=tmp_path, config={"waiting_bytes": 1 << 16}) as state:
        results = await asyncio.gather(
            *(state.commit(put(str(n), bytes(30_000))) for n in range(5)), return_exceptions=True
        )
        refused = [r for r in results if isinstance(r, ResourceExhausted)]
        assert len(refused) == 3
        await state.commit(put("big", bytes(1 << 20)))


async def test_a_patient_transaction_is_written_with_the_next(tmp_path: Path) -> None:
    """Or alone, when its patience is at its end."""
    async with local(StateSqlite, data=tmp_path) as state:
        patient = asyncio.ensure_future(state.commit(put("a", patience=1.0)))
        await asyncio.sleep(0.1)
        assert not patient.done()
        last = await state.commit(put("b"))
        assert patient.done() and patient.result().revision == last.revision - 1
        await state.commit(put("c", patience=0.05))


async def test_batch_is_done_though_one_of_it_fails(tmp_path: Path) -> None:
    """A job that SQLite refuses is rolled back alone: a key too long for its limits."""
    async with local(StateSqlite, data=tmp_path) as state:
        huge = put("huge", bytes(1_000_000_001))
        results = await asyncio.gather(
            *(state.commit(put(str(n))) for n in range(3)),
            state.commit(huge),
            *(state.commit(put(str(n))) for n in range(3, 6)),
            return_exceptions=True,
        )
        assert [isinstance(r, Exception) for r in results] == [False] * 3 + [True] + [False] * 3
        found = await state.range(RangeRequest(start="0", end=":"))
        assert found.count == 6
        revisions = sorted(entry.revision for entry in found.entries)
        assert revisions == [*range(2, 8)]


@pytest.mark.parametrize(
    "transaction",
    [
        Transaction(id=""),
        Transaction(id="x", compare=(Compare(key="a", revision=-1),)),
        Transaction(id="x", success=(Operation(kind=OperationKind.PUT, key="a", end="b"),)),
        Transaction(id="x", success=(Operation(kind=OperationKind.PUT, key="\ud800"),)),
        Transaction(id="x", patience=-0.1),
        Transaction(id="x", patience=60.0),
        Transaction(id="x", patience=float("nan")),
    ],
    ids=[
        "no id",
        "negative revision",
        "put of a range",
        "surrogate",
        "negative patience",
        "long patience",
        "no number",
    ],
)
async def test_wrong_transactions_are_refused(tmp_path: Path, transaction: Transaction) -> None:
    async with local(StateSqlite, data=tmp_path) as state:
        with pytest.raises(InvalidArgument):
            await state.commit(transaction)


async def test_answers_older_than_ten_minutes_are_forgotten(tmp_path: Path) -> None:
    async with local(StateSqlite, data=tmp_path) as state:
        for number in range(1200):
            if number % 3 == 0:
                await state.commit(put(str(number)))
        store = state._store
        assert store is not None
        assert await store._forget(600.0)
        assert not await store._forget(-1.0)


async def test_nul_characters_in_keys_are_kept(tmp_path: Path) -> None:
    async with local(StateSqlite, data=tmp_path) as state:
        for key in ("a", "a\0", "a\0b", "aa"):
            await state.commit(put(key, key.encode()))
        found = await state.range(RangeRequest(start="a\0", end="aa"))
        assert [entry.key for entry in found.entries] == ["a\0", "a\0b"]
