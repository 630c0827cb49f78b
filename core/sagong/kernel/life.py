"""The life of a unit, as pure decisions: what happened goes in, what is to be done comes out.

A unit has members, the processes of its generations. Stages::

    launching ──► waiting ──► starting ──► serving ──► draining ──► tidying ──► (gone)
        │            │            │           │            │                      ▲
        └── failed ──┴────────────┴───────────┴── killed ──┴──► ending ───────────┘

One member at most serves, and one at most is `coming`: it is to serve next. Members that must not
overlap are never active at once; one that tidies has let go of all that its successor needs. A swap
is a `coming` that knows what to go back to; after it the newcomer is on trial: if it dies or is
found ill within, its predecessor comes back. Whoever serves and answers nothing is ended as if it
had died.

A unit on demand is *asleep* while nobody needs it: no member serves or comes, and a call wakes it::

    (begin) ──► asleep ──wake──► launching ─ … ─► serving ──idle──► draining, asleep ──► (gone)

It falls asleep as for a successor: what it exports is kept for the one that wakes. Until it has done
so it is *dozing*: if it dies or fails meanwhile, nobody knows what it waits for, and it comes up again.
`step` never waits, reads no clock and starts nothing: the supervisor does what it says.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

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
    Say,
    Settle,
    Start,
    Started,
    Swap,
    TrialOver,
    Wake,
    WakeIn,
    Watch,
)
from sagong.kernel.units import Unit

__all__ = ["Coming", "Life", "Member", "Trial", "refusal", "step"]

Stage = Literal["launching", "waiting", "starting", "serving", "draining", "tidying", "ending"]
_ACTIVE = frozenset({"starting", "serving", "draining", "ending"})

CRASHES, CRASH_WINDOW = 8, 60.0
_QUICK, _QUICK_WINDOW = 3, 10.0
_REST_DOWN, _REST_DOWN_MOST = 30.0, 300.0
_REST, _REST_MOST = 0.05, 5.0


@dataclass(frozen=True)
class Member:
    """A process of the unit, by its generation, with what it runs."""

    generation: int
    what: Unit
    stage: Stage


@dataclass(frozen=True)
class Coming:
    """Who is to serve next, with what `state`; `old` is whom it follows.

    With `back` it is a swap, and that is what serves if it fails. `apology` is what the operator is
    told at its end, where it comes because something else failed.
    """

    generation: int
    what: Unit
    old: int = 0
    state: bytes = b""
    back: Unit | None = None
    trial: float = 0.0
    apology: str = ""


@dataclass(frozen=True)
class Trial:
    """A newcomer that has to prove itself until then; `back` comes back if it does not."""

    generation: int
    back: Unit
    until: float


@dataclass(frozen=True)
class Life:
    """All that is decided upon. `what` is to fill the unit whenever something has to be raised.

    `resting` waits for a `Retry`; `down` means given up but for rare tries, `tries` so far.
    `asleep` is the number under which callers know one that nobody needs now, 0 for others; `kept`
    is what it exported, `dozing` who has not done so yet. `needed`: an earlier kernel had it
    awake, so it is to come up again.
    """

    what: Unit
    members: tuple[Member, ...] = ()
    serving: int = 0
    since: float = 0.0
    coming: Coming | None = None
    trial: Trial | None = None
    crashes: tuple[float, ...] = ()
    restarts: int = 0
    tries: int = 0
    down: bool = False
    resting: bool = False
    leaving: bool = False
    problem: str = ""
    asleep: int = 0
    kept: bytes = b""
    dozing: int = 0
    needed: bool = False

    @property
    def settled(self) -> bool:
        """Whether nobody need wait for it: it serves, sleeps, has failed, or is to go."""
        return bool(self.serving or self.asleep or self.problem or self.leaving)

    def member(self, generation: int) -> Member | None:
        """The member of that generation, if it lives."""
        return next((m for m in self.members if m.generation == generation), None)


def refusal(life: Life) -> str:
    """Why there can be no swap now; "" if there can."""
    if life.leaving:
        return "is being stopped"
    if life.coming is not None and life.coming.back is not None:
        return "is being swapped; wait until that has finished"
    if life.coming is not None and life.serving:
        return "is going back to its old plugin; wait until that has finished"
    if not life.serving and not life.asleep:
        name = life.what.name
        return (
            f"does not serve now ({life.problem or 'starting'}); use `sagong restart {name}`, or for "
            f"another plugin `sagong disable --force {name}` and `sagong enable {name} --plugin PLUGIN`"
        )
    return ""


def step(life: Life, event: Event, now: float, fresh: int) -> tuple[Life, tuple[Action, ...]]:
    """What follows from an event; `fresh` is a generation that nobody had, used at most once."""
    turn = _Turn(life, now, fresh)
    match event:
        case Begin():
            turn.begin()
        case Swap(what, trial):
            turn.swap(what, trial)
        case Launched(generation):
            turn.launched(generation)
        case Started(generation):
            turn.started(generation)
        case Failed(generation, error):
            turn.failed(generation, error)
        case Drained(generation):
            turn.drained(event)
        case Exited(generation, how):
            turn.exited(generation, how)
        case Ill(generation, error, hung):
            turn.ill(generation, error, hung=hung)
        case Idle(generation):
            turn.idle(generation)
        case Wake():
            turn.wake()
        case TrialOver(generation):
            turn.trial_over(generation)
        case Retry():
            turn.retry()
        case Reset():
            turn.reset()
        case Leave():
            turn.leave()
    turn.advance()
    return turn.life, tuple(turn.actions)


@dataclass
class _Turn:
    """One step in the making."""

    life: Life
    now: float
    fresh: int
    actions: list[Action] = field(default_factory=list)

    def begin(self) -> None:
        """Bring one up, or leave that to whoever needs it."""
        life = self.life
        self._set(needed=False)
        if life.serving or life.coming or life.resting or life.leaving or life.asleep:
            return
        waits = life.needed or life.what.manifest.life.expectant
        if life.what.idle_seconds and not waits:
            self._set(asleep=self.fresh)
        else:
            self.raise_if_needed()

    def raise_if_needed(self, state: bytes = b"", apology: str = "") -> None:
        """Bring up a new generation where none serves, comes, rests or sleeps."""
        life = self.life
        if life.serving or life.coming or life.resting or life.leaving or life.asleep:
            return
        self._bring(Coming(self.fresh, life.what, self._draining(), state, apology=apology))

    def idle(self, generation: int) -> None:
        """Let it go until somebody needs it, unless something is under way."""
        life = self.life
        member = life.member(generation)
        if generation != life.serving or member is None or not member.what.idle_seconds:
            return
        if life.coming is None and life.trial is None and not life.resting:
            self._set(asleep=self.fresh, serving=0, dozing=generation)
            self._stage(generation, "draining")
            self._do(Drain(generation, asleep=True))

    def wake(self) -> None:
        """Bring one up, with what the last one exported."""
        kept = self.life.kept
        if self.life.asleep:
            self._rouse()
            self.raise_if_needed(kept)

    def _rouse(self) -> None:
        self._set(asleep=0, kept=b"", dozing=0)

    def _draining(self) -> int:
        return next((m.generation for m in self.life.members if m.stage == "draining"), 0)

    def swap(self, what: Unit, trial: float) -> None:
        """Bring the newcomer beside the old one. What was still on trial is not gone back to."""
        life = self.life
        if refusal(life):
            return
        back = life.trial.back if life.trial else life.what
        title = what.manifest.plugin.name
        beside = f" beside generation {life.serving}" if life.serving else ""
        self._do(Say(f"starting {title}{beside}"))
        old = life.serving or self._draining()
        self._rouse()
        self._bring(Coming(self.fresh, what, old, life.kept, back=back, trial=trial))

    def launched(self, generation: int) -> None:
        """It waits for its turn, if it is still wanted."""
        if self.life.coming is not None and self.life.coming.generation == generation:
            self._stage(generation, "waiting")
        else:
            self._kill(generation)

    def started(self, generation: int) -> None:
        """The newcomer serves; the old one drains."""
        life, coming = self.life, self.life.coming
        if coming is None or coming.generation != generation:
            self._kill(generation)
            return
        self._stage(generation, "serving")
        old = life.serving
        self._set(serving=generation, coming=None, what=coming.what, since=self.now)
        self._set(problem="", down=False, trial=None, resting=False)
        if old:
            self._do(Say(f"new calls go to generation {generation}; draining the old one"))
            self._drain(old)
        self._conclude(coming)

    def _conclude(self, coming: Coming) -> None:
        title = coming.what.manifest.plugin.name
        if coming.apology:
            self._finish(ok=False, text=f"{coming.apology}; {title} serves again", coming=coming)
        if coming.back is None:
            return
        if coming.trial > 0:
            until = self.now + coming.trial
            self._set(trial=Trial(coming.generation, coming.back, until))
            self._do(Watch(coming.generation, coming.trial))
        else:
            self._do(Remember(coming.what))
        self._do(Finish(ok=True, text=f"{title} serves", generation=coming.generation))
        if coming.trial <= 0:
            self._do(Settle(ok=True, text=f"{title} stays"))

    def failed(self, generation: int, error: str) -> None:
        """It will never serve: end what there is of it, and decide without it."""
        member = self.life.member(generation)
        if member is None:
            return
        if member.stage == "launching":
            self._drop(generation)
        else:
            self._kill(generation)
        self._came_to_nothing(generation, error)

    def _came_to_nothing(self, generation: int, error: str) -> None:
        coming = self.life.coming
        if coming is None or coming.generation != generation:
            return
        self._set(coming=None)
        if coming.back is not None:
            self._swap_failed(coming, error)
            return
        self._note_crash(error)
        if coming.apology:
            title = coming.what.manifest.plugin.name
            text = f"{coming.apology}; {title} does not start either: {error}"
            self._finish(ok=False, text=text, coming=coming)
        if not self.life.serving or coming.apology:
            self._rest()

    def _swap_failed(self, coming: Coming, error: str) -> None:
        text = f"{coming.what.manifest.plugin.name} does not start: {error}"
        if self.life.serving:
            self._finish(
                ok=False, text=f"{text}; generation {self.life.serving} serves on", coming=coming
            )
            return
        assert coming.back is not None
        self._do(Say(f"{text}; going back to {coming.back.manifest.plugin.name}"))
        self._set(what=coming.back, trial=None)
        self.raise_if_needed(coming.state, text)

    def _finish(self, *, ok: bool, text: str, coming: Coming) -> None:
        self._do(Finish(ok=ok, text=text, generation=coming.generation))
        self._do(Settle(ok=ok, text=text))

    def drained(self, event: Drained) -> None:
        """Its successor gets what it exported, at once or when it is needed."""
        generation, coming = event.generation, self.life.coming
        if not self._is(generation, "draining"):
            return
        self._stage(generation, "tidying" if event.free else "ending")
        self._do(End(generation))
        if coming is not None and coming.old == generation:
            self._set(coming=replace(coming, state=event.state))
        elif generation == self.life.dozing:
            self._slept(event)

    def _slept(self, event: Drained) -> None:
        self._set(kept=event.state, dozing=0)
        if not event.free:
            self.wake()
        elif event.seconds:
            self._do(WakeIn(event.seconds))

    def exited(self, generation: int, how: str) -> None:
        """Whoever it was, it is gone."""
        hung = generation == self.life.serving and self._is(generation, "ending")
        self._drop(generation)
        told = f" ({how})" if how else ""
        if generation == self.life.dozing:
            self.wake()
        elif generation == self.life.serving:
            died = f"generation {generation} died{told}"
            self._crashed(generation, self.life.problem if hung else died)
        else:
            text = f"it ended before it served{told}; see `sagong logs {self.life.what.name}`"
            self._came_to_nothing(generation, text)

    def _crashed(self, generation: int, problem: str) -> None:
        life = self.life
        self._set(serving=0, restarts=life.restarts + 1)
        self._note_crash(problem)
        trial = life.trial
        if life.coming is not None:
            self._set(trial=None)  # whoever comes is its successor a little earlier
        elif trial is not None and trial.generation == generation:
            self._go_back(trial, "died")
        elif self.life.down or self._recent(_QUICK_WINDOW) > _QUICK:
            self._rest()
        else:
            self.raise_if_needed()

    def _go_back(self, trial: Trial, why: str) -> None:
        text = f"{self.life.what.manifest.plugin.name} {why} within its trial"
        self._set(what=trial.back, trial=None)
        self.raise_if_needed(apology=text)

    def ill(self, generation: int, error: str, *, hung: bool) -> None:
        """One that hangs is ended; is one on trial not well, its predecessor comes back by a swap."""
        life = self.life
        trial = life.trial
        if generation != life.serving or not self._is(generation, "serving"):
            return
        if hung:
            self._set(problem=error)
            self._kill(generation)
        elif trial is not None and trial.generation == generation and life.coming is None:
            text = f"{life.what.manifest.plugin.name} is not well within its trial: {error}"
            self._do(Say(f"{text}; going back to {trial.back.manifest.plugin.name}"))
            self._set(what=trial.back, trial=None, problem=text)
            self._bring(Coming(self.fresh, trial.back, generation, apology=text))

    def trial_over(self, generation: int) -> None:
        """It stays, and is what a swap under way would go back to."""
        life = self.life
        if life.trial is None or life.trial.generation != generation != 0:
            return
        if generation != life.serving:
            return
        member = life.member(generation)
        assert member is not None
        self._set(trial=None)
        if life.coming is not None and life.coming.back is not None:
            self._set(coming=replace(life.coming, back=member.what))
        self._do(Remember(member.what))
        self._do(Settle(ok=True, text=f"{member.what.manifest.plugin.name} stays"))

    def retry(self) -> None:
        """Try again; also to follow one that is ill, and serves because nobody could follow it."""
        life = self.life
        if life.resting:
            self._set(resting=False)
            self.raise_if_needed()
            if life.serving and life.coming is None:
                self._bring(Coming(self.fresh, life.what, life.serving, apology=life.problem))

    def reset(self) -> None:
        """As if nothing had ever gone wrong."""
        self._set(crashes=(), tries=0, down=False)
        self.retry()

    def leave(self) -> None:
        """Drain what serves, and bring nothing up again; who waits for a swap is told."""
        coming, trial = self.life.coming, self.life.trial
        self._set(leaving=True, resting=False, trial=None)
        self._rouse()
        if trial is not None:
            self._do(Settle(ok=False, text="the unit goes within its trial"))
        if coming is not None:
            self._set(coming=None)
            if self._is(coming.generation, "waiting", "starting"):
                self._kill(coming.generation)
            title = coming.what.manifest.plugin.name
            self._finish(ok=False, text=f"{title} does not start: the unit goes", coming=coming)
        if self.life.serving:
            serving = self.life.serving
            self._set(serving=0)
            self._stage(serving, "draining")
            self._do(Drain(serving, successor=False))

    def advance(self) -> None:
        """Start whoever comes as soon as it may run beside all others that are active."""
        coming = self.life.coming
        if coming is None or not self._is(coming.generation, "waiting"):
            return
        member = self.life.member(coming.generation)
        assert member is not None
        rivals = [
            m
            for m in self.life.members
            if m.stage in _ACTIVE and not (_overlaps(m) and _overlaps(member))
        ]
        for rival in rivals:
            if rival.stage == "serving":
                self._do(Say(f"draining generation {rival.generation}, which can't be overlapped"))
                self._set(serving=0)
                self._drain(rival.generation)
        if not rivals:
            self._stage(coming.generation, "starting")
            self._do(Start(coming.generation, coming.state))

    def _bring(self, coming: Coming) -> None:
        member = Member(coming.generation, coming.what, "launching")
        self._set(coming=coming, members=(*self.life.members, member))
        self._do(Launch(coming.generation, coming.what))

    def _rest(self) -> None:
        if self.life.leaving:
            return
        if self.life.down:
            seconds = min(_REST_DOWN * 2.0**self.life.tries, _REST_DOWN_MOST)
            self._set(tries=self.life.tries + 1)
        else:
            seconds = min(_REST * 2.0 ** self._recent(CRASH_WINDOW), _REST_MOST)
        self._set(resting=True)
        self._do(RetryIn(seconds))

    def _note_crash(self, problem: str) -> None:
        """Count it; one that was down has to serve for a while before it is trusted again."""
        life = self.life
        crashes = (*(t for t in life.crashes if self.now - t < CRASH_WINDOW), self.now)
        steady = self.now - life.since >= CRASH_WINDOW and life.since > 0 and not life.down
        tries = 0 if steady else life.tries
        down = len(crashes) >= CRASHES or tries > 0
        self._set(crashes=crashes[-CRASHES:], tries=tries, down=down, problem=problem)

    def _recent(self, seconds: float) -> int:
        return sum(1 for t in self.life.crashes if self.now - t < seconds)

    def _drain(self, generation: int) -> None:
        self._stage(generation, "draining")
        self._do(Drain(generation))

    def _kill(self, generation: int) -> None:
        if self.life.member(generation) is not None:
            self._stage(generation, "ending")
            self._do(Kill(generation))

    def _is(self, generation: int, *stages: Stage) -> bool:
        member = self.life.member(generation)
        return member is not None and member.stage in stages

    def _stage(self, generation: int, stage: Stage) -> None:
        members = tuple(
            replace(m, stage=stage) if m.generation == generation else m for m in self.life.members
        )
        self._set(members=members)

    def _drop(self, generation: int) -> None:
        self._set(members=tuple(m for m in self.life.members if m.generation != generation))

    def _set(self, **changes: object) -> None:
        self.life = replace(self.life, **changes)  # type: ignore[arg-type]

    def _do(self, action: Action) -> None:
        self.actions.append(action)


def _overlaps(member: Member) -> bool:
    return member.what.manifest.restart.overlap
