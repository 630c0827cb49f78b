"""The directory: who serves which slot, and who may call whom. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from sagong.contracts.kernel import AccessEntry, RouteEntry
from sagong.kernel.units import Unit

__all__ = ["Serving", "access_of", "dependents", "provider_of", "routes_of"]


@dataclass(frozen=True)
class Serving:
    """The generation of a unit that new calls go to."""

    generation: int
    path: str


def provider_of(units: Mapping[str, Unit], slot: str, version: int, instance: str) -> Unit | None:
    """The unit that fills a slot. Instance "" means the only one, or the one without a name."""
    found = [
        unit
        for unit in units.values()
        if unit.manifest.provides.get(slot) == version and instance in ("", unit.instance)
    ]
    if len(found) > 1:
        found = [unit for unit in found if not unit.instance]
    return found[0] if len(found) == 1 else None


def routes_of(
    unit: Unit, units: Mapping[str, Unit], serving: Mapping[str, Serving]
) -> tuple[RouteEntry, ...]:
    """Everything `unit` may call that somebody serves now, under the names it asks for."""
    return tuple(_routes(unit.routes(), units, serving))


def _routes(
    wanted: Iterable[tuple[str, int, str]],
    units: Mapping[str, Unit],
    serving: Mapping[str, Serving],
) -> Iterator[RouteEntry]:
    for slot, version, instance in wanted:
        provider = provider_of(units, slot, version, instance)
        now = serving.get(provider.name) if provider else None
        if now is not None:
            yield RouteEntry(
                slot=slot,
                version=version,
                instance=instance,
                generation=now.generation,
                path=now.path,
            )


def access_of(
    provider: Unit, units: Mapping[str, Unit], uids: Mapping[str, int]
) -> tuple[AccessEntry, ...]:
    """Who may call `provider`, and what: each unit's [uses] and [hears] that lead to it."""
    entries = []
    for unit in units.values():
        methods = sorted(set(_granted(unit, provider, units)))
        if methods:
            entries.append(
                AccessEntry(
                    uid=uids[unit.identity],
                    name=unit.name,
                    methods=tuple(methods),
                    rules=tuple(_rules(unit, provider, units)),
                )
            )
    return tuple(entries)


def _granted(unit: Unit, provider: Unit, units: Mapping[str, Unit]) -> Iterator[str]:
    for slot, use in unit.uses():
        if provider_of(units, slot, use.version, use.instance) is provider:
            yield from (f"{slot}/{use.version}/{name}" for name in use.methods or ("*",))
    for slot, hears in unit.manifest.hears.items():
        if provider_of(units, slot, hears.version, hears.instance) is provider:
            yield f"{slot}/{hears.version}/events"


def _rules(
    unit: Unit, provider: Unit, units: Mapping[str, Unit]
) -> Iterator[dict[str, tuple[str, ...]]]:
    for slot, use in unit.uses():
        if provider_of(units, slot, use.version, use.instance) is provider:
            yield from use.rules


def dependents(provider: Unit, units: Mapping[str, Unit]) -> Iterator[Unit]:
    """Units that call or hear `provider`."""
    for unit in units.values():
        if any(provider_of(units, *wanted) is provider for wanted in unit.routes()):
            yield unit
