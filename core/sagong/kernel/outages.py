"""What is down or late, and why, as callers, the operator and the service manager are told. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sagong.contracts.kernel import DownEntry
from sagong.kernel import directory
from sagong.kernel.life import Life
from sagong.kernel.units import Unit
from sagong.manifest import EVERY

__all__ = ["Standing", "all_of", "known_to", "standing"]


def all_of(units: Mapping[str, Unit], lives: Mapping[str, Life]) -> Iterator[DownEntry]:
    """Every slot whose unit was given up for now, under its own instance's name."""
    for unit in units.values():
        for slot, version in unit.manifest.provided():
            if reason := _reason(unit, lives):
                yield DownEntry(slot=slot, version=version, instance=unit.instance, reason=reason)


def known_to(
    unit: Unit, units: Mapping[str, Unit], lives: Mapping[str, Life]
) -> Iterator[DownEntry]:
    """Those that a unit calls, under the names it asks for; also what it does without."""
    needed = unit.needs()
    for route in unit.routes():
        slot, version, instance = route
        providers = directory.resolved(units, route)
        if not providers and route not in needed and instance != EVERY:
            reason = directory.instead(slot, version, units)
            yield DownEntry(slot=slot, version=version, instance=instance, reason=reason)
        for provider in providers:
            if reason := _reason(provider, lives):
                name = provider.instance if instance == EVERY else instance
                yield DownEntry(slot=slot, version=version, instance=name, reason=reason)


@dataclass(frozen=True)
class Standing:
    """How far all units have come: those that are still to come, and those that were given up.

    What was given up keeps the rest from nothing: the system is ready, and says without what.
    """

    late: tuple[str, ...]
    down: tuple[str, ...]

    @property
    def ready(self) -> bool:
        """Whether nothing is to be waited for."""
        return not self.late

    def __str__(self) -> str:
        if self.late:
            return f"waiting for {', '.join(self.late)}"
        return f"degraded, without {'; '.join(self.down)}" if self.down else "every unit serves"


def standing(lives: Mapping[str, Life]) -> Standing:
    """How far they have come."""
    absent = {
        name: one for name, one in lives.items() if not (one.serving or one.asleep or one.leaving)
    }
    late = tuple(name for name, one in absent.items() if not one.down)
    down = tuple(f"{name}: {one.problem}" for name, one in absent.items() if one.down)
    return Standing(late, down)


def _reason(unit: Unit, lives: Mapping[str, Life]) -> str:
    one = lives.get(unit.name)
    if one is None or one.serving or not one.down:
        return ""
    return f"{unit.name} is down after {len(one.crashes)} failures: {one.problem}"
