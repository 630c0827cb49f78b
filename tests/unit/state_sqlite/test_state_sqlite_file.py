"""The file of state_sqlite: damage, foreign files, restoring, hand-over, what an idle store does."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import uuid
from contextlib import aclosing
from pathlib import Path

import pytest

from sagong.contracts.state import (
    CompactRequest,
    Entry,
    Lease,
    LeaseRef,
    Operation,
    OperationKind,
    RangeRequest,
    Transaction,
    WatchRequest,
)
from sagong.errors import FailedPrecondition, Gone, InvalidArgument, SagongError, Unavailable
from sagong.testing import LocalHost, local
from sagong_state_sqlite import StateSqlite
from sagong_state_sqlite.database import RESTORE_STEP


async def put(state: StateSqlite, key: str, value: bytes = b"", lease: str = "") -> int:
    """Put one key; the revision."""
    operation = Operation(kind=OperationKind.PUT, key=key, value=value, lease=lease)
    transaction = Transaction(id=str(uuid.uuid4()), success=(operation,))
    return (await state.commit(transaction)).revision


async def get(state: StateSqlite, key: str) -> Entry | None:
    """The entry of a key."""
    entries = (await state.range(RangeRequest(start=key))).entries
    return entries[0] if entries else None


def plugin(data: Path) -> StateSqlite:
    """A generation of the plugin that the test starts and stops."""
    return StateSqlite(LocalHost("state-local", data=data, run=data))


async def test_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(os.urandom(8192))
    with pytest.raises(FailedPrecondition) as caught:
        await plugin(tmp_path).start()
    assert str(path) in caught.value.message and ".restore" in caught.value.message


async def test_damage_inside_is_named(tmp_path: Path) -> None:
    async with local(StateSqlite, data=tmp_path) as state:
        for number in range(300):
            await put(state, f"k{number:04}", os.urandom(3000))
    path = tmp_path / "state.db"
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    with pytest.raises(FailedPrecondition, match="damaged"):
        async with local(StateSqlite, data=tmp_path) as state:
            await state.range(RangeRequest(start="", end="\0"))


async def test_foreign_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as foreign:
        foreign.execute("CREATE TABLE mine (x)")
    foreign.close()
    with pytest.raises(FailedPrecondition, match=r"no store of state_sqlite"):
        await plugin(tmp_path).start()


async def test_newer_format_is_refused(tmp_path: Path) -> None:
    async with local(StateSqlite, data=tmp_path):
        pass
    with sqlite3.connect(tmp_path / "state.db") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(FailedPrecondition, match="format 99"):
        await plugin(tmp_path).start()


async def test_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(SagongError, match="absent"):
        await plugin(tmp_path / "absent").start()


@pytest.mark.parametrize(
    "config",
    [{"file": "a/b"}, {"file": ""}, {"history_seconds": -1}, {"recent_bytes": 1}, {"unknown": 1}],
    ids=str,
)
def test_bad_configuration_is_refused(tmp_path: Path, config: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        StateSqlite(LocalHost("state-local", data=tmp_path, run=tmp_path, config=config))


async def test_two_stores_from_one_package(tmp_path: Path) -> None:
    async with (
        local(StateSqlite, data=tmp_path, config={"file": "local.db"}) as one,
        local(StateSqlite, data=tmp_path, config={"file": "cluster.db"}) as two,
    ):
        await put(one, "a", b"one")
        assert await get(two, "a") is None


async def test_restored_snapshot_replaces_the_store(tmp_path: Path) -> None:
    async with local(StateSqlite, data=tmp_path) as state:
        await put(state, "a", b"1")
        snapshot = b"".join([chunk.data async for chunk in state.snapshot()])
        seen = await put(state, "a", b"2")
    (tmp_path / "state.db.restore").write_bytes(snapshot)
    async with local(StateSqlite, data=tmp_path) as state:
        entry = await get(state, "a")
        assert entry is not None and entry.value == b"1"
        assert await put(state, "b") == RESTORE_STEP + seen
        with pytest.raises(Gone):
            async with aclosing(state.watch(WatchRequest(start="a", revision=seen))) as batches:
                await anext(batches)
    assert (tmp_path / "state.db.replaced").exists()
    assert not (tmp_path / "state.db.restore").exists()


async def test_damaged_snapshot_replaces_nothing(tmp_path: Path) -> None:
    async with local(StateSqlite, data=tmp_path) as state:
        await put(state, "a", b"1")
    (tmp_path / "state.db.restore").write_bytes(os.urandom(5000))
    with pytest.raises(FailedPrecondition, match="restore"):
        await plugin(tmp_path).start()
    for left in tmp_path.glob("state.db.restore*"):
        left.unlink()
    async with local(StateSqlite, data=tmp_path) as state:
        assert await get(state, "a") is not None


async def test_snapshot_leaves_no_files(tmp_path: Path) -> None:
    (tmp_path / "state.db.snapshot-left-by-a-crash").write_bytes(b"x")
    async with local(StateSqlite, data=tmp_path) as state:
        async with aclosing(state.snapshot()) as chunks:
            first = await anext(chunks)
        assert 0 < len(first.data) <= 256 << 10
        assert not [*tmp_path.glob("*.snapshot-*")]


async def test_successor_takes_over_with_remaining_times(tmp_path: Path) -> None:
    old, new = plugin(tmp_path), plugin(tmp_path)
    await old.start()
    await old.grant(Lease(id="short", seconds=60))
    await old.grant(Lease(id="long", seconds=60))
    await put(old, "a", lease="short")
    await new.start()
    with pytest.raises(Unavailable, match="another process"):
        await get(new, "a")
    state = await old.export()
    await new.restore(state.replace(b"short", b"shorT"))
    try:
        assert {lease.id for lease in (await new.leases()).leases} == {"short", "long"}
        assert await get(new, "a") is not None
    finally:
        await old.stop()
        await new.stop()
    with pytest.raises(Unavailable):
        await get(new, "a")


async def test_lease_ends_in_the_successor_when_it_would_have(tmp_path: Path) -> None:
    old = plugin(tmp_path)
    await old.start()
    await old.grant(Lease(id="l", seconds=2.0))
    await put(old, "a", lease="l")
    for _ in range(3):
        await asyncio.sleep(0.1)
        state = await old.export()
        await old.stop()
        old = plugin(tmp_path)
        await old.restore(state)
    try:
        async with asyncio.timeout(60):
            while await get(old, "a"):
                await asyncio.sleep(0.02)
    finally:
        await old.stop()


async def test_watch_ends_when_the_store_is_handed_over(tmp_path: Path) -> None:
    state = plugin(tmp_path)
    await state.start()
    async with aclosing(state.watch(WatchRequest(start="a"))) as batches:
        await anext(batches)
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0.01)
        await state.stop()
        with pytest.raises(Unavailable):
            await waiting


async def test_idle_store_neither_writes_nor_wakes(tmp_path: Path) -> None:
    async with local(StateSqlite, data=tmp_path, config={"history_seconds": 0.05}) as state:
        await put(state, "a")
        await put(state, "a")
        await state.grant(Lease(id="l", seconds=600, volatile=True))
        store = state._store
        assert store is not None
        async with asyncio.timeout(60):
            while [*store._housekeeping._timers] != ["forget"] or store._housekeeping._running:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
        before = written(tmp_path)
        for _ in range(20):
            await state.renew(LeaseRef(id="l"))
            await asyncio.sleep(0.01)
        assert written(tmp_path) == before
        assert [*store._housekeeping._timers] == ["forget"]


def written(directory: Path) -> dict[str, tuple[int, int]]:
    """Sizes and times of change of all files."""
    return {
        path.name: (path.stat().st_size, path.stat().st_mtime_ns)
        for path in directory.iterdir()
        if not path.name.endswith("-shm")
    }


async def test_history_is_compacted_by_age(tmp_path: Path) -> None:
    async with local(StateSqlite, data=tmp_path, config={"history_seconds": 0.1}) as state:
        first = await put(state, "a", b"1")
        for number in range(1200):
            await put(state, "a", b"%d" % number) if number % 400 == 0 else None
        await state.compact(CompactRequest(revision=first))
        async with asyncio.timeout(60):
            while (await state.status()).compacted < (await state.status()).revision:
                await asyncio.sleep(0.02)
        with pytest.raises(Gone):
            await state.range(RangeRequest(start="a", revision=first))


async def test_processes_that_never_live_long_compact_all_the_same(tmp_path: Path) -> None:
    first = 0
    for number in range(6):
        async with local(StateSqlite, data=tmp_path, config={"history_seconds": 0.6}) as state:
            first = first or await put(state, "a", b"0")
            await put(state, "a", b"%d" % number)
            await asyncio.sleep(0.2)
            compacted = (await state.status()).compacted
    assert compacted >= first


async def test_what_grows_too_much_is_compacted_before_its_time(tmp_path: Path) -> None:
    settings = {"history_seconds": 60, "history_bytes": 1 << 20}
    async with local(StateSqlite, data=tmp_path, config=settings) as state:
        await put(state, "a")
        for number in range(400):
            last = await put(state, "a", bytes([number % 256]) * 20_000)
            await asyncio.sleep(0.005)
        async with asyncio.timeout(60):
            while (await state.status()).compacted <= 1:
                await asyncio.sleep(0.02)
        read = await state.range(RangeRequest(start="a", revision=last - 1))
        assert read.entries[0].revision == last - 1


async def test_a_file_without_the_table_of_what_is_due_is_taken(tmp_path: Path) -> None:
    async with local(StateSqlite, data=tmp_path) as state:
        await put(state, "a")
    database = sqlite3.connect(tmp_path / "state.db")
    database.execute("DROP TABLE due")
    database.close()
    async with local(StateSqlite, data=tmp_path) as state:
        assert await put(state, "a") > 1


async def test_compaction_leaves_one_row_per_key(tmp_path: Path) -> None:
    async with local(StateSqlite, data=tmp_path) as state:
        for number in range(700):
            await put(state, f"k{number % 7}", b"%d" % number)
        delete = Operation(kind=OperationKind.DELETE, key="k0", end="k3")
        await state.commit(Transaction(id="d", success=(delete,)))
        now = await put(state, "last")
        await state.compact(CompactRequest(revision=now))
    database = sqlite3.connect(tmp_path / "state.db")
    for table in ("history", "entries"):
        keys = [key for (key,) in database.execute(f"SELECT key FROM {table} ORDER BY key")]
        assert keys == ["k3", "k4", "k5", "k6", "last"]
    database.close()
