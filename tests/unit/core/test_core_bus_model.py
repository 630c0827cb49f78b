"""Every story of calls, swaps, drains and deaths on the bus keeps what callers are promised.

Nothing is executed twice that may be executed once only; no call fails for a swap; answers reach whom
they are for; each call ends; nothing is left of old generations.
"""

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.core.bus_world import story

from sagong.bus import link, provider, route
from sagong.bus.link import Link, Lost, Moved
from sagong.bus.provider import Provider
from sagong.bus.route import Route
from sagong.bus.socket import BusSocket
from sagong.wire import Kind

CHOICES = st.lists(st.integers(0, 997), max_size=60)
stories = settings(max_examples=150, deadline=None, derandomize=True, database=None)


@stories
@given(CHOICES)
def test_swaps_fail_no_call(choices: list[int]) -> None:
    story(choices, kills=0)


@stories
@given(CHOICES)
def test_deaths_fail_only_what_must_not_be_repeated(choices: list[int]) -> None:
    story(choices, kills=2)


@stories
@given(CHOICES)
def test_one_that_comes_back_at_the_same_place_is_found_again(choices: list[int]) -> None:
    """As the kernel does: messages that were kept may reach its successor."""
    story(choices, path="/kernel", kills=2)


def _caught(**settings: Any) -> bool:
    """Whether one of many stories goes wrong, every second one without deaths."""
    for seed in range(400):
        chance = random.Random(seed)
        choices = [chance.randrange(997) for _ in range(10 + seed % 40)]
        try:
            story(choices, **{"kills": seed % 2, **settings})
        except AssertionError:
            return True
    return False


def test_who_ends_before_its_callers_have_left_it_fails_calls() -> None:
    assert _caught(kills=0, patient=False)


def test_what_a_dead_one_has_not_read_may_not_wait_for_its_successor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else it is executed after its caller has looked whether it was."""
    monkeypatch.setattr(BusSocket, "abandon", _no_op)
    assert _caught(path="/kernel")


def _no_op(*_: Any, **__: Any) -> None:
    """Does nothing."""


async def _wait_only(served: Any, seconds: float) -> None:
    if any(served._tasks.values()):
        served._idle.clear()
        await served._idle.wait()


async def _refuse_only(served: Any, seconds: float) -> None:
    served._draining = True


def _answered(taken_for: type[Exception]) -> Any:
    real = Link._answered

    def answered(self: Any, future: Any, spec: Any, envelope: Any) -> None:
        if envelope.kind == Kind.GOAWAY and not future.done():
            future.set_exception(taken_for())
        else:
            real(self, future, spec, envelope)

    return answered


def _fail_as_moved(self: Any, *, executed: bool = True) -> None:
    self._dead = True
    for future, _ in list(self._calls.values()):
        if not future.done():
            future.set_exception(Moved())
    for stream in self._streams.values():
        stream.end(Moved())


def _without(kind: Kind) -> Any:
    real = Link._send

    def send(self: Any, sent: Kind, id_: int, **more: Any) -> None:
        if sent != kind:
            real(self, sent, id_, **more)

    return send


def _silent(self: Any, peer: bytes, id_: int, kind: Kind, *body: Any) -> None:
    if kind != Kind.GOAWAY:
        _ANSWER(self, peer, id_, kind, *body)


_ANSWER = Provider._answer
MUTANTS: dict[str, tuple[Any, str, Any]] = {
    "works on while it drains": (Provider, "drain", _wait_only),
    "drains without waiting": (Provider, "drain", _refuse_only),
    "says nothing to who comes too late": (Provider, "_answer", _silent),
    "takes a refusal for a death": (Link, "_answered", _answered(Lost)),
    "takes a death for a refusal": (Link, "fail", _fail_as_moved),
    "does not hear of deaths": (Route, "bury", _no_op),
    "leaves links that are busy": (Link, "busy", property(lambda self: False)),
    "keeps old links": (Route, "_retire", _no_op),
    "resumes nothing": (route, "_RESUMPTIONS", 1),
    "gives a number twice": (
        link,
        "itertools",
        SimpleNamespace(count=itertools.repeat),
    ),
    "goes without a word": (Link, "_send", _without(Kind.CANCEL)),
    "gives no credit": (Link, "credit", _no_op),
    "needs no credit": (provider, "_Stream", lambda: SimpleNamespace(credit=10**6)),
    "forgets deadlines": (Link, "_expire", _no_op),
    "stays with the old one": (Route, "switch", _no_op),
    "passes nothing on": (provider, "PassedOn", type("Nobody", (Exception,), {})),
    "is not told who serves": (route.Route, "_announce", _no_op),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_bus_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target, attribute, broken = MUTANTS[name]
    monkeypatch.setattr(target, attribute, broken)
    assert _caught(), "no story goes wrong"
