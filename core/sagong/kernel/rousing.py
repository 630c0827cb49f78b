"""Whom it concerns that a unit wakes, or that a new process of it serves. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sagong.kernel.directory import needed, wakers
from sagong.kernel.happenings import Event, Retry, Wake
from sagong.kernel.life import Life
from sagong.kernel.prerequisites import prerequisites
from sagong.kernel.units import Unit

__all__ = ["roused"]


def roused(
    name: str, before: Life, units: Mapping[str, Unit], lives: Mapping[str, Life]
) -> Iterator[tuple[str, Event]]:
    """Events for other units; `before` is the life that this one had until now."""
    after = lives[name]
    if before.asleep and not after.asleep and not after.leaving:
        for other in needed(units[name], units):
            yield other, Wake()
    if after.serving and after.serving != before.serving:
        yield from _heard_of(name, units, lives)


def _heard_of(
    name: str, units: Mapping[str, Unit], lives: Mapping[str, Life]
) -> Iterator[tuple[str, Event]]:
    """Units that were given up may have missed this one; word that was left with it is forgotten."""
    for other, wanted in prerequisites(units).items():
        if name in wanted and lives[other].down:
            yield other, Retry()
    for other, unit in units.items():
        if lives[other].asleep and name in wakers(unit, units):
            yield other, Wake()
