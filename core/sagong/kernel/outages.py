"""Which slots are down, and why, as their callers and the operator are told. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sagong.contracts.kernel import DownEntry
from sagong.kernel import directory
from sagong.kernel.life import Life
from sagong.kernel.units import Unit
from sagong.manifest import EVERY

__all__ = ["all_of", "known_to"]


def all_of(units: Mapping[str, Unit], lives: Mapping[str, Life]) -> Iterator[DownEntry]:
    """Every slot that was given up for now, under its own instance's name."""
    for unit in units.values():
        for slot, version in unit.manifest.provided():
            if reason := _reason(unit, lives):
                yield DownEntry(slot=slot, version=version, instance=unit.instance, reason=reason)


def known_to(
    unit: Unit, units: Mapping[str, Unit], lives: Mapping[str, Life]
) -> Iterator[DownEntry]:
    """Those that a unit calls, under the names it asks for."""
    for slot, version, instance in unit.routes():
        for provider in directory.resolved(units, (slot, version, instance)):
            if reason := _reason(provider, lives):
                name = provider.instance if instance == EVERY else instance
                yield DownEntry(slot=slot, version=version, instance=name, reason=reason)


def _reason(unit: Unit, lives: Mapping[str, Life]) -> str:
    one = lives.get(unit.name)
    if one is None or one.serving or not one.down:
        return ""
    return f"{unit.name} is down after {len(one.crashes)} failures: {one.problem}"
