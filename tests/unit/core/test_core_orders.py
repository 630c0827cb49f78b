"""What is asked of a process, and what is made of its silence."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sagong.errors import FailedPrecondition, SagongError
from sagong.kernel import orders
from sagong.kernel.happenings import Failed, Started
from sagong.kernel.orders import Orders
from sagong.kernel.population import Silent
from sagong.kernel.signs import Sign

SECOND = 1_000_000_000


class Asked:
    """A process that has started; `answers` are what becomes of each question how it is."""

    health = True

    def __init__(self, answers: list[SagongError | None]) -> None:
        restart = SimpleNamespace(start_seconds=30.0)
        self.unit = SimpleNamespace(name="u", manifest=SimpleNamespace(restart=restart))
        self.generation = 7
        self.record = SimpleNamespace(pid=1, bus="")
        self.answers = answers
        self.bounds: list[tuple[str, float]] = []

    async def carry_out(self, order: str, seconds: float) -> None:
        self.bounds.append((order, seconds))
        if order == "health" and (answer := self.answers.pop(0)) is not None:
            raise answer


async def started(process: Any) -> object:
    """What comes of its start."""
    told: list[object] = []

    async def gate(unit: object) -> None:
        pass

    population: Any = SimpleNamespace(order=lambda action, **_: action)
    cells: Any = SimpleNamespace(check_door=lambda unit, bus: None)
    made = Orders(population, cells, {}, feed=lambda _, event: told.append(event), gate=gate)
    await made.start(process, b"")
    (event,) = told
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
