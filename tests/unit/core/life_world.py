"""A world around `sagong.kernel.life`: simulated processes, timers, and a kernel that can be killed.

A state is a value; `moves` lists all that can happen in it next, faults as long as their budget lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from sagong.kernel import life, resumption
from sagong.kernel.happenings import (
    Action,
    Begin,
    Drain,
    Drained,
    End,
    Event,
    Exited,
    Failed,
    Finish,
    Idle,
    Ill,
    Kill,
    Launch,
    Launched,
    Leave,
    Remember,
    Reset,
    Retry,
    RetryIn,
    Settle,
    Start,
    Started,
    Swap,
    TrialOver,
    Wake,
    WakeIn,
    Watch,
)
from sagong.kernel.life import Life
from sagong.kernel.resumption import Found, record_of
from sagong.kernel.units import Unit
from sagong.manifest import parse

# Whether what has proved itself is chosen before the journal says that its trial is over.
REMEMBERS_FIRST = True


def unit(plugin: str, *, overlap: bool, on_demand: bool = False, waits: bool = False) -> Unit:
    """A real unit of a manifest."""
    text = f"""
    [plugin]
    name = "{plugin}"
    version = "1"
    summary = "of a model"
    class = "m:M"
    [provides]
    scheduler = 1
    [uses]
    {'objects = { version = 1, why = "follows them" }' if waits else ""}
    [restart]
    overlap = {str(overlap).lower()}
    [life]
    on_demand = {str(on_demand or waits).lower()}
    wakes_on = {["objects"] if waits else []}
    """
    return Unit("scheduler", "", parse(text, where=plugin), plugin, {}, {})


@dataclass(frozen=True)
class World:
    """`processes` are (generation, doing); what they do is what they were last told to do.

    `word` was left with a provider: what the unit waits for wakes it. `news` is that it has happened,
    and no process that serves has seen it; `alarm` that it said when it is to be up.
    """

    life: Life
    processes: tuple[tuple[int, str], ...] = ()
    last: int = 0
    retry: bool = False
    watched: int = 0
    faults: int = 3
    swaps: int = 2
    kills: int = 1
    finished: int = 0
    settled: int = 0
    asked: int = 0
    remembered: str = ""
    returns: str = ""
    calls: int = 2
    wanted: bool = False
    word: bool = False
    news: bool = False
    alarm: bool = False
    chosen: Unit | None = None
    cut: int = -1

    def doing(self, generation: int) -> str:
        """What a process does; "" if there is none."""
        return dict(self.processes).get(generation, "")

    def key(self) -> object:
        """States that differ only in the numbers of their generations are one."""
        known = sorted(g for g, _ in self.processes)
        names = {g: n for n, g in enumerate(known, 1)}
        one = self.life
        coming, trial = one.coming, one.trial
        return (
            one.what.package,
            tuple((names.get(m.generation), m.what.package, m.stage) for m in one.members),
            names.get(one.serving),
            coming
            and (
                names.get(coming.generation),
                names.get(coming.old),
                coming.what.package,
                coming.back and coming.back.package,
                bool(coming.apology),
                coming.trial,
            ),
            trial and (names.get(trial.generation), trial.back.package),
            (len(one.crashes), one.down, one.resting),
            tuple((names[g], d) for g, d in self.processes),
            (self.retry, names.get(self.watched), self.faults, self.swaps, self.kills),
            (self.finished, self.asked, self.returns),
            (self.calls, self.wanted, bool(one.asleep), bool(one.kept)),
            (names.get(one.dozing), self.word, self.news, self.alarm),
            (self.chosen and self.chosen.package, self.cut),
        )


def begin(what: Unit) -> World:
    """A unit that is to come up."""
    return feed(World(Life(what), chosen=what), Begin())


def feed(world: World, event: Event) -> World:
    """What the supervisor makes of an event."""
    fresh = world.last + 1
    after, actions = life.step(world.life, event, 0.0, fresh)
    if after.asleep == fresh:
        world = replace(world, last=fresh)
    if REMEMBERS_FIRST:
        world = _remembered(world, actions)
    if world.cut >= 0:
        partly = _do(replace(world, life=after), actions[: world.cut])
        return _new_kernel(replace(partly, cut=-1))
    world = _do(_remembered(replace(world, life=after), actions), actions)
    # Whoever waits asks whoever answers for one that is asleep, and so wakes it.
    waiting = world.wanted and world.life.asleep and not isinstance(event, Wake)
    return feed(world, Wake()) if waiting else world


def _remembered(world: World, actions: tuple[Action, ...]) -> World:
    chosen = [action.what for action in actions if isinstance(action, Remember)]
    return replace(world, chosen=chosen[-1]) if chosen else world


def _do(world: World, actions: tuple[Action, ...]) -> World:
    for action in actions:
        match action:
            case Launch(generation):
                world = _told(replace(world, last=generation), generation, "forking")
            case Start(generation):
                world = _told(world, generation, "starting")
            case Drain(generation):
                world = _told(world, generation, "draining")
            case End(generation):
                word = "ending" if world.doing(generation) == "clinging" else "tidying"
                world = _told(world, generation, word)
            case Kill(generation):
                unused = world.doing(generation) in ("forking", "waiting", "tidying", "leaving")
                world = _told(world, generation, "leaving" if unused else "ending")
            case RetryIn():
                world = replace(world, retry=True)
            case WakeIn():
                world = replace(world, alarm=True)
            case Watch(generation):
                world = replace(world, watched=generation)
            case Finish():
                world = replace(world, finished=world.finished + 1)
            case Settle():
                world = replace(world, settled=world.settled + 1)
            case Remember(what):
                world = replace(world, remembered=what.package)
    return world


def _told(world: World, generation: int, doing: str) -> World:
    rest = tuple((g, d) for g, d in world.processes if g != generation)
    return replace(world, processes=(*rest, (generation, doing)))


def _gone(world: World, generation: int) -> World:
    rest = tuple((g, d) for g, d in world.processes if g != generation)
    return replace(world, processes=rest)


Move = tuple[str, Callable[[], World]]


def good(world: World) -> Iterator[Move]:
    """What happens by itself when nothing goes wrong."""
    for generation, doing in world.processes:
        g = generation
        if doing == "forking":
            yield f"attends {g}", partial(feed, _told(world, g, "waiting"), Launched(g))
        elif doing == "starting":
            yield f"started {g}", partial(_serves, world, g)
        elif doing == "draining":
            yield f"drained {g}", partial(_drained, world, g)
        elif doing in ("ending", "tidying", "leaving"):
            yield f"exited {g}", partial(feed, _gone(world, g), Exited(g))
    if world.alarm and world.life.asleep:
        yield "alarm", lambda: feed(replace(world, alarm=False), Wake())
    if world.retry:
        yield "retry", lambda: feed(replace(world, retry=False), Retry())
    if world.watched:
        yield (
            "trial over",
            lambda: feed(replace(world, watched=0, returns=""), TrialOver(world.watched)),
        )


def _serves(world: World, generation: int) -> World:
    """Whoever waited is served, if this one is what callers are sent to."""
    world = feed(_told(world, generation, "serving"), Started(generation))
    if world.life.serving != generation:
        return world
    return replace(world, wanted=False, news=False)


def _drained(world: World, generation: int) -> World:
    """One that falls asleep leaves word before that, and has it back at once if there is news."""
    dozes = world.life.dozing == generation
    waits = dozes and bool(world.life.what.manifest.life.wakes_on)
    seconds = 1.0 if waits else 0.0
    after = feed(
        replace(world, word=world.word or waits), Drained(generation, b"state", True, seconds)
    )
    return happen(after) if after.news and after.word else after


def happen(world: World) -> World:
    """What the unit waits for; whoever serves sees it, with whom word was left tells of it."""
    if world.doing(world.life.serving) == "serving":
        return replace(world, news=False)
    told = replace(world, word=False, news=True)
    return feed(told, Wake()) if world.word else told


def demand(world: World) -> Iterator[Move]:
    """Somebody calls, or nobody did for long."""
    serving = world.life.serving
    if world.calls:
        less = replace(world, calls=world.calls - 1)
        if world.life.what.manifest.uses and not world.news:
            yield "news", lambda: happen(less)
        if not serving:
            called = replace(less, wanted=True)
            yield "call", lambda: feed(called, Wake()) if world.life.asleep else called
        elif world.doing(serving) == "serving":
            yield "idle", lambda: feed(less, Idle(serving))


def bad(world: World) -> Iterator[Move]:
    """Faults: deaths, failures, illness, and the kernel's own death."""
    less = replace(world, faults=world.faults - 1)
    for generation, doing in world.processes if world.faults else ():
        g = generation
        fallen = _returning(less, g)
        if doing in ("waiting", "starting", "serving", "draining", "forking"):
            yield f"dies {g}", partial(feed, _gone(fallen, g), Exited(g))
        if doing == "starting":
            # It says so, and does nothing more until it is ended.
            yield f"fails {g}", partial(feed, _told(less, g, "failed"), Failed(g, "no"))
        if doing == "draining":
            yield f"overdue {g}", partial(feed, _told(less, g, "clinging"), Drained(g))
        if doing == "serving" and world.watched == g:
            yield f"ill {g}", partial(feed, fallen, Ill(g, "ill"))
        if doing == "serving":
            yield f"hangs {g}", partial(feed, fallen, Ill(g, "silent", True))
    if world.kills and world.cut < 0:
        yield "kernel killed", lambda: _new_kernel(world)
        for count in (0, 1):
            dies = partial(replace, world, cut=count)
            yield f"kernel dies after {count} actions of the next event", dies
        # Whoever was to be told was away.
        deaf = replace(world, word=False, news=world.news or world.word)
        yield "kernel killed, news", lambda: _new_kernel(deaf)


