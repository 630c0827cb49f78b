"""Durable writes and reads of state_sqlite, as ratios to plain SQLite in the same run.

Run: PYTHONPATH=core:plugins python tests/bench/bench_state.py [DIRECTORY]
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sqlite3
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import uvloop

from sagong.contracts.state import Compare, Operation, OperationKind, RangeRequest, Transaction
from sagong.testing import local
from sagong_state_sqlite import StateSqlite

VALUE = os.urandom(5000)
WRITES = 6000
PLAIN_WRITES = 1000
IN_FLIGHT = 32
READS = 5000


def plain_writes_per_second(directory: Path) -> float:
    """One SQLite transaction per write, WAL and FULL: what a store without grouping does."""
    database = sqlite3.connect(directory / "plain.db", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB)")
    begun = time.perf_counter()
    for number in range(PLAIN_WRITES):
        database.execute("INSERT INTO entries VALUES (?, ?)", (f"pods/{number}", VALUE))
    seconds = time.perf_counter() - begun
    database.close()
    return PLAIN_WRITES / seconds


async def writes_per_second(state: StateSqlite, in_flight: int, writes: int) -> list[float]:
    """Creations, `in_flight` at once; the rate, then the median and the 99th percentile in ms."""
    numbers = iter(range(writes))
    took: list[float] = []

    async def work(numbers: Iterator[int]) -> None:
        for number in numbers:
            key = f"pods-{in_flight}/{number}"
            begun = time.perf_counter()
            put = Operation(kind=OperationKind.PUT, key=key, value=VALUE)
            compare = (Compare(key=key, revision=0),)
            await state.commit(Transaction(id=str(uuid.uuid4()), compare=compare, success=(put,)))
            took.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    await asyncio.gather(*(work(numbers) for _ in range(in_flight)))
    seconds = time.perf_counter() - begun
    took.sort()
    return [writes / seconds, took[writes // 2] * 1e3, took[writes * 99 // 100] * 1e3]


async def microseconds(call: Callable[[], Awaitable[object]], repeats: int) -> float:
    """Mean time of a call."""
    begun = time.perf_counter()
    for _ in itertools.repeat(None, repeats):
        await call()
    return (time.perf_counter() - begun) / repeats * 1e6


async def main(directory: Path) -> None:
    """Measure and print, one fact a line."""
    plain = plain_writes_per_second(directory)
    print(f"plain SQLite FULL, one write a transaction   {plain:8.0f}/s")
    async with local(StateSqlite, data=directory) as state:
        for in_flight in (1, 8, IN_FLIGHT, 128):
            rate, median, slow = await writes_per_second(state, in_flight, WRITES)
            print(
                f"{in_flight:3} in flight: {rate:8.0f}/s = {rate / plain:5.2f} of plain, "
                f"p50 {median:.2f} ms, p99 {slow:.2f} ms"
            )
        point = RangeRequest(start="pods-32/77")
        print(f"point read      {await microseconds(lambda: state.range(point), READS):8.1f} µs")
        page = RangeRequest(start="pods-32/", end="pods-320", limit=500)
        print(f"page of 500     {await microseconds(lambda: state.range(page), 20):8.0f} µs")
        whole = RangeRequest(start="pods-32/", end="pods-320")
        print(f"list of {WRITES}    {await microseconds(lambda: state.range(whole), 3):8.0f} µs")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else None) as made:
        uvloop.run(main(Path(made)))
