"""Every interleaving of swaps, deaths, failures and the kernel's death keeps the protocol's promises.

The exploration is exhaustive within its bounds: three faults, two swaps, one death of the kernel.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest
from tests.unit.core.life_world import World, bad, begin, good, swaps, unit

from sagong.kernel import life, resumption
from sagong.kernel.units import Unit

_ACTIVE = ("starting", "serving", "draining", "clinging", "ending")
OVERLAPPING = (unit("a", overlap=True), unit("b", overlap=True))
EXCLUSIVE = (unit("a", overlap=False), unit("b", overlap=False))
MIXED = (unit("a", overlap=True), unit("b", overlap=False))


def hold(world: World) -> None:
    """What is true in every state."""
    one = world.life
    doing = dict(world.processes)
    assert {m.generation for m in one.members} == set(doing), "a process without an owner"
    assert not one.serving or doing[one.serving] in ("serving", "ending"), "a dead one is published"
    for generation, what in doing.items():
        wanted = one.coming is not None and one.coming.generation == generation
        assert wanted or what not in ("forking", "waiting", "starting"), "one that nobody wants"
        assert what != "serving" or generation == one.serving, "two serve"
    active = [m for m in one.members if doing[m.generation] in _ACTIVE]
    alone = [m for m in active if not m.what.manifest.restart.overlap]
    assert not alone or len(active) == 1, "one that must be alone is not"


def settle(world: World) -> World:
    """To the end, when nothing goes wrong any more; it has an end."""
    for _ in range(60):
        # The trial is over last: all else is quicker.
        moves = sorted(good(world), key=lambda move: move[0] == "trial over")
        if not moves:
            return world
        world = moves[0][1]()
        hold(world)
    raise AssertionError("no end")


def ends_well(world: World) -> None:
    """One serves, nothing else lives, the trial is decided, every swap had its answer."""
    end = settle(replace(world, watched=world.watched))
    one = end.life
    assert [d for _, d in end.processes] == ["serving"], end.processes
    assert one.serving and one.coming is None and one.trial is None
    assert end.finished >= end.asked, "an operator waits for ever"
    member = one.member(one.serving)
    assert member is not None
    assert not world.returns or member.what.package == world.returns, "no return"


def explore(units: tuple[Unit, ...], depth: int) -> int:
    """All states within `depth` moves; how many there are."""
    start = begin(units[0])
    seen = {start.key()}
    todo = deque([(start, 0, ())])
    while todo:
        world, moved, path = todo.popleft()
        try:
            hold(world)
            ends_well(world)
        except (AssertionError, AttributeError, KeyError) as error:
            raise AssertionError(f"{error} after {', '.join(path)}") from error
        if moved == depth:
            continue
        for name, move in chain(good(world), bad(world), swaps(world, units)):
            following = move()
            if (key := following.key()) not in seen:
                seen.add(key)
                todo.append((following, moved + 1, (*path, name)))
    return len(seen)


@pytest.mark.parametrize(
    "units", [OVERLAPPING, EXCLUSIVE, MIXED], ids=["overlap", "alone", "mixed"]
)
def test_every_interleaving_ends_well(units: tuple[Unit, ...]) -> None:
    assert explore(units, 8) > 500


def _skip(*_: Any, **__: Any) -> None:
    """Does nothing."""


def _start_at_once(turn: Any) -> None:
    coming = turn.life.coming
    if coming is not None and turn._is(coming.generation, "waiting"):
        turn._stage(coming.generation, "starting")
        turn._do(life.Start(coming.generation, b""))


def _keep_newcomers(one: Any, record: Any, process: Any, actions: Any) -> Any:
    member = life.Member(process.generation, process.what, process.stage)
    serving = process.generation if process.stage == "serving" else one.serving
    return replace(one, members=(*one.members, member), serving=serving)


def _always_free(turn: Any, generation: int, state: bytes, *, free: bool) -> None:
    turn._stage(generation, "tidying")
    turn._do(life.End(generation))


def _stay(turn: Any, trial: Any, why: str) -> None:
    turn._set(trial=None)
    turn.raise_if_needed()


def _forget_the_unwanted(turn: Any, generation: int) -> None:
    turn._stage(generation, "waiting")


MUTANTS: dict[str, tuple[Any, str, Any]] = {
    "starts beside one that must be alone": (life._Turn, "advance", _start_at_once),
    "never drains": (life._Turn, "_drain", _skip),
    "does not go back": (life._Turn, "_go_back", _stay),
    "gives up after a failed swap": (life._Turn, "_swap_failed", _skip),
    "does not retry": (life._Turn, "_rest", _skip),
    "does not hear that one was drained": (life._Turn, "drained", _skip),
    "takes an overdue one for one that let go": (life._Turn, "drained", _always_free),
    "kills nobody": (life._Turn, "_kill", _skip),
    "tells no operator": (life._Turn, "_finish", _skip),
    "a new kernel keeps newcomers": (resumption, "_take", _keep_newcomers),
    "overlooks an exit": (life._Turn, "_crashed", _skip),
    "ignores illness": (life._Turn, "ill", _skip),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_protocol_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target, attribute, broken = MUTANTS[name]
    monkeypatch.setattr(target, attribute, broken)
    with pytest.raises(AssertionError):
        explore(EXCLUSIVE, 7)
