"""Who computes, and how soon to look again: told by numbers alone."""

from __future__ import annotations

import pytest

from sagong.kernel.usage import SELDOM, Stance, Usage

EVERY = 0.05


def course(usage: Usage, shares: list[float], *, who: int = 1, begin: float = 100.0) -> list[bool]:
    """Whether one computes after each look, having used these parts of a core before it."""
    total, computes, found = 7.0, False, []
    usage.note(who, total)
    usage.settle(begin)
    for number, share in enumerate(shares, 1):
        total += share * EVERY
        usage.note(who, total)
        computes = usage.settle(begin + number * EVERY).get(who, Stance(computes)).computes
        found.append(computes)
    return found


def beside_others(shares: list[float], awake: list[float], *, who: int = 1) -> list[Stance]:
    """The stance after each look of one that had these parts of a core, and ran or waited so long."""
    usage, total, spent, stance, found = Usage(), 7.0, 0, Stance(), []
    usage.note(who, total)
    usage.settle(100.0, {who: {40: 0, 41: 0}})
    for number, (share, part) in enumerate(zip(shares, awake), 1):
        total += share * EVERY
        spent += int(part * EVERY * 1e9)
        usage.note(who, total)
        now = 100.0 + number * EVERY
        threads = {40: spent, 41: spent // 10} if who in usage.doubtful(now) else {}
        stance = usage.settle(now, {who: threads} if threads else {}).get(who, stance)
        found.append(stance)
    return found


def test_who_never_sleeps_computes_however_little_it_gets_beside_others() -> None:
    """Three that compute on two cores have less of one than what one may use."""
    found = beside_others([0.4] * 40, [1.0] * 40)
    assert all(stance.computes for stance in found)


def test_who_gives_way_stays_light_while_it_does_not_sleep() -> None:
    """It went before others again and again when its share alone was looked at."""
    found = beside_others([1.0] * 4 + [0.2] * 100, [1.0] * 104)
    assert all(stance.computes for stance in found[4:])
    assert not any(stance.starves for stance in found)


def test_who_waits_for_long_before_it_is_counted_stays_light() -> None:
    """On a full machine a thread gets a core every half a second, and its waiting is counted then."""
    waits = [1.0] * 2 + ([0.0] * 9 + [10.0]) * 10
    found = beside_others([1.0] * 2 + [0.1] * 100, waits)
    assert all(stance.computes for stance in found[2:])


def test_who_is_called_and_waits_for_a_core_does_not_compute() -> None:
    assert not any(one.computes for one in beside_others([0.4] * 100, [0.85] * 100))


def test_who_computes_and_gets_nothing_starves_until_it_gets_some() -> None:
    found = beside_others([1.0] * 4 + [0.01] * 100 + [0.2] * 40, [1.0] * 144)
    assert not found[20].starves and found[103].starves and not found[-1].starves
    assert all(stance.computes for stance in found[4:])


def test_who_sleeps_again_is_as_the_others() -> None:
    found = beside_others([0.4] * 40 + [0.0] * 60, [1.0] * 40 + [0.0] * 60)
    assert found[39].computes and found[-1] == Stance()


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
    """Where the machine's kernel tells nothing of threads.

    It has all of a core when it goes before others, and a tenth of one when it gives way.
    """
    usage, total, computes, now = Usage(), 0.0, False, 0.0
    usage.note(1, total)
    usage.settle(now)
    for number in range(1, 2001):
        total += (0.1 if computes else 1.0) * EVERY
        usage.note(1, total)
        now = number * EVERY
        computes = usage.settle(now).get(1, Stance(computes)).computes
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
