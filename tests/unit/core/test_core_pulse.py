"""Who is taken for hung, and who only had no chance to answer."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from sagong.errors import SagongError
from sagong.kernel.happenings import Ill
from sagong.kernel.population import Silent
from sagong.kernel.pulse import Pulse
from sagong.kernel.signs import Sign, may_not, stands_still, starves
from sagong.linux.process import status_facts

SECOND = 1_000_000_000


@dataclass
class Asked:
    """A process that serves; `answers` are what becomes of each order, the last one for ever."""

    pid: int
    answers: list[SagongError | None]
    clock: Clock
    takes: float = 1.0
    held: bool = False
    generation: int = 7
    orders: int = 0
    attended: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.unit = SimpleNamespace(name="u")
        self.record = SimpleNamespace(pid=self.pid)
        self.attended.set()

    async def carry_out(self, order: str, seconds: float) -> None:
        self.orders += 1
        await asyncio.sleep(0.002)
        self.clock.now += self.takes
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            raise answer


@dataclass
class Clock:
    """Seconds."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    """Fakes of population, control groups and lives around one process."""

    process: Asked
    stands: bool = False
    told: list[Any] = field(default_factory=list)

    def __iter__(self) -> Iterator[Asked]:
        return iter([self.process])

    def order(self, action: str) -> str:
        return action

    def frozen(self, unit: object, generation: int) -> bool:
        return self.stands

    async def watched(
        self, seconds: float, patience: float = 0.01, until: Callable[[], bool] = lambda: True
    ) -> list[Any]:
        """What was told of it meanwhile, and then for so long."""
        fakes: Any = self
        lives: Any = {"u": SimpleNamespace(serving=7)}

        def feed(name: str, event: object) -> None:
            self.told.append(event)
            lives["u"].serving = 0

        clock = self.process.clock
        pulse = Pulse(fakes, lives, fakes, feed, patience=patience, clock=clock)
        task = asyncio.create_task(pulse.watch())
        async with asyncio.timeout(60):
            while not until():
                await asyncio.sleep(0.002)
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return self.told


@pytest.fixture
def child() -> Iterator[int]:
    with subprocess.Popen(["/bin/sleep", "600"]) as made:
        yield made.pid
        made.kill()


async def test_one_that_is_silent_is_told_of_once(child: int) -> None:
    os.kill(child, signal.SIGSTOP)
    async with asyncio.timeout(60):
        while status_facts(child).state != "T":  # it stops when it gets a core
            await asyncio.sleep(0.002)
    world = World(Asked(child, [Silent("x")], Clock()))
    (told,) = await world.watched(0.1, until=lambda: bool(world.told))
    assert isinstance(told, Ill)
    assert (told.generation, told.hung) == (7, True)
    assert "did not answer for 1 s: it is stopped" in told.error


async def test_one_that_answers_whatever_it_says_is_asked_again(child: int) -> None:
    asked = Asked(child, [None, SagongError("no")], Clock())
    assert await World(asked).watched(0.1, until=lambda: asked.orders > 2) == []


async def test_one_that_had_no_chance_is_not_ended_for_it(child: int) -> None:
    asked = Asked(child, [Silent("x")], Clock(), held=True)
    assert await World(asked).watched(0.1) == []
    assert await World(Asked(child, [Silent("x")], Clock()), stands=True).watched(0.1) == []


async def test_the_kernels_own_absence_is_nobodys_silence(child: int) -> None:
    asked = Asked(child, [Silent("x"), None], Clock(), takes=60.0)
    assert await World(asked).watched(0.1, until=lambda: asked.orders > 1) == []


async def test_patience_may_be_without_end(child: int) -> None:
    asked = Asked(child, [Silent("x")], Clock())
    assert await World(asked).watched(0.1, patience=0.0) == []
    assert asked.orders == 0


@pytest.mark.parametrize(
    ("state", "ran", "waited", "hungry"),
    [
        ("S", 0.0, 0.0, False),  # it sleeps
        ("T", 0.0, 0.0, False),  # it is stopped
        ("S", 0.1, 15.0, True),  # others had the cores
        ("R", 0.0, 0.0, True),  # others have had them all the time, which is counted later
        ("R", 3.0, 15.0, False),  # it had enough of them all the same
        ("R", 19.0, 0.5, False),  # it never comes back to its loop
    ],
)
def test_who_had_no_processor_time_starves(
    state: str, ran: float, waited: float, *, hungry: bool
) -> None:
    before = Sign("S", 5 * SECOND, 7 * SECOND)
    now = Sign(state, before.ran + int(ran * SECOND), before.waited + int(waited * SECOND))
    assert starves(before, now, 20.0) is hungry


@pytest.mark.parametrize(("state", "still"), [("S", True), ("T", True), ("R", False)])
def test_who_waits_for_a_core_does_not_stand_still(state: str, *, still: bool) -> None:
    assert stands_still(Sign("S", SECOND, SECOND), Sign(state, SECOND, SECOND), 20.0) is still


def test_who_is_made_to_stand_still_may_not_answer() -> None:
    assert may_not(Sign("t", 0, 0, traced=True))
    assert may_not(Sign("S", 0, 0, frozen=True))
    assert may_not(Sign("D", 0, 0))
    assert not may_not(Sign("T", 0, 0))
