"""Namespaces in advance: made together for those who wait together, more of them after a burst."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sagong_network_bridge.cells import MOST, Cell, Port
from sagong_network_bridge.pool import Pool

PORT = Port(network="n", bridge="b0", ifindex=7)


class FakeCells:
    """Counts what is built and let go; a bridge has so many places."""

    def __init__(self, places: int = 1000) -> None:
        self.places = places
        self.batches: list[int] = []
        self.gone: list[Cell] = []

    def build(self, port: Port | None, count: int = 1, *, resolver: bool) -> list[Cell]:
        self.batches.append(count)
        if sum(self.batches[:-1]) - len(self.gone) + count > self.places:
            self.batches[-1] = 0
            raise OSError(errno.EXFULL, "the bridge is full")
        return [Cell(Path(f"/pins/{len(self.batches)}-{n}"), port) for n in range(count)]

    def discard(self, cells: list[Cell]) -> None:
        self.gone += cells


async def run(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What is blocking elsewhere, a turn later."""
    await asyncio.sleep(0)
    return function(*arguments, **named)


@contextlib.asynccontextmanager
async def pool_of(
    cells: FakeCells, *, size: int = 2, most: int = 8, seconds: float = 60.0
) -> AsyncIterator[Pool]:
    """A pool whose background work runs."""
    log = logging.getLogger("pool")
    pool = Pool(cells, run, log, size=size, most=most, seconds=seconds)  # type: ignore[arg-type]
    refill = asyncio.create_task(pool.refill())
    try:
        yield pool
    finally:
        refill.cancel()
        await asyncio.gather(refill, return_exceptions=True)
        await pool.close()


def take(pool: Pool, count: int) -> Awaitable[list[Cell | BaseException]]:
    """So many at once."""
    wishes = (pool.take(PORT, resolver=False) for _ in range(count))
    return asyncio.gather(*wishes, return_exceptions=True)


async def wait_ready(pool: Pool, count: int) -> None:
    """Until so many are kept."""
    async with asyncio.timeout(60):
        while len(pool._wants["n"].ready) != count:
            await asyncio.sleep(0.01)


def test_who_waits_together_has_theirs_made_together() -> None:
    async def story() -> None:
        cells = FakeCells()
        async with pool_of(cells, size=0) as pool:
            taken = await take(pool, 2 * MOST)
            assert len({cell.pin for cell in taken if isinstance(cell, Cell)}) == 2 * MOST
            assert len(cells.batches) <= 3
            assert max(cells.batches) == MOST
            assert not pool._wants["n"].ready

    asyncio.run(story())


@pytest.mark.parametrize("places", [0, 3])
def test_one_that_fails_is_not_the_others_failure(places: int) -> None:
    async def story() -> None:
        async with pool_of(FakeCells(places), size=0) as pool:
            taken = await take(pool, 5)
            assert sum(isinstance(cell, Cell) for cell in taken) == places
            assert sum(isinstance(cell, OSError) for cell in taken) == 5 - places

    asyncio.run(story())


def test_after_a_burst_as_many_are_kept_up_to_the_most() -> None:
    async def story() -> None:
        cells = FakeCells()
        async with pool_of(cells) as pool:
            await take(pool, 1)
            await wait_ready(pool, 2)
            await take(pool, 6)
            await wait_ready(pool, 6)
            await take(pool, 20)
            await wait_ready(pool, 8)

    asyncio.run(story())


def test_what_a_burst_left_goes_while_some_are_used() -> None:
    async def story() -> None:
        cells = FakeCells()
        async with pool_of(cells, seconds=1.5) as pool:
            await take(pool, 8)
            await wait_ready(pool, 8)
            async with asyncio.timeout(60):
                while len(cells.gone) < 5:
                    await take(pool, 1)
                    await asyncio.sleep(0.1)
            await wait_ready(pool, 2)

    asyncio.run(story())


def test_a_full_bridge_is_not_asked_for_ever() -> None:
    async def story() -> None:
        cells = FakeCells(places=2)
        async with pool_of(cells) as pool:
            await take(pool, 1)
            await wait_ready(pool, 1)
            tried = len(cells.batches)
            await asyncio.sleep(0.3)
            assert len(cells.batches) <= tried + 2

    asyncio.run(story())


def test_who_gives_up_waiting_leaves_his_to_the_next() -> None:
    async def story() -> None:
        cells = FakeCells()
        async with pool_of(cells, size=0) as pool:
            first = asyncio.ensure_future(pool.take(PORT, resolver=False))
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            await asyncio.sleep(0.01)
            (kept,) = await take(pool, 1)
            assert isinstance(kept, Cell)
            assert len(cells.batches) == 1

    asyncio.run(story())


def test_who_waits_hears_of_a_defect_too() -> None:
    """He waited for ever; the error stood in the log as one that nobody had retrieved."""

    class Broken(FakeCells):
        def build(self, port: Port | None, count: int = 1, *, resolver: bool) -> list[Cell]:
            raise ValueError("a defect")

    async def story() -> None:
        async with asyncio.timeout(60), pool_of(Broken(), size=0) as pool:
            assert [str(error) for error in await take(pool, 3)] == ["a defect"] * 3

    asyncio.run(story())
