"""Usage: who computes, and how soon to look again, from what processes have used of the processor.

Pure: totals and times go in. Who uses most of a core for longer than a moment *computes*, until it has
used less for as long: a leaky bucket for each. Who gives way to others and gets little by that
computes no more, and goes before them again: so nobody has less than that part of a core in the end.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

__all__ = ["Usage"]

# Of a core: what one may use all the time, being called without a pause for example.
_RATE = 0.6
# Seconds of a core beyond that: to be taken for who computes, and the most that is remembered.
_MOMENT, _MOST = 0.015, 1.2
# Cores that all use together -> seconds until the next look. Nobody waits where nobody does anything.
_SOON, _BUSY = 0.05, 0.3
_LATER, _ASTIR = 0.1, 0.02
SELDOM = 1.0


@dataclass
class _Account:
    """Seconds of the processor in all, at the last look and now; how much was too much."""

    before: float
    total: float
    excess: float = 0.0
    computes: bool = False


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

    def settle(self, now: float) -> dict[int, bool]:
        """All totals are noted as of now: who computes that did not, or does no more.

        `pause` is how long to wait with the next look.
        """
        passed, self._at = now - self._at, now
        together = sum(one.total - one.before for one in self._accounts.values())
        self.pause = self._next_pause(together / passed if passed > 0 else 0.0)
        changed = {}
        for who, one in self._accounts.items():
            excess = one.excess + one.total - one.before - _RATE * passed
            one.excess, one.before = min(max(excess, 0.0), _MOST), one.total
            computes = one.excess > (0.0 if one.computes else _MOMENT)
            if computes != one.computes:
                changed[who] = one.computes = computes
        return changed

    def _next_pause(self, cores: float) -> float:
        """Twice as long each time that nothing was done."""
        if cores >= _BUSY:
            return _SOON
        return _LATER if cores >= _ASTIR else min(self.pause * 2, SELDOM)
