"""Usage: who computes, and how soon to look again, from what processes have used of the processor.

Pure: totals and times go in. Who uses most of a core for longer than a moment *computes*, until it has
used less for as long: a leaky bucket for each. Where several compute, or one gives way, each gets less
than that: so one of whose threads never sleeps, since it always runs or waits for a core, computes as
well. Who computes and gets next to nothing *starves*.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["Stance", "Usage"]

# Of a core: what one may use all the time, being called without a pause for example.
_RATE = 0.6
# Seconds of a core beyond that: to be taken for who computes, and the most that is remembered.
_MOMENT, _MOST = 0.015, 1.2
# Of the time: what a thread that never sleeps runs or waits at least; what one that is called does not.
# What it waits is counted when it runs at last, which may take so many seconds on a full machine.
_RESTLESS, _UNDECIDED = 0.9, 1.0
# Of a core: threads are looked at of who uses so much. Who has less than the second starves, until it
# has had twice as much, on average over a second.
_DOUBTFUL, _STARVING, _OVER = 0.1, 0.05, 1.0
# Cores that all use together -> seconds until the next look. Nobody waits where nobody does anything.
_SOON, _BUSY = 0.05, 0.3
_LATER, _ASTIR = 0.1, 0.02
SELDOM = 1.0
_NOTHING: Mapping[int, Any] = {}


class Stance(NamedTuple):
    """How one stands to the processor."""

    computes: bool = False
    starves: bool = False


_ORDINARY = Stance()


@dataclass
class _Account:
    """Seconds of the processor in all, at the last look and now; how much was too much.

    `threads` are nanoseconds that each has run or waited, at the last look; `share` is the part of a
    core that it has had of late, None at first; `slept` is for how many seconds it has not been seen
    that it does not sleep.
    """

    before: float
    total: float
    excess: float = 0.0
    stance: Stance = _ORDINARY
    threads: Mapping[int, int] = field(default_factory=dict)
    share: float | None = None
    slept: float = _UNDECIDED


class Usage:
    """What each process has used; `who` is its number."""

    def __init__(self) -> None:
        self._accounts: dict[int, _Account] = {}
        self._at = 0.0
        self.pause = SELDOM

    def keep(self, known: Collection[int]) -> None:
        """Forget all others."""
        self._accounts = {who: one for who, one in self._accounts.items() if who in known}

    def note(self, who: int, total: float) -> None:
        """It has used so many seconds since it began; the first time nothing is known of before."""
        account = self._accounts.setdefault(who, _Account(total, total))
        account.total = total

    def hasten(self) -> None:
        """Somebody is new."""
        self.pause = min(self.pause, _LATER / 2)

    def doubtful(self, now: float) -> list[int]:
        """Of whom it has to be known as of now what their threads did (`settle`)."""
        passed = now - self._at
        return [
            who
            for who, one in self._accounts.items()
            if one.stance.computes or one.total - one.before > _DOUBTFUL * passed
        ]

    def settle(
        self, now: float, threads: Mapping[int, Mapping[int, int]] = _NOTHING
    ) -> dict[int, Stance]:
        """All totals are noted as of now: whose stance is another one than it was.

        `threads` are nanoseconds that each thread of the doubtful ones has run, or waited for a core.
        `pause` is how long to wait with the next look.
        """
        passed, self._at = now - self._at, now
        together = sum(one.total - one.before for one in self._accounts.values())
        self.pause = self._next_pause(together / passed if passed > 0 else 0.0)
        changed = {}
        for who, one in self._accounts.items():
            stance = _judged(one, passed, threads.get(who, _NOTHING))
            if stance != one.stance:
                changed[who] = one.stance = stance
        return changed

    def _next_pause(self, cores: float) -> float:
        """Twice as long each time that nothing was done."""
        if cores >= _BUSY:
            return _SOON
        return _LATER if cores >= _ASTIR else min(self.pause * 2, SELDOM)


def _judged(one: _Account, passed: float, threads: Mapping[int, int]) -> Stance:
    """How one stands now, by what it has done since the last look."""
    used, wanted = one.total - one.before, passed * 1e9 * _RESTLESS
    restless = any(
        spent - one.threads[thread] > wanted
        for thread, spent in threads.items()
        if thread in one.threads
    )
    one.slept = 0.0 if restless else one.slept + passed
    demand = max(used, passed) if restless else used
    if one.stance.computes and not restless and one.slept < _UNDECIDED:
        demand = max(used, _RATE * passed)
    excess = one.excess + demand - _RATE * passed
    one.excess, one.before, one.threads = min(max(excess, 0.0), _MOST), one.total, threads
    if one.share is None:
        one.share = 1.0  # it has come since the last look
    else:
        one.share += (used - one.share * passed) / max(_OVER, passed)
    computes = one.excess > (0.0 if one.stance.computes else _MOMENT)
    starves = computes and one.share < _STARVING * (2 if one.stance.starves else 1)
    return Stance(computes, starves)