def _returning(world: World, generation: int) -> World:
    """Whoever fails in its trial, with no other on its way, has to be followed by `back`."""
    trial = world.life.trial
    if trial is None or trial.generation != generation or world.life.coming is not None:
        return world
    return replace(world, returns=trial.back.package)


def swaps(world: World, units: tuple[Unit, ...]) -> Iterator[Move]:
    """The operator wants another plugin."""
    if world.swaps and not life.refusal(world.life):
        for what in units:
            less = replace(world, swaps=world.swaps - 1, asked=world.asked + 1, returns="")
            yield f"swap to {what.package}", partial(feed, less, Swap(what, 5.0))


def reset(world: World) -> World:
    """The operator wants it tried again, as if nothing had gone wrong."""
    return feed(replace(world, retry=False, cut=-1), Reset())


def leave(world: World) -> World:
    """The operator takes the unit away."""
    return feed(replace(world, cut=-1), Leave())


def _new_kernel(world: World) -> World:
    """It knows the journal and what lives; one that was not in the journal yet is refused and ends."""
    before = world.life
    what = world.chosen
    assert what is not None
    processes = tuple((g, d) for g, d in world.processes if d != "forking")
    found = []
    for member in before.members:
        if dict(processes).get(member.generation):
            found.append(Found(member.generation, member.stage, member.what))
    after, actions = resumption.resume(what, record_of(before), found, 0.0)
    fresh = World(
        after,
        processes,
        world.last,
        faults=world.faults,
        swaps=world.swaps,
        kills=world.kills - 1,
        finished=world.asked,
        asked=world.asked,
        calls=world.calls,
        wanted=world.wanted,
        word=world.word,
        news=world.news,
        chosen=what,
    )
    serving = before.member(before.serving)
    if serving is not None and world.doing(before.serving) == "serving":
        wanted = serving.what == before.what and serving.stage == "serving"
        assert after.serving == before.serving or not wanted, "a new kernel ends one that serves"
    return feed(_do(fresh, actions), Begin())
