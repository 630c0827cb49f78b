"""Recent changes in memory, and the watchers that follow them, each at its own pace.

A watcher is a position, nothing is queued for it: a slow one costs no memory and holds nobody up.
One whose position has left the journal reads the file until it has caught up. A caught-up watcher
sleeps; changes that are not for it only move its position.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from sagong.contracts.state import WatchBatch, WatchEvent, WatchRequest
from sagong_state_sqlite.keys import covers

__all__ = ["Journal", "Watcher"]

Change = tuple[int, tuple[WatchEvent, ...]]

# Events of a batch, and revisions looked at for one, before others get their turn.
BATCH_EVENTS = 500
BATCH_REVISIONS = 2000


class Watcher:
    """Follows `[start, end)`; has seen everything up to `position`."""

    def __init__(self, request: WatchRequest, *, position: int) -> None:
        self.start = request.start
        self.end = request.end
        self.previous = request.previous
        self.position = position

    def chosen(self, events: Sequence[WatchEvent]) -> list[WatchEvent]:
        """The events that are for this watcher, as it wants them."""
        found = [event for event in events if covers(self.start, self.end, event.entry.key)]
        if self.previous:
            return found
        return [WatchEvent(entry=event.entry, deleted=event.deleted) for event in found]

    def concerned(self, changes: Sequence[Change]) -> bool:
        """Whether any of the changes is for this watcher."""
        return any(
            covers(self.start, self.end, event.entry.key)
            for _, events in changes
            for event in events
        )


class Journal:
    """The changes of revisions `(before, last]`, as many as `budget` bytes hold."""

    def __init__(self, revision: int, *, budget: int) -> None:
        self.before = revision
        self.last = revision
        self._budget = budget
        self._size = 0
        self._changes: deque[tuple[int, tuple[WatchEvent, ...]]] = deque()
        self._asleep: dict[Watcher, asyncio.Future[None]] = {}

    def publish(self, changes: Sequence[Change]) -> None:
        """Add committed changes, every revision in order, and wake whom they concern."""
        if not changes:
            return
        for _, events in changes:
            size = sum(map(_size, events))
            self._changes.append((size, events))
            self._size += size
        self.last = changes[-1][0]
        while self._size > self._budget and self._changes:
            self._size -= self._changes.popleft()[0]
            self.before += 1
        for watcher, sleeping in [*self._asleep.items()]:
            if watcher.concerned(changes):
                _wake(sleeping)
            elif not sleeping.done():
                watcher.position = self.last

    def holds(self, position: int) -> bool:
        """Whether everything after `position` is here."""
        return position >= self.before

    def take(self, watcher: Watcher) -> WatchBatch | None:
        """The next batch for a watcher whose position is held; None if nothing yet was for it."""
        found: list[WatchEvent] = []
        stop = min(self.last, watcher.position + BATCH_REVISIONS)
        while watcher.position < stop and len(found) < BATCH_EVENTS:
            found += watcher.chosen(self._changes[watcher.position - self.before][1])
            watcher.position += 1
        return WatchBatch(revision=watcher.position, events=tuple(found)) if found else None

    async def wait_change(self, watcher: Watcher, seconds: float) -> bool:
        """Sleep until something is for this caught-up watcher; False after `seconds` (0: never)."""
        loop = asyncio.get_running_loop()
        sleeping = self._asleep[watcher] = loop.create_future()
        timer = loop.call_later(seconds, _wake, sleeping) if seconds > 0 else None
        try:
            await sleeping
        finally:
            del self._asleep[watcher]
            if timer is not None:
                timer.cancel()
        return watcher.position < self.last

    def wake_all(self) -> None:
        """Let every watcher look up: the store closes."""
        for sleeping in self._asleep.values():
            _wake(sleeping)


def _wake(sleeping: asyncio.Future[None]) -> None:
    if not sleeping.done():
        sleeping.set_result(None)


def _size(event: WatchEvent) -> int:
    before = 0 if event.previous is None else len(event.previous.value)
    return 512 + len(event.entry.key) + len(event.entry.value) + before
