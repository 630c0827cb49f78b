"""The directory over random sets of units: who may call whom, and who sees whose sockets, agree."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from sagong.kernel import directory
from sagong.kernel.directory import Serving
from sagong.kernel.units import Unit
from sagong.manifest import Hears, Manifest, Plugin, Streams, Uses

SLOTS = ("state", "image", "node")
INSTANCES = ("", "local", "*")
METHODS = ("get", "put")

slots = st.sampled_from(SLOTS)
versions = st.integers(1, 2)
uses = st.builds(
    Uses,
    version=versions,
    why=st.just("reads"),
    instance=st.sampled_from(INSTANCES),
    methods=st.lists(st.sampled_from(METHODS), max_size=2).map(tuple),
    slot=st.sampled_from(("", *SLOTS)),
)
hears = st.builds(
    Hears, why=st.just("listens"), version=versions, instance=st.sampled_from(INSTANCES)
)
manifests = st.builds(
    Manifest,
    plugin=st.just(Plugin(name="x", version="1", summary="s", class_="x:X")),
    provides=st.dictionaries(slots, versions, max_size=2),
    uses=st.dictionaries(slots, uses, max_size=3),
    hears=st.dictionaries(slots, hears, max_size=2),
    streams=st.dictionaries(slots, st.just(Streams(why="bytes")), max_size=1),
)


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Unit]:
    """Up to five units, some of them instances of the same slot."""
    found = {}
    for number, read in enumerate(draw(st.lists(manifests, min_size=1, max_size=5))):
        instance = draw(st.sampled_from(("", "local", "other")))
        plugin = msgspec.structs.replace(read.plugin, name=f"p{number}")
        read = msgspec.structs.replace(read, plugin=plugin)
        found[f"u{number}"] = Unit(f"u{number}", instance, read, "x", {}, {})
    return found


def uids_of(units: dict[str, Unit]) -> dict[str, int]:
    return {unit.identity: 100 + number for number, unit in enumerate(units.values())}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(worlds())
def test_nobody_may_call_what_its_manifest_does_not_name(units: dict[str, Unit]) -> None:
    for provider in units.values():
        offered = set(provider.manifest.provided())
        for entry in directory.access_of(provider, units.values(), units, uids_of(units)):
            caller = units[entry.name]
            for wire_name in entry.methods:
                slot, version, name = wire_name.split("/")
                assert (slot, int(version)) in offered
                assert name in named(caller, slot, int(version)), wire_name


def named(unit: Unit, slot: str, version: int) -> set[str]:
    """What a manifest asks for of a slot; `*` where it names no method."""
    found = {
        name
        for other, use in unit.uses()
        if (other, use.version) == (slot, version)
        for name in use.methods or ("*",)
    }
    heard = unit.manifest.hears.get(slot)
    return found | ({"events"} if heard is not None and heard.version == version else set())


@settings(max_examples=200, deadline=None, derandomize=True)
@given(worlds())
def test_sockets_are_seen_by_those_who_may_call_or_stream_and_nobody_else(
    units: dict[str, Unit],
) -> None:
    callers: dict[str, set[str]] = {name: set() for name in units}
    for provider in units.values():
        for entry in directory.access_of(provider, units.values(), units, uids_of(units)):
            callers[entry.name].add(provider.name)
    for unit in units.values():
        streamed = {
            other.name
            for other in units.values()
            if set(unit.manifest.streams) & set(other.manifest.provides)
        }
        assert directory.reached(unit, units) == (callers[unit.name] | streamed) - {unit.name}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(worlds())
def test_routes_lead_to_providers_that_grant_them(units: dict[str, Unit]) -> None:
    serving = {name: Serving(7, f"/run/{name}") for name in units}
    for unit in units.values():
        for route in directory.routes_of(unit, units, serving):
            provider = units[route.path.removeprefix("/run/")]
            granted = directory.access_of(provider, units.values(), units, uids_of(units))
            named = [m for entry in granted if entry.name == unit.name for m in entry.methods]
            assert any(m.startswith(f"{route.slot}/{route.version}/") for m in named)
