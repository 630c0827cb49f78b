"""Durable writes and reads of state_sqlite beside etcd and plain SQLite, all on the same disk.

`tests/bench/run state [--directory DIR]`. Every write is on the disk before it is acknowledged. The
store runs in the caller's process here; etcd is asked through grpc.aio by messages packed by hand,
which is the least that a client in Python can cost.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import shutil
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import uvloop
from tests.bench import peers
from tests.bench.figures import Figure, report

from sagong.contracts.state import Compare, Operation, OperationKind, RangeRequest, Transaction
from sagong.testing import local
from sagong_state_sqlite import StateSqlite

VALUE = os.urandom(5000)
ROUNDS, WRITES, IN_FLIGHT = 5, 1500, 32
READS = 3000
Put = Callable[[str], Awaitable[object]]


def plain_rate(directory: Path) -> float:
    """Writes a second, one SQLite transaction each, WAL and FULL: a store without grouping."""
    path = directory / f"plain-{uuid.uuid4()}.db"
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB)")
    begun = time.perf_counter()
    for number in range(WRITES // 3):
        database.execute("INSERT INTO entries VALUES (?, ?)", (f"pods/{number}", VALUE))
    rate = WRITES / 3 / (time.perf_counter() - begun)
    database.close()
    return rate


def put_to(state: StateSqlite) -> Put:
    """A creation in our store."""

    def put(key: str) -> Awaitable[object]:
        operation = Operation(kind=OperationKind.PUT, key=key, value=VALUE)
        compare = (Compare(key=key, revision=0),)
        request = Transaction(id=str(uuid.uuid4()), compare=compare, success=(operation,))
        return state.commit(request)

    return put


def field(number: int, value: bytes) -> bytes:
    """A length-delimited protobuf field."""
    size, length = len(value), bytearray([number << 3 | 2])
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([*length, size]) + value


async def rate(put: Put, in_flight: int, writes: int = WRITES) -> float:
    """Writes a second, `in_flight` at once."""
    keys = iter([f"pods-{uuid.uuid4()}/{number}" for number in range(writes)])

    async def work() -> None:
        for key in keys:
            await put(key)

    begun = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    return writes / (time.perf_counter() - begun)


async def microseconds(call: Callable[[], Awaitable[object]], repeats: int) -> list[float]:
    """Mean times of a call in five series."""
    found = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        for _ in itertools.repeat(None, repeats):
            await call()
        found.append((time.perf_counter() - begun) / repeats * 1e6)
    return found


async def etcd_rates(url: str, state: StateSqlite) -> tuple[list[float], list[float]]:
    """Of our store and of etcd, taking turns."""
    import grpc

    ours, theirs = [], []
    async with grpc.aio.insecure_channel(urlsplit(url).netloc) as channel:
        method = channel.unary_unary("/etcdserverpb.KV/Put")

        async def put(key: str) -> bytes:
            found: bytes = await method(field(1, key.encode()) + field(2, VALUE))
            return found

        await rate(put, IN_FLIGHT, 200)
        for _ in range(ROUNDS):
            ours.append(await rate(put_to(state), IN_FLIGHT))
            theirs.append(await rate(put, IN_FLIGHT))
    return ours, theirs


async def beside_etcd(state: StateSqlite) -> list[Figure]:
    """Nothing if etcd or grpcio is not installed."""
    what = f"durable writes of 5 KB, {IN_FLIGHT} at once"
    try:
        import grpc  # noqa: F401
    except ImportError:
        print("grpcio is not installed (pip install grpcio): etcd left out")
        return []
    if not shutil.which("etcd"):
        print("etcd is not installed: left out")
        return []
    with peers.etcd() as url:
        ours, theirs = await etcd_rates(url, state)
    return [Figure(what=what, unit="/s", ours=ours, theirs=theirs, peer="etcd by grpc.aio")]


async def measure(directory: Path) -> list[Figure]:
    """All figures."""
    async with local(StateSqlite, data=directory) as state:
        put = put_to(state)
        figures = await beside_etcd(state)
        ours, plain = [], []
        for _ in range(ROUNDS):
            ours.append(await rate(put, IN_FLIGHT))
            plain.append(plain_rate(directory))
        peer = "SQLite FULL, one a transaction"
        what = f"durable writes of 5 KB, {IN_FLIGHT} at once"
        figures.append(Figure(what=what, unit="/s", ours=ours, theirs=plain, peer=peer))
        alone = [await rate(put, 1, WRITES // 3) for _ in range(ROUNDS)]
        figures.append(Figure(what="the same, one at a time", unit="/s", ours=alone))
        await rate(lambda key: put(f"read/{key.rpartition('/')[2]}"), IN_FLIGHT)
        point = RangeRequest(start="read/77")
        page = RangeRequest(start="read/", end="read0", limit=500)
        for name, request, repeats in (
            ("read of one key in the store", point, READS),
            ("page of 500 in the store", page, 10),
        ):
            values = await microseconds(partial(state.range, request), repeats)
            figures.append(Figure(what=name, unit="µs", ours=values))
    return figures


def main() -> None:
    """Measure on the disk of a directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", help="where the stores lie: the disk that is measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as made:
        report("state", uvloop.run(measure(Path(made))))


if __name__ == "__main__":
    main()
