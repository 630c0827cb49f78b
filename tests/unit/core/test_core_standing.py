"""How far a system has come, as the service manager is told; what is down, as callers are told."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.core.life_world import unit

from sagong.kernel.life import Life
from sagong.kernel.outages import known_to, standing
from sagong.kernel.units import Unit
from sagong.manifest import parse

UNIT = unit("a", overlap=True)
SERVES = Life(UNIT, serving=1)
COMES = Life(UNIT)
GIVEN_UP = Life(UNIT, down=True, problem="no such device")


def test_ready_is_when_all_serve() -> None:
    assert standing({"a": SERVES, "b": SERVES}).ready
    late = standing({"a": SERVES, "b": COMES})
    assert not late.ready
    assert str(late) == "waiting for b"


def test_what_was_given_up_is_not_waited_for_but_told() -> None:
    found = standing({"a": SERVES, "b": GIVEN_UP})
    assert found.ready
    assert str(found) == "degraded, without b: no such device"
    assert not standing({"a": COMES, "b": GIVEN_UP}).ready


def test_what_is_stopped_is_not_waited_for() -> None:
    assert standing({"a": SERVES, "b": replace(COMES, leaving=True)}).ready


def test_who_sleeps_is_not_waited_for() -> None:
    found = standing({"a": SERVES, "b": replace(COMES, asleep=7)})
    assert found.ready
    assert str(found) == "every unit serves"


def caller(uses: str) -> Unit:
    """A unit that calls these."""
    head = '[plugin]\nname = "c"\nversion = "1"\nsummary = "calls"\nclass = "c:C"\n'
    return Unit("c", "", parse(head + uses, where="c"), "c", {}, {})


def test_callers_are_told_what_was_given_up_and_what_they_do_without() -> None:
    uses = '[uses.scheduler]\nversion = 1\nwhy = "places"\n'
    optional = uses + "optional = true\n"
    name = UNIT.name
    units = {name: UNIT, "c": caller(uses)}
    assert not list(known_to(units["c"], units, {name: SERVES}))
    (told,) = known_to(units["c"], units, {name: GIVEN_UP})
    assert "no such device" in told.reason
    del units[name]
    assert not list(known_to(caller(uses), units, {})), "who needs it waits until it is there"
    (told,) = known_to(caller(optional), units, {})
    assert (told.slot, told.reason) == ("scheduler", "nothing provides it")
