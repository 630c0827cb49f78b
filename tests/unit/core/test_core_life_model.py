"""Every interleaving of swaps, deaths, failures and the kernel's death keeps the protocol's promises.

The exploration is exhaustive within its bounds: three faults, two swaps, one death of the kernel.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest
from tests.unit.core import life_world
from tests.unit.core.life_world import (
    World,
    bad,
    begin,
    demand,
    feed,
    good,
    leave,
    reset,
    swaps,
    unit,
)

from sagong.kernel import life, resumption
from sagong.kernel.happenings import (
    Begin,
    Drained,
    End,
    Exited,
    Idle,
    Launch,
    Launched,
    Start,
    Started,
    Wake,
    WakeIn,
)
from sagong.kernel.journal import LifeRecord
from sagong.kernel.life import Life
from sagong.kernel.units import Unit

_ACTIVE = ("starting", "serving", "draining", "clinging", "ending")
OVERLAPPING = (unit("a", overlap=True), unit("b", overlap=True))
EXCLUSIVE = (unit("a", overlap=False), unit("b", overlap=False))
MIXED = (unit("a", overlap=True), unit("b", overlap=False))
SLEEPERS = (
    unit("a", overlap=True, on_demand=True),
    unit("b", overlap=False, on_demand=True),
    unit("c", overlap=False),
)


EXPECTANT = (
    unit("a", overlap=False, waits=True),
    unit("b", overlap=True, waits=True),
    unit("c", overlap=False),
)


def hold(world: World) -> None:
    """What is true in every state."""
    one = world.life
    doing = dict(world.processes)
    if one.asleep:
        assert not one.serving and one.coming is None and not one.resting, "asleep and yet not"
        assert not world.wanted, "who waits wakes nobody"
        assert one.what.idle_seconds, "one that is to be there always sleeps"
    assert {m.generation for m in one.members} == set(doing), "a process without an owner"
    assert not one.serving or doing[one.serving] in ("serving", "ending"), "a dead one is published"
    for generation, what in doing.items():
        wanted = one.coming is not None and one.coming.generation == generation
        # Who leaves ends what is only being forked as soon as it is there.
        wanted |= one.leaving and what == "forking"
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
    """One serves, or sleeps and nobody waits; nothing else lives, the trial is decided, every swap had
    its answer."""
    end = settle(replace(world, watched=world.watched))
    one = end.life
    assert [d for _, d in end.processes] == ["serving"] * bool(one.serving), end.processes
    assert bool(one.serving) != bool(one.asleep) and one.coming is None and one.trial is None
    assert not end.wanted, "a caller waits for ever"
    assert not end.news, "it sleeps on, whatever happens"
    assert bool(one.kept) <= bool(one.asleep), "a state is kept for nobody"
    assert end.finished >= end.asked, "an operator waits for ever"
    told = end.settled > world.settled or world.cut >= 0  # whom the kernel would tell it dies with
    assert world.life.trial is None or told, "nobody tells of the trial"
    if one.asleep:
        assert not world.returns or one.what.package == world.returns, "no return"
        return
    member = one.member(one.serving)
    assert member is not None
    assert not world.returns or member.what.package == world.returns, "no return"


def leaves_well(world: World) -> None:
    """Taken away, nothing of it is left, and nothing comes again."""
    end = settle(leave(world))
    assert end.processes == () and end.life.coming is None, "something stays of who left"
    assert end.finished >= end.asked, "an operator waits for ever"
    assert world.life.trial is None or end.settled > world.settled, "nobody tells of the trial"


def comes_again(world: World) -> None:
    """Tried again, it does not rest; and one serves at last."""
    again = reset(world)
    assert not again.life.down and not again.life.resting, "it rests on"
    ends_well(replace(again, returns=""))


def explore(units: tuple[Unit, ...], depth: int) -> int:
    """All states within `depth` moves; how many there are."""
    start = begin(units[0])
    seen = {start.key()}
    todo: deque[tuple[World, int, tuple[str, ...]]] = deque([(start, 0, ())])
    while todo:
        world, moved, path = todo.popleft()
        try:
            hold(world)
            ends_well(world)
            if not moved % 2:
                leaves_well(world)
            if world.life.resting:
                comes_again(world)
        except (AssertionError, AttributeError, KeyError) as error:
            raise AssertionError(f"{error} after {', '.join(path)}") from error
        if moved == depth:
            continue
        calls = demand(world) if units in (SLEEPERS, EXPECTANT) else iter(())
        for name, move in chain(good(world), bad(world), swaps(world, units), calls):
            try:
                following = move()
            except AssertionError as error:
                raise AssertionError(f"{error} after {', '.join((*path, name))}") from error
            if (key := following.key()) not in seen:
                seen.add(key)
                todo.append((following, moved + 1, (*path, name)))
    return len(seen)


@pytest.mark.parametrize(
    "units,depth",
    [(OVERLAPPING, 8), (EXCLUSIVE, 8), (MIXED, 8), (SLEEPERS, 7), (EXPECTANT, 6)],
    ids=["overlap", "alone", "mixed", "asleep", "expectant"],
)
def test_every_interleaving_ends_well(units: tuple[Unit, ...], depth: int) -> None:
    assert explore(units, depth) > 500


def _down_after(deaths: int) -> World:
    """One that dies so often right after its start."""
    world = begin(OVERLAPPING[0])
    for _ in range(deaths):
        while not world.life.serving:
            world = good(world).__next__()[1]()
        world = feed(replace(world, processes=()), Exited(world.life.serving))
    return world


def test_one_that_dies_again_and_again_is_down_and_still_comes_back() -> None:
    assert not _down_after(life.CRASHES - 1).life.down
    world = _down_after(life.CRASHES)
    assert world.life.down and world.life.resting
    comes_again(world)
    end = settle(world)
    assert end.life.serving and not end.life.down
    again = feed(replace(end, processes=()), Exited(end.life.serving))
    assert again.life.down, "it has to serve for a while before it is trusted again"


def _skip(*_: Any, **__: Any) -> None:
    """Does nothing."""


def _start_at_once(turn: Any) -> None:
    coming = turn.life.coming
    if coming is not None and turn._is(coming.generation, "waiting"):
        turn._stage(coming.generation, "starting")
        turn._do(Start(coming.generation, b""))


def _keep_newcomers(one: Any, record: Any, process: Any, actions: Any) -> Any:
    member = life.Member(process.generation, process.what, process.stage)
    serving = process.generation if process.stage == "serving" else one.serving
    return replace(one, members=(*one.members, member), serving=serving)


def _always_free(turn: Any, event: Drained) -> None:
    turn._stage(event.generation, "tidying")
    turn._do(End(event.generation))


def _stay(turn: Any, trial: Any, why: str) -> None:
    turn._set(trial=None)
    turn.raise_if_needed()


def _forget_the_unwanted(turn: Any, generation: int) -> None:
    turn._stage(generation, "waiting")


def test_what_one_exported_that_fell_asleep_is_restored_to_the_one_that_wakes() -> None:
    for early in (True, False):
        one, _ = life.step(Life(SLEEPERS[1]), Begin(), 0.0, 1)
        for event in (Wake(), Launched(2), Started(2), Idle(2)):
            one, _ = life.step(one, event, 0.0, 2 if isinstance(event, Wake) else 3)
        assert (one.asleep, one.serving) == (3, 0)
        drained = Drained(2, b"what was", True)
        steps = (Wake(), drained) if early else (drained, Wake())
        told = [life.step(one, steps[0], 0.0, 4)]
        told.append(life.step(told[0][0], steps[1], 0.0, 4))
        one, _ = told[-1]
        assert (one.asleep, one.kept) == (0, b"")
        one, actions = life.step(one, Launched(4), 0.0, 5)
        assert Start(4, b"what was") in actions


@pytest.mark.parametrize("asleep", [True, False])
def test_only_who_was_asleep_is_left_asleep_by_a_new_kernel(asleep: bool) -> None:
    """One that died, or was between two generations, while there was no kernel comes up again."""
    record = LifeRecord(serving=0 if asleep else 3, asleep=asleep)
    one, _ = resumption.resume(SLEEPERS[0], record, [], 0.0)
    one, actions = life.step(one, Begin(), 0.0, 7)
    assert bool(one.asleep) == asleep
    assert any(isinstance(action, Launch) for action in actions) != asleep


def test_one_that_said_when_it_is_to_be_up_is_woken_then() -> None:
    for seconds in (0.0, 30.0):
        one, _ = life.step(Life(SLEEPERS[0]), Begin(), 0.0, 1)
        for event in (Wake(), Launched(2), Started(2), Idle(2)):
            one, _ = life.step(one, event, 0.0, 2 if isinstance(event, Wake) else 3)
        one, actions = life.step(one, Drained(2, b"", True, seconds), 0.0, 4)
        assert (WakeIn(30.0) in actions) == bool(seconds)


def _always_idle(turn: Any, generation: int) -> None:
    if generation == turn.life.serving:
        turn._set(asleep=turn.fresh, serving=0)
        turn._drain(generation)


def _sleep_anyhow(turn: Any, event: Drained) -> None:
    turn._set(kept=event.state, dozing=0)


def _forget_who_dozes(turn: Any, generation: int) -> None:
    if generation == turn.life.serving:
        turn._set(asleep=turn.fresh, serving=0)
        turn._drain(generation)


def _begin_anyhow(turn: Any) -> None:
    if turn.life.what.idle_seconds:
        turn._set(asleep=turn.fresh)


SLEEPING_MUTANTS: dict[str, tuple[Any, str, Any]] = {
    "does not wake": (life._Turn, "wake", _skip),
    "falls asleep whatever is under way": (life._Turn, "idle", _always_idle),
    "a new kernel overlooks who serves": (life._Turn, "begin", _begin_anyhow),
    "does not go back": (life._Turn, "_go_back", _stay),
    "does not retry": (life._Turn, "_rest", _skip),
}


@pytest.mark.parametrize("name", SLEEPING_MUTANTS)
def test_a_broken_sleep_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*SLEEPING_MUTANTS[name])
    with pytest.raises(AssertionError):
        explore(SLEEPERS, 5)


EXPECTANT_MUTANTS: dict[str, tuple[Any, str, Any]] = {
    "does not wake": (life._Turn, "wake", _skip),
    "sleeps though it could not leave word": (life._Turn, "_slept", _sleep_anyhow),
    "overlooks the death of one that falls asleep": (life._Turn, "idle", _forget_who_dozes),
    "a new kernel leaves it asleep": (life._Turn, "begin", _begin_anyhow),
}


@pytest.mark.parametrize("name", EXPECTANT_MUTANTS)
def test_a_wake_up_that_is_lost_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*EXPECTANT_MUTANTS[name])
    with pytest.raises(AssertionError):
        explore(EXPECTANT, 6)


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
    "does not hear that one failed": (life._Turn, "failed", _skip),
    "does not try again when told": (life._Turn, "reset", _skip),
    "stays": (life._Turn, "leave", _skip),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_protocol_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target, attribute, broken = MUTANTS[name]
    monkeypatch.setattr(target, attribute, broken)
    with pytest.raises(AssertionError):
        explore(EXCLUSIVE, 7)


def test_a_choice_that_is_remembered_after_the_journal_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A kernel that died between the two was followed by one that ended what had just been proved."""
    monkeypatch.setattr(life_world, "REMEMBERS_FIRST", False)
    with pytest.raises(AssertionError, match="ends one that serves"):
        explore(OVERLAPPING[:1] + MIXED[1:], 7)
