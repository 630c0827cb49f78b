"""The order in which units start, from what they call. Pure.

A unit starts when everything that it calls serves, except what calls it in turn, directly or not:
of such a circle nobody waits. There is no list of units; all is computed from the manifests.
"""

from __future__ import annotations

from collections.abc import Mapping

from sagong.kernel.directory import provider_of
from sagong.kernel.units import Unit
from sagong.manifest import EVERY

__all__ = ["prerequisites", "ranks"]


def prerequisites(units: Mapping[str, Unit]) -> dict[str, frozenset[str]]:
    """For each unit, by name, those that should serve before it starts."""
    calls = {name: _called(unit, units) for name, unit in units.items()}
    reached = {name: _reached(name, calls) for name in calls}
    return {
        name: frozenset(other for other in called if name not in reached[other])
        for name, called in calls.items()
    }


def ranks(units: Mapping[str, Unit]) -> dict[str, int]:
    """How many steps of others come before each unit; providers before their callers."""
    before = prerequisites(units)
    known: dict[str, int] = {}

    def rank(name: str) -> int:
        if name not in known:
            known[name] = max((rank(other) + 1 for other in before[name]), default=0)
        return known[name]

    return {name: rank(name) for name in units}


def _called(unit: Unit, units: Mapping[str, Unit]) -> frozenset[str]:
    # Of a slot used in every instance the default one is waited for; others come as they come.
    calls = ((slot, use.version, use.instance.replace(EVERY, "")) for slot, use in unit.uses())
    found = (provider_of(units, *call) for call in calls)
    return frozenset(p.name for p in found if p is not None and p.name != unit.name)


def _reached(start: str, calls: Mapping[str, frozenset[str]]) -> frozenset[str]:
    seen: set[str] = set()
    todo = list(calls[start])
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += calls[name]
    return frozenset(seen)
