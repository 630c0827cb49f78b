"""The queue of pods to place: by priority, then age; failures wait, longer each time.

States of a pod::

    add ──► active ──pop──► (being decided) ──fail──► set aside ──wake──► backing off ──► active
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

import msgspec

from sagong.scheduling.shape import Pod

__all__ = ["PodQueue"]

FIRST_BACKOFF: Final = 1.0
LONGEST_BACKOFF: Final = 10.0
# Set aside pods are tried again after this, in case a change that helps was not recognised.
PATIENCE: Final = 300.0
Key = tuple[str, str]


class _Entry(msgspec.Struct):
    pod: Pod
    attempts: int = 0
    failed_at: float = 0.0
    number: int = 0
    state: str = "active"


class PodQueue:
    """Pure: the time is an argument."""

    def __init__(self) -> None:
        self._entries: dict[Key, _Entry] = {}
        self._active: list[tuple[int, int, Key]] = []
        self._backoff: list[tuple[float, int, Key]] = []
        self._number = 0
        self._aside = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Key) -> bool:
        return key in self._entries

    def get(self, key: Key) -> Pod | None:
        """A queued pod."""
        entry = self._entries.get(key)
        return entry.pod if entry is not None else None

    def add(self, pod: Pod) -> None:
        """A pod appeared, or changed so that it may fit now: it is tried at once."""
        entry = self._entries.setdefault(pod.key, _Entry(pod))
        entry.pod = pod
        self._activate(entry)

    def renew(self, pod: Pod) -> None:
        """A queued pod changed in what doesn't matter: it keeps its place."""
        entry = self._entries.get(pod.key)
        if entry is not None:
            entry.pod = pod

    def remove(self, key: Key) -> None:
        """A pod is placed or gone; unknown is no error."""
        entry = self._entries.pop(key, None)
        if entry is not None and entry.state == "aside":
            self._aside -= 1

    def pop(self, now: float) -> Pod | None:
        """The next pod to decide; it stays known until `remove`, `fail` or `add`."""
        self._ripen(now)
        while self._active:
            _, number, key = heapq.heappop(self._active)
            entry = self._entries.get(key)
            if entry is not None and entry.number == number and entry.state == "active":
                entry.state = "deciding"
                return entry.pod
        return None

    def fail(self, key: Key, now: float) -> None:
        """The pod fits nowhere; it waits for `wake`."""
        entry = self._entries.get(key)
        if entry is not None and entry.state != "aside":
            entry.attempts += 1
            entry.failed_at = now
            entry.state = "aside"
            self._aside += 1

    def retry(self, key: Key, now: float) -> None:
        """Something went wrong that has nothing to do with the pod: once more after its back-off."""
        self.fail(key, now)
        entry = self._entries.get(key)
        if entry is not None:
            self._wake(entry, now)

    def wake(self, now: float, whom: Callable[[Pod], bool] | None = None) -> None:
        """Something changed: pods set aside (of those `whom` names) are tried again."""
        if not self._aside:
            return
        for entry in self._entries.values():
            if entry.state == "aside" and (whom is None or whom(entry.pod)):
                self._wake(entry, now)

    def next_time(self) -> float | None:
        """When to look again without any change."""
        times = [self._backoff[0][0]] if self._backoff else []
        if self._aside:
            times += [e.failed_at + PATIENCE for e in self._entries.values() if e.state == "aside"]
        return min(times) if times else None

    def _wake(self, entry: _Entry, now: float) -> None:
        ready = entry.failed_at + min(FIRST_BACKOFF * 2 ** (entry.attempts - 1), LONGEST_BACKOFF)
        if ready <= now:
            self._activate(entry)
            return
        self._leave_aside(entry)
        entry.state = "backoff"
        self._number += 1
        entry.number = self._number
        heapq.heappush(self._backoff, (ready, entry.number, entry.pod.key))

    def _activate(self, entry: _Entry) -> None:
        self._leave_aside(entry)
        self._number += 1
        entry.number = self._number
        entry.state = "active"
        heapq.heappush(self._active, (-entry.pod.priority, entry.number, entry.pod.key))

    def _leave_aside(self, entry: _Entry) -> None:
        if entry.state == "aside":
            self._aside -= 1

    def _ripen(self, now: float) -> None:
        while self._backoff and self._backoff[0][0] <= now:
            _, number, key = heapq.heappop(self._backoff)
            entry = self._entries.get(key)
            if entry is not None and entry.number == number and entry.state == "backoff":
                self._activate(entry)
        if self._aside:
            for entry in self._entries.values():
                if entry.state == "aside" and entry.failed_at + PATIENCE <= now:
                    self._activate(entry)
