"""The clock of leases: when each ends; sleeps until the next one does, and costs no disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from sagong.contracts.state import Lease

__all__ = ["Tenure"]


class Tenure:
    """Living leases and their ends; `ended` is called with each one whose time is over."""

    def __init__(self, leases: Iterable[Lease], *, ended: Callable[[Lease], None]) -> None:
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._ends: dict[str, tuple[Lease, float]] = {}
        self._timer: asyncio.TimerHandle | None = None
        for lease in leases:
            self.begin(lease)

    def begin(self, lease: Lease) -> None:
        """Give a lease its full time, from now on."""
        self._set(lease, lease.seconds)

    def _set(self, lease: Lease, seconds: float) -> None:
        end = self._loop.time() + seconds
        self._ends[lease.id] = (lease, end)
        if self._timer is None or end < self._timer.when():
            self._arm(end)

    def find(self, name: str) -> Lease | None:
        """A lease that lives."""
        found = self._ends.get(name)
        return None if found is None else found[0]

    def end(self, name: str) -> None:
        """Forget a lease."""
        self._ends.pop(name, None)

    def living(self) -> tuple[Lease, ...]:
        """All that live, by id."""
        return tuple(self._ends[name][0] for name in sorted(self._ends))

    def remaining(self) -> dict[str, float]:
        """Seconds that each lease has left."""
        now = self._loop.time()
        return {name: max(0.0, end - now) for name, (_, end) in self._ends.items()}

    def next_end(self) -> float:
        """Seconds until the next lease ends; infinite if none does."""
        ends = (end for _, end in self._ends.values())
        return max(min(ends, default=float("inf")) - self._loop.time(), 0.0)

    def resume(self, remaining: Mapping[str, float]) -> None:
        """Let leases end when they would have ended in the process that measured `remaining`."""
        for name, seconds in remaining.items():
            found = self._ends.get(name)
            if found is not None:
                self._set(found[0], min(max(0.0, seconds), found[0].seconds))

    def stop(self) -> None:
        """Let no more leases end."""
        self._ends.clear()
        self._disarm()

    def _arm(self, end: float) -> None:
        self._disarm()
        self._timer = self._loop.call_at(end, self._ring)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        # A timer may ring a clock tick early.
        now = self._loop.time() + 0.001
        over = [lease for lease, end in self._ends.values() if end <= now]
        for lease in over:
            del self._ends[lease.id]
        if self._ends:
            self._arm(min(end for _, end in self._ends.values()))
        for lease in over:
            self._ended(lease)
