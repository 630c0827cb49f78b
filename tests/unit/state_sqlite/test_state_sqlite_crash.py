"""state_sqlite against kill -9 and against a full disk."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import small_disk as disks

from sagong.contracts.state import (
    CompactRequest,
    Lease,
    LeaseRef,
    Operation,
    OperationKind,
    RangeRequest,
    StateStatus,
    Transaction,
)
from sagong.errors import ResourceExhausted
from sagong.testing import local
from sagong_state_sqlite import StateSqlite

WRITER = textwrap.dedent("""
    import asyncio, os, sys
    from pathlib import Path
    from sagong.contracts.state import Operation, OperationKind, Transaction
    from sagong.testing import local
    from sagong_state_sqlite import StateSqlite

    async def main():
        async with local(StateSqlite, data=Path(sys.argv[1])) as state:
            async def work(worker):
                for number in range(10**9):
                    key = f"{sys.argv[2]}-{worker}-{number}"
                    pair = [
                        Operation(kind=OperationKind.PUT, key=f"{half}/{key}", value=key.encode())
                        for half in "ab"
                    ]
                    await state.commit(Transaction(id=key, success=tuple(pair)))
                    os.write(1, key.encode() + b"\\n")
            await asyncio.gather(*(work(n) for n in range(16)))

    asyncio.run(main())
""")


def acknowledged_until_killed(data: Path, name: str) -> list[str]:
    """Write as fast as it goes in another process, kill it in the middle; what it acknowledged."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(data), name],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            if len(lines) == 400:
                process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    return [line.decode().strip() for line in lines if line.endswith(b"\n")]


async def test_acknowledged_writes_survive_kill_nine(tmp_path: Path) -> None:
    for name in ("first", "second"):
        done = await asyncio.to_thread(acknowledged_until_killed, tmp_path, name)
        assert len(done) >= 400
        async with local(StateSqlite, data=tmp_path) as state:
            halves = [
                {
                    entry.value.decode()
                    for entry in (await state.range(RangeRequest(start=h, end=e))).entries
                }
                for h, e in (("a/", "a0"), ("b/", "b0"))
            ]
            assert halves[0] == halves[1], "a transaction was split"
            assert {*done} <= halves[0], "an acknowledged write is lost"
            again = Transaction(
                id=done[-1],
                success=(Operation(kind=OperationKind.PUT, key="again"),),
            )
            assert len((await state.commit(again)).results) == 2, "a repeat was done again"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    mount = tmp_path / "small"
    mount.mkdir()
    with disks.small_disk(mount, "4m"):
        yield mount


def put(key: str, size: int) -> Transaction:
    """A transaction that puts so many bytes."""
    operation = Operation(kind=OperationKind.PUT, key=key, value=os.urandom(size))
    return Transaction(id=str(uuid.uuid4()), success=(operation,))


async def fill(state: StateSqlite) -> int:
    """Write until the disk is full; how many writes it took."""
    for number in range(1000):
        try:
            await state.commit(put(f"fill-{number:04}", 20_000))
        except ResourceExhausted as error:
            assert "state.db" in error.message and "full" in error.message
            return number
    raise AssertionError("the disk is never full")


@pytest.mark.root
async def test_full_disk_refuses_writes_and_recovers(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1 << 20))
    async with local(StateSqlite, data=small_disk) as state:
        await state.grant(Lease(id="l", seconds=3.0))
        leased = Operation(kind=OperationKind.PUT, key="leased", lease="l")
        await state.commit(Transaction(id="leased", success=(leased,)))
        written = await fill(state)
        assert written > 10
        before = await state.status()
        with pytest.raises(ResourceExhausted):
            await state.commit(put("more", 500_000))
        assert same(await state.status(), before), "a refused write left something"
        everything = await state.range(RangeRequest(start="fill-", end="fill."))
        assert everything.count == written
        await asyncio.sleep(3.2)
        ballast.unlink()
        await state.commit(put("again", 20_000))
        async with asyncio.timeout(60):
            while (await state.range(RangeRequest(start="leased"))).count:
                await asyncio.sleep(0.05)
        status = await state.status()
        await state.compact(CompactRequest(revision=status.revision))
        await state.revoke(LeaseRef(id="l"))
    async with local(StateSqlite, data=small_disk) as state:
        assert (await state.range(RangeRequest(start="fill-", end="fill."))).count == written


def same(one: StateStatus, other: StateStatus) -> bool:
    """Whether nothing was written between; the log may have grown."""
    return (one.revision, one.keys) == (other.revision, other.keys)
