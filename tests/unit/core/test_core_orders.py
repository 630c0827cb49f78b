"""What is asked of a process, and what is made of its silence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sagong.contracts.kernel import Done, Order
from sagong.errors import FailedPrecondition, SagongError
from sagong.kernel import orders
from sagong.kernel.happenings import Drain, Drained, Failed, Started
from sagong.kernel.orders import Orders
from sagong.kernel.population import Process, Silent
from sagong.kernel.signs import Sign

SECOND = 1_000_000_000


class Asked:
    """A process that has started; `answers` are what it says how it is whenever time is over."""

    health = True
    held = False

    def __init__(self, answers: list[SagongError | None]) -> None:
        restart = SimpleNamespace(start_seconds=30.0, drain_seconds=10.0)
        self.unit = SimpleNamespace(name="u", manifest=SimpleNamespace(restart=restart))
        self.generation = 7
        self.record = SimpleNamespace(pid=1, bus="")
        self.answers = answers
        self.bounds: list[tuple[str, float]] = []

    async def carry_out(
        self, order: str, seconds: float, excused: Callable[[], bool] = lambda: False
    ) -> Done:
        self.bounds.append((order, seconds))
        while order != "start" and (answer := self.answers.pop(0)) is not None:
            if not isinstance(answer, Silent) or not excused():
                raise answer
        return Done(unit="u", generation=self.generation, order=1, state=b"kept")


def giver(told: list[object]) -> Orders:
    """Who gives orders, and tells what came of them."""

    async def gate(unit: object) -> None:
        pass

    population: Any = SimpleNamespace(order=lambda action, **_: action)
    cells: Any = SimpleNamespace(check_door=lambda unit, bus: None)
    return Orders(population, cells, {}, feed=lambda _, event: told.append(event), gate=gate)


async def started(process: Any) -> object:
    """What comes of its start."""
    told: list[object] = []
    await giver(told).start(process, b"")
    (event,) = told
    return event


async def drained(process: Any) -> Drained:
    """What comes of its drain."""
    told: list[object] = []
    await giver(told).drain(process, Drain(process.generation))
    (event,) = told
    assert isinstance(event, Drained)
    return event


@pytest.fixture
def signs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Sign]]:
    """What is seen of the process, one after the other."""
    seen: list[Sign] = []
    monkeypatch.setattr(orders, "sign", lambda pid: seen.pop(0))
    yield seen


async def test_a_start_has_as_long_as_the_manifest_says(signs: list[Sign]) -> None:
    signs += [Sign("S", 0, 0)]
    process = Asked([None])
    assert isinstance(await started(process), Started)
    assert process.bounds[0] == ("start", 30.0)


async def test_one_that_had_no_processor_time_is_asked_again(signs: list[Sign]) -> None:
    signs += [Sign("S", 0, 0), Sign("R", 0, 0), Sign("S", SECOND, 18 * SECOND)]
    process = Asked([Silent("late"), Silent("late"), None])
    assert isinstance(await started(process), Started)
    assert process.answers == []


async def test_one_that_waits_for_a_disk_is_asked_again(signs: list[Sign]) -> None:
    signs += [Sign("S", 0, 0), Sign("D", 0, 0)]
    assert isinstance(await started(Asked([Silent("late"), None])), Started)


async def test_one_that_is_silent_with_all_the_time_it_wants_does_not_start(
    signs: list[Sign],
) -> None:
    signs += [Sign("S", 0, 0), Sign("S", 0, 0)]
    event = await started(Asked([Silent("late"), None]))
    assert isinstance(event, Failed)
    assert event.error == "late"


async def test_one_that_says_what_is_wrong_does_not_start(signs: list[Sign]) -> None:
    signs += [Sign("S", 0, 0)]
    event = await started(Asked([FailedPrecondition("no"), None]))
    assert isinstance(event, Failed)


async def test_one_that_has_no_processor_time_to_drain_hands_over_its_state_later(
    signs: list[Sign],
) -> None:
    signs += [Sign("S", 0, 0), Sign("R", 0, 0)]
    event = await drained(Asked([Silent("late"), None]))
    assert event.state == b"kept"


async def test_one_that_does_not_drain_though_it_could_is_ended(
    signs: list[Sign], monkeypatch: pytest.MonkeyPatch
) -> None:
    signs += [Sign("S", 0, 0), Sign("S", 0, 0)]
    killed: list[Any] = []
    monkeypatch.setattr(orders, "kill", killed.append)
    process = Asked([Silent("late"), None])
    assert (await drained(process)).state == b""
    assert killed == [process]


async def test_one_that_is_held_back_has_no_more_time_to_drain(
    signs: list[Sign], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders, "kill", lambda process: None)
    process = Asked([Silent("late"), None])
    process.held = True
    assert (await drained(process)).state == b""
    assert process.bounds == [("drain", 10.0)]


async def test_who_is_excused_has_the_same_time_again_and_answers_the_same_order() -> None:
    record: Any = SimpleNamespace(generation=7)
    unit: Any = SimpleNamespace(name="u")
    process = Process(record, unit, pidfd=-1, state="")
    end = Done(unit="u", generation=7, order=1)
    asked = []

    def excused() -> bool:
        asked.append(dict(process.pending))
        if len(asked) == 3:
            process.done[1].set_result(end)
        return len(asked) < 4

    order = Order(id=1, action="drain")
    assert await process.carry_out(order, 0.01, excused) is end
    assert asked == [{1: order}] * 3
    with pytest.raises(Silent, match="u generation 7 did not answer"):
        await process.carry_out(order, 0.01, lambda: False)
