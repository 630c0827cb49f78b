"""Signs of life: what is seen of a process from outside, and whether it may be hung."""

from __future__ import annotations

from typing import NamedTuple

from sagong.linux.process import status_facts, thread_times

__all__ = ["Sign", "may_not", "sign", "stands_still", "starves"]

# Processor seconds in which everybody comes to an answer; part of the time that one waits who lacks it.
_ENOUGH, _CROWDED = 2.0, 0.5


class Sign(NamedTuple):
    """A process's main thread: its state, and times in nanoseconds.

    `state` is a letter of proc(5); `ran` on a core, `waited` for one; `traced` by a debugger, `frozen`
    with its control group. The kernel counts a wait when it ends: who waits for a core now is in state
    R, and may have waited all the time (kernel's sched-stats.rst, proc_PID_schedstat).
    """

    state: str
    ran: int
    waited: int
    traced: bool = False
    frozen: bool = False


def may_not(now: Sign) -> bool:
    """Whether it can't answer whatever it wants: somebody has it stand still, or a disk."""
    return now.traced or now.frozen or now.state == "D"


def starves(before: Sign, now: Sign, seconds: float) -> bool:
    """Whether one that was silent for so long had too little processor time to answer."""
    ran, waited = (now.ran - before.ran) / 1e9, (now.waited - before.waited) / 1e9
    return ran < _ENOUGH and (now.state == "R" or waited > _CROWDED * seconds)


def stands_still(before: Sign, now: Sign, seconds: float) -> bool:
    """Whether it did nothing for so long, nor would have if it had been let."""
    used = (now.ran + now.waited - before.ran - before.waited) / 1e9
    return not may_not(now) and now.state != "R" and used < _CROWDED * seconds


def sign(pid: int, *, frozen: bool = False) -> Sign | None:
    """A process as it is now; None if it has ended."""
    try:
        facts = status_facts(pid)
        ran, waited = thread_times(pid)[pid]
    except (OSError, KeyError, ValueError):
        return None
    return Sign(facts.state, ran, waited, facts.tracer != 0, frozen)
