"""Whom it concerns that a new process of a unit serves. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sagong.kernel.directory import wakers
from sagong.kernel.happenings import Event, Retry, Wake
from sagong.kernel.life import Life
from sagong.kernel.prerequisites import prerequisites
from sagong.kernel.units import Unit

__all__ = ["roused"]


def roused(
    name: str, units: Mapping[str, Unit], lives: Mapping[str, Life]
) -> Iterator[tuple[str, Event]]:
    """Units that were given up may have missed this one; word that was left with it is forgotten."""
    for other, wanted in prerequisites(units).items():
        if name in wanted and lives[other].down:
            yield other, Retry()
    for other, unit in units.items():
        if lives[other].asleep and name in wakers(unit, units):
            yield other, Wake()
