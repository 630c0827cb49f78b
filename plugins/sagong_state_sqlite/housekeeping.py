"""Work that the store gives itself: compaction and forgetting of answers, only while there is any.

A timer runs only when something will be due: an idle store neither wakes up nor writes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from sagong.call import detached
from sagong.errors import ResourceExhausted, Unavailable
from sagong_state_sqlite.batch import Counters
from sagong_state_sqlite.settings import Settings

__all__ = ["Housekeeping", "insist"]

# The contract's ten minutes, during which the same transaction is answered alike.
ANSWERS_SECONDS = 600.0
LONGEST_PAUSE = 30.0


async def insist(attempt: Callable[[], Awaitable[object]], *, needless: Callable[[], bool]) -> None:
    """Try until the disk lets it happen, or until it is not needed any more."""
    pause = 0.5
    while not needless():
        try:
            await attempt()
        except (ResourceExhausted, Unavailable):
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))
            pause = min(pause * 2, LONGEST_PAUSE)
        else:
            return


class Housekeeping:
    """Two timers, each armed by the first write after it has rung."""

    def __init__(
        self,
        settings: Settings,
        *,
        compact: Callable[[int], Awaitable[None]],
        forget: Callable[[float], Awaitable[bool]],
        spawn: Callable[..., asyncio.Task[None]],
    ) -> None:
        self._seconds = settings.history_seconds
        self._compact = compact
        self._forget = forget
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        self._counters: Counters | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._remembered = False
        self._stopped = False

    def look(self, counters: Counters, *, remembered: bool) -> None:
        """See what the store has now, and arm the timers that this asks for."""
        self._counters = counters
        if self._seconds and counters.revision > counters.compacted:
            self._arm("compact", self._seconds, lambda: self._compact_since(counters.revision))
        self._remembered = self._remembered or remembered
        if self._remembered:
            self._arm("forget", ANSWERS_SECONDS, self._forget_old)

    def stop(self) -> None:
        """Disarm."""
        self._stopped = True
        for timer in self._timers.values():
            timer.cancel()

    def _arm(self, name: str, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        if name not in self._timers and not self._stopped:
            self._timers[name] = self._loop.call_later(seconds, self._ring, name, work)

    def _ring(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        with detached():
            self._spawn(self._work(name, work), f"state {name}")

    async def _work(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        # The timer stays listed while its work runs, so that it is not armed twice.
        await insist(work, needless=lambda: self._stopped)
        self._timers.pop(name, None)
        if self._counters is not None:
            self.look(self._counters, remembered=False)

    async def _compact_since(self, revision: int) -> None:
        await self._compact(revision)

    async def _forget_old(self) -> None:
        self._remembered = False
        left = await self._forget(ANSWERS_SECONDS)
        self._remembered = self._remembered or left
