"""Who is held back, on whose word, and until when."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from sagong import manifest
from sagong.kernel import restraint
from sagong.kernel.restraint import Restraint
from sagong.kernel.units import Unit
from sagong.kernel.usage import Stance

HEAD = '[plugin]\nname = "{name}"\nversion = "1"\nsummary = "s"\nclass = "a:B"\n'
CALLS = '[uses.state]\nversion = 1\nwhy = "reads"\nmethods = ["range"]\n'
TEXTS = {
    "state": "[provides]\nstate = 1\n",
    "caller": CALLS,
    "waited-for": CALLS + "[limits]\ncpu = 0\n",
    "stranger": "",
}
UNITS = {
    name: Unit(name, "", manifest.parse(HEAD.format(name=f"p{n}") + text, where=name), "x", {}, {})
    for n, (name, text) in enumerate(TEXTS.items())
}
UIDS = {name: 100 + number for number, name in enumerate(UNITS)}


@dataclass
class Life:
    """A process."""

    unit: Unit
    generation: int = 1
    held: bool = False
    stance: Stance | None = None
    light: bool | None = None


@dataclass
class World:
    """Fakes of population and cells: who is held back, is light, and has long turns, by name."""

    processes: list[Life] = field(default_factory=lambda: [Life(unit) for unit in UNITS.values()])
    held: set[str] = field(default_factory=set)
    computing: set[str] = field(default_factory=set)
    patient: set[str] = field(default_factory=set)

    def __iter__(self) -> Iterator[Life]:
        return iter(self.processes)

    def find(self, name: str, generation: int) -> Life | None:
        return next((p for p in self if (p.unit.name, p.generation) == (name, generation)), None)

    def uid(self, unit: Unit) -> int:
        return UIDS[unit.name]

    def set_turns(self, unit: Unit, generation: int, *, computes: bool) -> None:
        (self.patient.add if computes else self.patient.discard)(unit.name)

    def allot(self, unit: Unit, generation: int, *, held: bool, stance: Stance) -> bool:
        (self.held.add if held else self.held.discard)(unit.name)
        (self.computing.add if stance.computes else self.computing.discard)(unit.name)
        return True


@pytest.fixture
def world() -> World:
    return World()


def made(world: World) -> Restraint:
    fakes: Any = world
    return Restraint(fakes, fakes, lambda: UNITS)


@pytest.mark.parametrize(
    ("by", "who", "held"),
    [
        ("state", "caller", {"caller"}),
        ("state", "waited-for", set()),
        ("state", "stranger", set()),
        ("stranger", "caller", set()),
        ("caller", "state", set()),
        ("state", "state", set()),
    ],
)
async def test_a_provider_is_believed_of_its_own_bounded_callers(
    world: World, by: str, who: str, held: set[str]
) -> None:
    made(world).accused(UIDS[by], UIDS[who], 5.0)
    assert world.held == held


async def test_the_kernel_believes_itself(world: World) -> None:
    made(world).flooded(UIDS["waited-for"], 5.0)
    assert world.held == {"waited-for"}
    assert [process.unit.name for process in world if process.held] == ["waited-for"]


@pytest.mark.parametrize("seconds", [0.02, float("nan"), -1.0])
async def test_a_hold_ends_whatever_its_length(world: World, seconds: float) -> None:
    made(world).accused(UIDS["state"], UIDS["caller"], seconds)
    async with asyncio.timeout(60):
        while world.held:
            await asyncio.sleep(0.005)


async def test_no_hold_is_longer_than_any_term(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restraint, "TERM_MOST", 0.02)
    made(world).accused(UIDS["state"], UIDS["caller"], 1e9)
    async with asyncio.timeout(60):
        while world.held:
            await asyncio.sleep(0.005)


async def test_only_the_generation_that_offended_is_held_back(world: World) -> None:
    found = made(world)
    found.offends("caller", 2, "forks refused")
    assert not world.held
    found.offends("caller", 1, "forks refused")
    assert world.held == {"caller"}


async def test_who_computes_gives_way_whether_held_or_not(world: World) -> None:
    found = made(world)
    found.computes("caller", 1, Stance(computes=True))
    found.computes("caller", 2, Stance())
    assert (world.computing, world.held) == ({"caller"}, set())
    found.flooded(UIDS["caller"], 0.02)
    assert (world.computing, world.held) == ({"caller"}, {"caller"})
    async with asyncio.timeout(60):
        while world.held:
            await asyncio.sleep(0.005)
    assert world.computing == {"caller"}
    found.computes("caller", 1, Stance())
    assert not world.computing


async def test_who_is_held_back_gives_way_with_what_is_left_to_it(world: World) -> None:
    """Its share of a period came at once, with the weight and the turns of those who are called."""
    found = made(world)
    found.begin()
    assert (world.computing, world.patient) == (set(), set())
    found.offends("caller", 1, "forks refused")
    assert (world.held, world.computing, world.patient) == ({"caller"},) * 3
    # It has next to nothing to compute with now, so it seems to have ended that.
    found.computes("caller", 1, Stance())
    assert (world.held, world.computing, world.patient) == ({"caller"},) * 3
    found.flooded(UIDS["caller"], 0.02)
    async with asyncio.timeout(60):
        while world.held:
            await asyncio.sleep(0.005)
    assert (world.computing, world.patient) == (set(), set())


async def test_what_a_dead_process_left_stays_held_and_a_new_kernel_lets_all_go(
    world: World,
) -> None:
    found = made(world)
    found.flooded(UIDS["caller"], 0.02)
    fake: Any = world.processes[1]
    found.gone(fake)
    await asyncio.sleep(0.1)
    assert world.held == {"caller"}
    made(world).begin()
    assert not world.held
