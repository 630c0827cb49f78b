"""How far a system has come, as the service manager is told."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.core.life_world import unit

from sagong.kernel.life import Life
from sagong.kernel.outages import standing

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
