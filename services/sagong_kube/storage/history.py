"""The newest events in memory, so that most watches resume without asking the store."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque

from sagong_kube.storage.change import Event

__all__ = ["History"]


class History:
    """A bounded run of events; all changes after `floor` are in it."""

    def __init__(self, *, events: int = 8192, size: int = 8 << 20) -> None:
        self.floor = 0
        self._limit = events
        self._size_limit = size
        self._size = 0
        self._events: deque[Event] = deque()

    def reset(self, revision: int) -> None:
        """Forget everything: what was before `revision` is not known here."""
        self._events.clear()
        self._size = 0
        self.floor = revision

    def add(self, event: Event) -> None:
        """Keep an event, and drop the oldest that exceed the bounds."""
        self._events.append(event)
        self._size += event.size
        while len(self._events) > self._limit or self._size > self._size_limit:
            oldest = self._events.popleft()
            self._size -= oldest.size
            self.floor = oldest.revision

    def since(self, revision: int, storage: str) -> list[Event] | None:
        """A storage's events after `revision`; None when some may be missing."""
        if revision < self.floor:
            return None
        start = bisect_right(self._events, revision, key=lambda event: event.revision)
        return [
            self._events[at]
            for at in range(start, len(self._events))
            if self._events[at].storage == storage
        ]
