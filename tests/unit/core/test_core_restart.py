"""`sagong restart` of a unit that does not serve: it tells what became of an attempt of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from tests.unit.core.life_world import unit

from sagong.errors import FailedPrecondition
from sagong.kernel.happenings import Begin, Event, Failed, Launched, Started
from sagong.kernel.life import Life, step
from sagong.kernel.swap import restart

NAME = "scheduler"


class Kernel:
    """One unit's life, and who listens; attempts end as they are told to."""

    def __init__(self) -> None:
        self.unit = unit("first", overlap=True)
        self.lives = {NAME: Life(self.unit)}
        self._told: asyncio.Queue[Any] = asyncio.Queue()
        self._fresh = 0

    @contextlib.contextmanager
    def listening(self, name: str) -> Iterator[asyncio.Queue[Any]]:
        yield self._told

    def feed(self, name: str, event: Event) -> None:
        self._fresh += 1
        self.lives[name], actions = step(self.lives[name], event, 1000.0, self._fresh)
        self._told.put_nowait((self.lives[name], actions))

    @property
    def coming(self) -> int:
        found = self.lives[NAME].coming
        return found.generation if found is not None else 0

    async def restarting(self) -> asyncio.Task[None]:
        """A restart that has begun."""
        kernel: Any = self
        task = asyncio.create_task(restart(kernel, self.unit))
        await asyncio.sleep(0)
        return task


async def test_an_attempt_that_began_before_it_is_followed_by_one_of_its_own() -> None:
    kernel = Kernel()
    kernel.feed(NAME, Begin())
    before, task = kernel.coming, await kernel.restarting()
    assert kernel.coming == before
    kernel.feed(NAME, Failed(before, "too much on the disk"))
    await asyncio.sleep(0)
    assert not task.done()
    assert kernel.coming > before
    kernel.feed(NAME, Launched(kernel.coming))
    kernel.feed(NAME, Started(kernel.coming))
    await task


async def test_the_failure_of_its_own_attempt_is_told() -> None:
    kernel = Kernel()
    kernel.feed(NAME, Begin())
    kernel.feed(NAME, Failed(kernel.coming, "too much on the disk"))
    task = await kernel.restarting()
    assert kernel.coming
    kernel.feed(NAME, Failed(kernel.coming, "still too much"))
    with pytest.raises(FailedPrecondition, match="does not serve: still too much"):
        await task
