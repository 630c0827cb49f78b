"""What a new kernel makes of what it finds alive. Pure.

Whoever served goes on; who drained goes on draining, so that its state still reaches a successor;
whoever was on the way to serve is ended, for nobody knows how far it came. So a kernel that is killed
in the middle of a swap leaves one serving generation, and no process without an owner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sagong.kernel.happenings import Action, Drain, Kill, Watch
from sagong.kernel.journal import LifeRecord, ProcessRecord
from sagong.kernel.life import Life, Member, Trial
from sagong.kernel.units import Unit
from sagong.manifest import Manifest, Plugin

__all__ = ["Found", "orphan", "record_of", "resume"]


@dataclass(frozen=True)
class Found:
    """A living process: its generation, last known stage, and what it runs.

    `what` is None if that is no longer installed or configured.
    """

    generation: int
    stage: str
    what: Unit | None


def orphan(record: ProcessRecord) -> Unit:
    """A unit for a process whose own is no longer configured; it is about to be ended.

    It has that one's uid, and no right at all.
    """
    _, _, instance = record.identity.partition("@")
    plugin = Plugin(name=record.plugin, version="", summary="")
    return Unit(record.unit, instance, Manifest(plugin=plugin), "", {}, {})


def record_of(life: Life) -> LifeRecord:
    """What of a life has to outlive the kernel."""
    return LifeRecord(
        serving=life.serving,
        since=life.since,
        restarts=life.restarts,
        crashes=life.crashes,
        tries=life.tries,
        trial=life.trial.generation if life.trial else 0,
        until=life.trial.until if life.trial else 0.0,
        asleep=bool(life.asleep),
    )


def resume(
    what: Unit, record: LifeRecord, found: Sequence[Found], now: float
) -> tuple[Life, tuple[Action, ...]]:
    """The life of a unit that should run `what`, given what is alive of it."""
    life = Life(
        what,
        restarts=record.restarts,
        crashes=record.crashes,
        tries=record.tries,
        needed=not record.asleep,
    )
    actions: list[Action] = []
    for process in found:
        life = _take(life, record, process, actions)
    if life.serving and record.trial == life.serving:
        member = life.member(life.serving)
        assert member is not None
        life = replace(life, what=member.what, trial=Trial(life.serving, what, record.until))
        actions.append(Watch(life.serving, max(record.until - now, 0.0)))
    return life, tuple(actions)


def _take(life: Life, record: LifeRecord, process: Found, actions: list[Action]) -> Life:
    generation = process.generation
    what = process.what or life.what
    if process.what is not None and generation == record.serving and _fits(life, record, process):
        member = Member(generation, what, "serving")
        return replace(
            life, members=(*life.members, member), serving=generation, since=record.since
        )
    if process.what is not None and process.stage == "draining":
        actions.append(Drain(generation))
        return replace(life, members=(*life.members, Member(generation, what, "draining")))
    actions.append(Kill(generation))
    return replace(life, members=(*life.members, Member(generation, what, "ending")))


def _fits(life: Life, record: LifeRecord, process: Found) -> bool:
    """It runs what is configured, or is still on trial."""
    assert process.what is not None
    if process.stage != "serving":
        return False
    return process.what.identity == life.what.identity or record.trial == process.generation
