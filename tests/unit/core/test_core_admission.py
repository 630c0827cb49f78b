"""How long a uid that floods is shut out."""

from __future__ import annotations

import logging

import pytest

from sagong.bus import admission, terms
from sagong.bus.admission import Admission
from sagong.bus.refusals import Refusals
from sagong.errors import ResourceExhausted
from sagong.pace import Pace


class Clock:
    """A time that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(admission, "time", made)
    monkeypatch.setattr(terms, "time", made)
    return made


def term(gate: Admission, clock: Clock, uid: int = 7) -> float:
    """It is shut out; for how long."""
    gate.shut_out(uid, "mallory", "it floods")
    began = clock.now
    while gate.shuts_out(uid):
        clock.now += 0.5
    return clock.now - began


async def test_who_floods_again_at_once_is_shut_out_for_longer(clock: Clock) -> None:
    gate = Admission({0}, Refusals(logging.getLogger("test")), str)
    assert [term(gate, clock) for _ in range(6)] == [1.0, 2.0, 4.0, 8.0, 16.0, 16.0]
    assert term(gate, clock, uid=8) == 1.0
    clock.now += 31.0
    assert term(gate, clock) == 1.0


async def test_another_process_of_the_uid_begins_anew(clock: Clock) -> None:
    gate = Admission({0}, Refusals(logging.getLogger("test")), str)
    gate.shut_out(7, "mallory", "it floods")
    gate.forgive(7)
    assert not gate.shuts_out(7)
    assert term(gate, clock) == 1.0


async def test_the_trusted_never_are(clock: Clock) -> None:
    gate = Admission({0}, Refusals(logging.getLogger("test")), str)
    gate.shut_out(0, "root", "it floods")
    assert not gate.shuts_out(0)


async def test_whoever_wants_to_know_hears_of_each_term(clock: Clock) -> None:
    heard: list[tuple[int, float]] = []
    gate = Admission({0}, Refusals(logging.getLogger("test")), str, lambda *f: heard.append(f))
    for _ in range(2):
        gate.shut_out(7, "mallory", "it floods")
        gate.shut_out(7, "mallory", "it floods")  # what it had sent before
        clock.now += 5.0
    assert heard == [(7, 1.0), (7, 2.0)]


async def test_connections_of_a_uid_are_bounded_by_the_second_too(clock: Clock) -> None:
    gate = Admission({0}, Refusals(logging.getLogger("test")), str)
    assert sum(gate.connects(7) for _ in range(200)) == 128
    clock.now += 1.0
    assert sum(gate.connects(7) for _ in range(200)) == 32
    assert gate.connects(8)
    gate.forgive(7)
    assert gate.connects(7)


async def test_connections_again_and_again_are_a_flood(clock: Clock) -> None:
    gate = Admission({0}, Refusals(logging.getLogger("test")), str)
    for _ in range(admission.STRIKES):
        if not gate.connects(7):
            gate.turned_away(7)
    assert gate.shuts_out(7)


async def test_granted_calls_have_a_pace_where_nobody_needs_many(clock: Clock) -> None:
    pace = Pace(burst=3, rate=2.0)
    gate = Admission({0}, Refusals(logging.getLogger("test")), str, calls=pace)
    for _ in range(3):
        gate.check_pace(7)
    with pytest.raises(ResourceExhausted, match="2 calls a second"):
        gate.check_pace(7)
    gate.check_pace(8)
    clock.now += 0.5
    gate.check_pace(7)
    gate.forgive(7)
    gate.check_pace(7)
