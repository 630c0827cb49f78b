"""Units that come and go at the same time: neither waits for ever, none takes the other's place."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from tests.unit.core.life_world import unit

from sagong.errors import FailedPrecondition
from sagong.kernel import life
from sagong.kernel.enabling import enable
from sagong.kernel.happenings import Begin, Event, Leave
from sagong.kernel.life import Life
from sagong.kernel.units import Unit

UNIT = unit("a", overlap=True)


class Supervisor:
    """Lives and who listens to them; nothing is really started."""

    def __init__(self) -> None:
        self.units: dict[str, Unit] = {}
        self.lives: dict[str, Life] = {}
        self._heard: asyncio.Queue[Any] = asyncio.Queue()

    def add(self, unit: Unit) -> None:
        self.units[unit.name] = unit
        self.lives[unit.name] = Life(unit)
        self.feed(unit.name, Begin())

    def feed(self, name: str, event: Event) -> None:
        self.lives[name], actions = life.step(self.lives[name], event, 0.0, 1)
        self._heard.put_nowait((self.lives[name], actions))

    @contextlib.contextmanager
    def listening(self, name: str) -> Iterator[asyncio.Queue[Any]]:
        yield self._heard

    async def see_through(self, work: Coroutine[Any, Any, Any]) -> Any:
        return await work


async def enabled(supervisor: Supervisor) -> list[str]:
    fake: Any = supervisor
    return [step.text async for step in enable(fake, UNIT, lambda: None)]


async def test_one_that_is_taken_away_before_it_serves_keeps_nobody_waiting() -> None:
    supervisor = Supervisor()
    coming = asyncio.get_running_loop().create_task(enabled(supervisor))
    await asyncio.sleep(0.01)
    assert not coming.done() and supervisor.lives
    supervisor.feed(UNIT.name, Leave())
    with pytest.raises(FailedPrecondition, match="taken away before it served"):
        async with asyncio.timeout(60):
            await coming


async def test_one_whose_namesake_is_on_its_way_out_has_to_wait() -> None:
    """It took that one's life, which then ended it."""
    supervisor = Supervisor()
    supervisor.lives[UNIT.name] = Life(UNIT, leaving=True)
    with pytest.raises(FailedPrecondition, match="is being taken away"):
        async with asyncio.timeout(60):
            await enabled(supervisor)


def test_who_swaps_one_that_does_not_serve_is_told_the_way_to_another_plugin() -> None:
    """`restart` alone was named, which can't help where the plugin is not installed any more."""
    told = life.refusal(Life(UNIT, problem="No module named a"))
    assert "does not serve now (No module named a)" in told
    way = "`sagong disable --force {0}` and `sagong enable {0} --plugin PLUGIN`"
    assert way.format(UNIT.name) in told
