"""What the API server does beside requests: leases for what expires, compaction, renewals to disk."""

from __future__ import annotations

import asyncio
import collections
import time

from sagong import call
from sagong.contracts.state import CompactRequest, Lease, State
from sagong.errors import SagongError
from sagong_kube.registry.resource import Resource
from sagong_kube.storage.renewals import Renewals
from sagong_kube.storage.store import Store

__all__ = ["Expiry", "Housekeeping"]

_EVENTS = "core/events"
_COMMIT_SECONDS = 600
_BUCKET_SECONDS = 60
_PERIOD_SECONDS = 60.0
_FLUSH_SECONDS = 600.0


class Expiry:
    """Leases of the store that events and marks of commits hang on, one a minute for each."""

    def __init__(self, store: Store, event_seconds: int) -> None:
        self._store = store
        self._event_seconds = event_seconds
        self._granted: dict[str, tuple[int, str]] = {}

    async def of_resource(self, resource: Resource) -> str:
        """The lease that a resource's objects are put with, "" for none."""
        if resource.storage != _EVENTS or not self._event_seconds:
            return ""
        return await self._lease("events", self._event_seconds)

    async def of_commits(self) -> str:
        """The lease of marks of commits."""
        return await self._lease("commits", _COMMIT_SECONDS)

    async def _lease(self, kind: str, seconds: int) -> str:
        bucket = int(time.time()) // _BUCKET_SECONDS
        known = self._granted.get(kind)
        if known is not None and known[0] == bucket:
            return known[1]
        name = f"kube-{kind}-{seconds}-{bucket}"
        await self._store.grant(Lease(id=name, seconds=float(seconds + _BUCKET_SECONDS)))
        self._granted[kind] = (bucket, name)
        return name


class Housekeeping:
    """A slow loop; in a quiet minute it writes nothing."""

    def __init__(
        self, store: Store, state: State, renewals: Renewals, history_seconds: int
    ) -> None:
        self._store = store
        self._state = state
        self._renewals = renewals
        self._history_seconds = history_seconds
        self._seen: collections.deque[tuple[float, int]] = collections.deque()
        self._compacted = 0
        self._flushed = time.monotonic()

    async def run(self) -> None:
        """For ever."""
        with call.detached():
            while True:
                await asyncio.sleep(_PERIOD_SECONDS)
                try:
                    await self.tidy(time.monotonic())
                except SagongError:
                    # The store is away; the next minute tries again.
                    continue

    async def tidy(self, now: float) -> None:
        """Compact what is older than the history that is kept; store renewals now and then."""
        self._seen.append((now, self._store.revision))
        old = 0
        while self._seen and now - self._seen[0][0] >= self._history_seconds:
            old = self._seen.popleft()[1]
        if old > self._compacted:
            await self._state.compact(CompactRequest(revision=old))
            self._compacted = old
        if now - self._flushed >= _FLUSH_SECONDS:
            self._flushed = now
            await self._renewals.flush()
