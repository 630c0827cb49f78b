"""A pace: so many at once, and so many a second after that, of each one who comes."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

__all__ = ["Pace"]

_KNOWN = 4096
# Less than that is rounding.
_INSTANT = 1e-6


@dataclass
class Pace:
    """For each one: when all that it has taken will be paid off (the generic cell rate algorithm).

    `burst` may be taken at once by whoever took nothing for a while; then `rate` a second.
    """

    burst: int
    rate: float
    _paid: dict[Hashable, float] = field(default_factory=dict)

    def wait(self, who: Hashable, now: float) -> float:
        """Seconds until it may have one more; 0 for at once. Asking takes nothing."""
        wait = self._paid.get(who, now) - now - (self.burst - 1) / self.rate
        return wait if wait > _INSTANT else 0.0

    def take(self, who: Hashable, now: float) -> None:
        """It has one more, now or when it has waited."""
        if len(self._paid) >= _KNOWN:
            self._paid = {one: paid for one, paid in self._paid.items() if paid > now}
        self._paid[who] = max(self._paid.get(who, now), now) + 1 / self.rate

    def give_back(self, who: Hashable) -> None:
        """One that it took does not count."""
        if who in self._paid:
            self._paid[who] -= 1 / self.rate

    def forget(self, who: Hashable) -> None:
        """It is somebody else now."""
        self._paid.pop(who, None)
