"""The directory: who serves which slot, and who may call whom. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import msgspec

from sagong.contracts.kernel import AccessEntry, RouteEntry
from sagong.kernel.units import Unit
from sagong.manifest import EVERY

__all__ = [
    "Serving",
    "access_of",
    "dependents",
    "instead",
    "lacks_of",
    "needed",
    "provider_of",
    "providers_of",
    "reached",
    "resolved",
    "routes_of",
    "wakers",
]

Route = tuple[str, int, str]
Use = tuple[str, int]


@dataclass(frozen=True)
class Serving:
    """The generation of a unit that new calls go to."""

    generation: int
    path: str


def providers_of(units: Mapping[str, Unit], slot: str, version: int) -> list[Unit]:
    """All units that fill a slot in this version of its contract."""
    return [unit for unit in units.values() if version in unit.manifest.versions(slot)]


def provider_of(units: Mapping[str, Unit], slot: str, version: int, instance: str) -> Unit | None:
    """The unit that fills a slot. Instance "" means the one without a name, or the only one."""
    found = providers_of(units, slot, version)
    named = [unit for unit in found if unit.instance == instance]
    if not named and not instance:
        named = found
    return named[0] if len(named) == 1 else None


def resolved(units: Mapping[str, Unit], wanted: Route) -> tuple[Unit, ...]:
    """The units that a wish leads to: one or none, or with instance "*" every one there is."""
    slot, version, instance = wanted
    if instance == EVERY:
        return tuple(providers_of(units, slot, version))
    provider = provider_of(units, slot, version, instance)
    return (provider,) if provider is not None else ()


def routes_of(
    unit: Unit, units: Mapping[str, Unit], serving: Mapping[str, Serving]
) -> tuple[RouteEntry, ...]:
    """Everything `unit` may call that somebody serves now, under the names it asks for.

    Of a slot whose every instance it may call it is told of all there are, also of those that don't
    serve at this moment (generation 0), and which of them is the default one.
    """
    return tuple(_routes(unit.routes(), units, serving))


def _routes(
    wanted: Iterable[Route], units: Mapping[str, Unit], serving: Mapping[str, Serving]
) -> Iterator[RouteEntry]:
    for slot, version, instance in wanted:
        every = instance == EVERY
        default = provider_of(units, slot, version, "") if every else None
        for provider in resolved(units, (slot, version, instance)):
            now = serving.get(provider.name, Serving(0, ""))
            if every or now.generation:
                yield RouteEntry(
                    slot=slot,
                    version=version,
                    instance=provider.instance if every else instance,
                    generation=now.generation,
                    path=now.path,
                    every=every,
                    default=provider is default,
                )


def access_of(
    provider: Unit, callers: Iterable[Unit], units: Mapping[str, Unit], uids: Mapping[str, int]
) -> tuple[AccessEntry, ...]:
    """Who may call `provider`, and what: each caller's [uses] and [hears] that lead to it.

    Callers are whoever serves, is about to, or drains: within a swap two plugins of one unit.
    """
    entries = []
    for unit in {caller.identity: caller for caller in callers}.values():
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
        if _leads_to(provider, (slot, use.version, use.instance), units):
            yield from (f"{slot}/{use.version}/{name}" for name in use.methods or ("*",))
    for slot, hears in unit.manifest.hears.items():
        if _leads_to(provider, (slot, hears.version, hears.instance), units):
            yield f"{slot}/{hears.version}/events"
            if slot in unit.manifest.life.wakes_on:
                yield f"{slot}/{hears.version}/word"


def _rules(
    unit: Unit, provider: Unit, units: Mapping[str, Unit]
) -> Iterator[dict[str, tuple[str, ...]]]:
    for slot, use in unit.uses():
        if _leads_to(provider, (slot, use.version, use.instance), units):
            yield from map(msgspec.structs.asdict, use.rules)


def _leads_to(provider: Unit, wanted: Route, units: Mapping[str, Unit]) -> bool:
    """Whether a wish leads to this unit; asked for all of all units at every change, so it is quick."""
    slot, version, _ = wanted
    return version in provider.manifest.versions(slot) and provider in resolved(units, wanted)


def wakers(unit: Unit, units: Mapping[str, Unit]) -> frozenset[str]:
    """Names of the units with which `unit` leaves word of what it waits for while it sleeps."""
    life, hears = unit.manifest.life, unit.manifest.hears
    wishes = [
        (key, hears[key].version, hears[key].instance) for key in life.wakes_on if key in hears
    ]
    heard = {p.name for wanted in wishes for p in resolved(units, wanted)}
    return used(unit, life.wakes_on, units) | heard


def used(unit: Unit, keys: Iterable[str], units: Mapping[str, Unit]) -> frozenset[str]:
    """Names of the units that serve what `unit` has under these keys in its [uses]."""
    uses = [(key, unit.manifest.uses[key]) for key in keys if key in unit.manifest.uses]
    wishes = [(use.slot or key, use.version, use.instance) for key, use in uses]
    return frozenset(p.name for wanted in wishes for p in resolved(units, wanted))


def needed(unit: Unit, units: Mapping[str, Unit]) -> frozenset[str]:
    """Names of the units that `unit` rouses: those it calls, and the default ones it streams from."""
    streamed = set(unit.manifest.life.rouses) & unit.manifest.streams.keys()
    filled = (provider_of(units, slot, v, "") for slot in streamed for v in _versions(slot, units))
    found = {provider.name for provider in filled if provider is not None}
    return used(unit, unit.manifest.life.rouses, units) | found


def _versions(slot: str, units: Mapping[str, Unit]) -> frozenset[int]:
    return frozenset(version for unit in units.values() for version in unit.manifest.versions(slot))


def reached(unit: Unit, units: Mapping[str, Unit]) -> frozenset[str]:
    """Names of the units whose sockets `unit` may see: what it calls, hears or streams from."""
    found = {p.name for wanted in unit.routes() for p in resolved(units, wanted)}
    streamed = set(unit.manifest.streams)
    found |= {u.name for u in units.values() if streamed & set(u.manifest.provides)}
    return frozenset(found - {unit.name})


def dependents(provider: Unit, units: Mapping[str, Unit]) -> dict[str, tuple[Use, ...]]:
    """Units that call or hear `provider`, each with the slots and versions it uses there.

    Who takes every instance as it comes depends on the default one alone.
    """
    found: dict[str, tuple[Use, ...]] = {}
    for unit in units.values():
        uses = tuple(
            (slot, version)
            for slot, version, instance in unit.routes()
            if provider_of(units, slot, version, instance.replace(EVERY, "")) is provider
        )
        if uses and unit.name != provider.name:
            found[unit.name] = tuple(dict.fromkeys(uses))
    return found


def lacks_of(unit: Unit, units: Mapping[str, Unit]) -> tuple[str, ...]:
    """What a unit needs and nobody provides, in words; empty when it has all."""
    return tuple(dict.fromkeys(_lacks(unit, units)))


def _lacks(unit: Unit, units: Mapping[str, Unit]) -> Iterator[str]:
    for slot, version, instance in unit.needs():
        if slot == "kernel" or resolved(units, (slot, version, instance)):
            continue
        what = f"unit {unit.name} needs {slot}/{version}"
        what += f" of instance {instance}" if instance not in ("", EVERY) else ""
        yield f"{what}; {instead(slot, version, units)}"


def instead(slot: str, version: int, units: Mapping[str, Unit]) -> str:
    """What there is in place of what is wanted."""
    same = [unit.instance for unit in providers_of(units, slot, version)]
    if same:
        return "there are " + ", ".join(sorted(name or "the one without a name" for name in same))
    other = [
        f"{unit.name} provides " + ", ".join(f"{slot}/{v}" for v in unit.manifest.versions(slot))
        for unit in units.values()
        if unit.manifest.versions(slot)
    ]
    return "; ".join(other) or "nothing provides it"
