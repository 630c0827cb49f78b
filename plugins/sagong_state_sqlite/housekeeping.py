"""Work that the store gives itself: compaction and forgetting of answers, only while there is any.

A timer runs only when something will be due: an idle store neither wakes up nor writes. What is due
next stands in the file, so processes that are killed again and again compact in time all the same.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace

from sagong.call import detached
from sagong.errors import ResourceExhausted, Unavailable
from sagong_state_sqlite.batch import Counters, Due
from sagong_state_sqlite.settings import Settings
from sagong_state_sqlite.writer import Commit

__all__ = ["Housekeeping", "insist"]

# The contract's ten minutes, during which the same transaction is answered alike.
ANSWERS_SECONDS = 600.0
# Old answers of a process before this one are looked for when the first calls have been served.
SETTLED_SECONDS = 10.0
LONGEST_PAUSE = 30.0
# Of `history_seconds`: how long a watcher may be away though the file has grown too much.
RECENT = 0.01


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
    """Two timers, each armed by the first write after it has rung; growth rings the first sooner."""

    def __init__(
        self,
        settings: Settings,
        *,
        compact: Callable[[int], Awaitable[None]],
        forget: Callable[[float], Awaitable[bool]],
        spawn: Callable[..., asyncio.Task[None]],
    ) -> None:
        self._seconds = settings.history_seconds
        self._bytes = settings.history_bytes
        self._compact = compact
        self._forget = forget
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        self._last = Commit(Counters(0, 0, 0, 0))
        self._own = Due()
        self._floor = 0
        self._recent: deque[tuple[float, int]] = deque(maxlen=2)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._running: set[str] = set()
        self._remembered = False
        self._stopped = False

    def look(self, commit: Commit) -> None:
        """See what the store has now, and arm the timers that this asks for."""
        self._last = commit
        self._remembered = self._remembered or commit.remembered
        if self._seconds and commit.counters.revision > commit.counters.compacted:
            self._look_at_history(commit)
        if self._remembered:
            self._arm("forget", ANSWERS_SECONDS)

    def begin(self, commit: Commit) -> None:
        """Look at what a process before this one has left."""
        if commit.remembered:
            self._arm("forget", SETTLED_SECONDS)
        self.look(commit)

    def next_ring(self) -> float:
        """Seconds until something is due; infinite if nothing is."""
        times = (timer.when() for timer in self._timers.values())
        return max(min(times, default=float("inf")) - self._loop.time(), 0.0)

    def stop(self) -> None:
        """Disarm."""
        self._stopped = True
        for timer in self._timers.values():
            timer.cancel()

    def _look_at_history(self, commit: Commit) -> None:
        now, revision = self._loop.time(), commit.counters.revision
        if not self._recent or now - self._recent[-1][0] > self._seconds * RECENT:
            self._recent.append((now, revision))
        self._arm("compact", self._left(self._due(commit)))
        if commit.used > self._floor + self._bytes:
            self._floor = commit.used
            self._ring_now("compact")

    def _due(self, commit: Commit) -> Due:
        """What the file has as due; if that is compacted already, what came after it."""
        compacted = commit.counters.compacted
        if commit.due.revision > compacted:
            return commit.due
        if self._own.revision <= compacted:
            self._own = Due(commit.counters.revision, time.time())
        return self._own

    def _left(self, due: Due) -> float:
        """Seconds until it is due; a clock that was set back must not put it off for ever."""
        return min(max(due.time + self._seconds - time.time(), 0.0), self._seconds)

    def _arm(self, name: str, seconds: float) -> None:
        if name not in self._timers and not self._stopped:
            self._timers[name] = self._loop.call_later(seconds, self._ring, name)

    def _ring_now(self, name: str) -> None:
        timer = self._timers.get(name)
        if timer is not None and name not in self._running:
            timer.cancel()
            self._ring(name)

    def _ring(self, name: str) -> None:
        self._running.add(name)
        with detached():
            self._spawn(self._work(name), f"state {name}")

    async def _work(self, name: str) -> None:
        work = self._compact_due if name == "compact" else self._forget_old
        # The timer stays listed while its work runs, so that it is not armed twice.
        await insist(work, needless=lambda: self._stopped)
        self._timers.pop(name, None)
        self._running.discard(name)
        self.look(replace(self._last, remembered=False))

    async def _compact_due(self) -> None:
        due = self._due(self._last)
        revision = due.revision if self._left(due) <= 0.0 else self._recent[0][1]
        if revision > self._last.counters.compacted:
            await self._compact(revision)
        self._floor = self._last.used

    async def _forget_old(self) -> None:
        self._remembered = False
        left = await self._forget(ANSWERS_SECONDS)
        self._remembered = self._remembered or left
