"""Attachments before the start: who is woken by what, and with which streams."""

from __future__ import annotations

from sagong.contracts.streams import Address
from sagong_docker.pending import Pending

STREAM = Address(path="/s", token="t", protocol="frames")


def test_the_first_gets_the_streams_of_the_answer() -> None:
    pending = Pending()
    first, second = pending.enter("c", stdin=True), pending.enter("c", stdin=False)
    assert pending.hold("c") is first
    pending.started("c", STREAM)
    assert (first.started, first.held, first.stream) == (True, True, STREAM)
    assert (second.started, second.held, second.stream) == (True, False, None)


def test_a_told_start_waits_for_its_answer() -> None:
    pending = Pending()
    waiting = pending.enter("c", stdin=False)
    pending.hold("c")
    pending.told("c")
    assert not waiting.woken.is_set()
    pending.started("c", STREAM)
    assert waiting.stream is STREAM


def test_a_start_of_another_generation_wakes() -> None:
    pending = Pending()
    waiting = pending.enter("c", stdin=False)
    pending.told("c")
    assert (waiting.woken.is_set(), waiting.started, waiting.held) == (True, True, False)


def test_a_lost_answer_of_a_told_start_attaches_all_the_same() -> None:
    pending = Pending()
    waiting = pending.enter("c", stdin=False)
    pending.hold("c")
    pending.told("c")
    pending.ended("c")
    assert (waiting.started, waiting.held, waiting.stream) == (True, True, None)


def test_a_start_that_fails_ends_the_wait() -> None:
    pending = Pending()
    waiting = pending.enter("c", stdin=False)
    pending.hold("c")
    pending.ended("c")
    assert (waiting.woken.is_set(), waiting.started) == (True, False)


def test_whoever_asked_for_the_start_may_go_away_before_or_after_it_is_told() -> None:
    for early in (True, False):
        pending = Pending()
        waiting = pending.enter("c", stdin=False)
        pending.hold("c")
        steps = [pending.told, pending.unanswered]
        for step in steps if early else reversed(steps):
            step("c")
        assert (waiting.woken.is_set(), waiting.started, waiting.held) == (True, True, True)


def test_the_streams_go_to_nobody_else() -> None:
    pending = Pending()
    first, second = pending.enter("c", stdin=True), pending.enter("c", stdin=False)
    pending.hold("c")
    pending.leave("c", first)
    pending.started("c", STREAM)
    assert (second.started, second.held, second.stream) == (True, True, None)
