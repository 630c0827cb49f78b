"""Who computes, and how soon to look again: told by numbers alone."""

from __future__ import annotations

import pytest

from sagong.kernel.usage import SELDOM, Usage

EVERY = 0.05


def course(usage: Usage, shares: list[float], *, who: int = 1, begin: float = 100.0) -> list[bool]:
    """Whether one computes after each look, having used these parts of a core before it."""
    total, computes, found = 7.0, False, []
    usage.note(who, total)
    usage.settle(begin)
    for number, share in enumerate(shares, 1):
        total += share * EVERY
        usage.note(who, total)
        computes = usage.settle(begin + number * EVERY).get(who, computes)
        found.append(computes)
    return found


def test_who_uses_a_core_is_told_at_the_next_look_but_one_at_the_latest() -> None:
    assert course(Usage(), [0.5, 1.0, 1.0]) == [False, True, True]
    assert course(Usage(), [0.2, 0.8, 0.8, 1.0]) == [False, False, True, True]


def test_who_is_called_without_a_pause_does_not_compute() -> None:
    assert not any(course(Usage(), [0.5] * 200))


def test_a_moment_of_work_is_no_computing() -> None:
    assert not any(course(Usage(), [0.8, 0.0, 0.0, 0.1] * 20))


def test_what_was_used_before_it_was_known_does_not_count() -> None:
    assert course(Usage(), [0.0]) == [False]


def test_who_stops_is_as_the_others_again_in_two_seconds() -> None:
    found = course(Usage(), [1.0] * 100 + [0.0] * 41)
    assert found[99]
    assert not found[-1]


def test_who_computes_on_a_busy_machine_is_not_starved() -> None:
    """It has all of a core when it goes before others, and a tenth of one when it gives way."""
    usage, total, computes, now = Usage(), 0.0, False, 0.0
    usage.note(1, total)
    usage.settle(now)
    for number in range(1, 2001):
        total += (0.1 if computes else 1.0) * EVERY
        usage.note(1, total)
        now = number * EVERY
        computes = usage.settle(now).get(1, computes)
    assert total / now > 0.5


def test_a_pause_of_one_moment_is_no_end_of_computing() -> None:
    assert all(course(Usage(), [1.0] * 20 + [0.0, 1.0, 1.0] * 20)[20:])


@pytest.mark.parametrize(("share", "pause"), [(1.0, 0.05), (0.1, 0.1), (0.001, SELDOM)])
def test_the_more_is_done_the_sooner_it_is_looked_again(share: float, pause: float) -> None:
    usage = Usage()
    course(usage, [share] * 10)
    assert usage.pause == pause


def test_a_new_one_is_looked_at_soon() -> None:
    usage = Usage()
    course(usage, [0.0] * 10)
    usage.hasten()
    usage.settle(200.0)
    assert usage.pause < 0.2


def test_the_forgotten_are_no_more() -> None:
    usage = Usage()
    course(usage, [1.0] * 10)
    usage.keep({2})
    assert usage.settle(101.0) == {}
