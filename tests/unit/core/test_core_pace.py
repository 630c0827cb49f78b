"""A pace: bursts, a rate after them, and each one's own."""

from __future__ import annotations

from sagong.pace import Pace


def taken(pace: Pace, who: str, now: float) -> int:
    count = 0
    while not pace.wait(who, now) and count < 1000:
        pace.take(who, now)
        count += 1
    return count


def test_a_burst_then_a_rate_of_each_ones_own() -> None:
    pace = Pace(burst=10, rate=5.0)
    assert taken(pace, "a", 100.0) == 10
    assert taken(pace, "a", 101.0) == 5
    assert taken(pace, "b", 101.0) == 10
    assert taken(pace, "a", 200.0) == 10


def test_what_is_given_back_may_be_taken_again() -> None:
    pace = Pace(burst=2, rate=0.1)
    pace.give_back("a")
    assert taken(pace, "a", 100.0) == 2
    pace.give_back("a")
    assert taken(pace, "a", 100.0) == 1


def test_turns_that_are_waited_for_follow_each_other() -> None:
    pace = Pace(burst=1, rate=2.0)
    waits = []
    for _ in range(4):
        waits.append(round(pace.wait("a", 7.0), 6))
        pace.take("a", 7.0)
    assert waits == [0.0, 0.5, 1.0, 1.5]


def test_somebody_else_begins_anew_and_the_quiet_are_forgotten() -> None:
    pace = Pace(burst=1, rate=1.0)
    pace.take("a", 0.0)
    assert pace.wait("a", 0.0)
    pace.forget("a")
    assert not pace.wait("a", 0.0)
    for number in range(10_000):
        pace.take(number, number * 2.0)
    assert len(pace._paid) <= 4096
