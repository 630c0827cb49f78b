"""The collection, by itself and on demand: records first, then holds, then bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable

from sagong.call import detached
from sagong.contracts.content import Hold, HoldQuery
from sagong.contracts.registry import Collected, CollectRequest
from sagong.errors import SagongError
from sagong_registry.catalog import Change, Key
from sagong_registry.collection import Grace, Taken, plan
from sagong_registry.depot import Depot, content_of
from sagong_registry.record import hold_time
from sagong_registry.repository import Repository

__all__ = ["Housekeeping"]

_FIRST_SECONDS = 60.0
# Between a hold and its record lie calls with deadlines; a hold this old without one is a left-over.
_HOLD_SECONDS = 3600.0
_BATCH = 500


class Housekeeping:
    """Collects; of two generations the one that does not drain."""

    def __init__(self, depot: Depot) -> None:
        self._depot = depot
        self._turn = asyncio.Lock()
        self.draining = False

    async def run(self) -> None:
        """Collect for ever, as often as the configuration says."""
        pause = min(_FIRST_SECONDS, self._depot.settings.collect_seconds)
        while self._depot.settings.collect_seconds > 0:
            await asyncio.sleep(pause)
            pause = self._depot.settings.collect_seconds
            if self.draining:
                return
            try:
                with detached():
                    done = await self.collect(CollectRequest())
            except SagongError as error:
                self._depot.log.warning("not collected", extra={"error": error.message})
                continue
            if done.manifests or done.blobs or done.uploads:
                facts = {"manifests": done.manifests, "blobs": done.blobs, "bytes": done.bytes}
                self._depot.log.info("collected", extra=facts)

    async def collect(self, request: CollectRequest) -> Collected:
        """Remove what nobody needs; one at a time."""
        settings = self._depot.settings
        grace = Grace(settings.untagged_seconds, settings.blob_seconds)
        if request.grace >= 0:
            grace = Grace(request.grace, request.grace)
        async with self._turn:
            if request.dry_run:
                return _told(self._plans(grace))
            uploads = await self._end_uploads(request.grace)
            taken = [t async for t in self._take_all(grace)]
            await self._drop_leftovers()
            swept = await self._depot.vault.content.sweep()
        told = _told(taken)
        return Collected(
            manifests=told.manifests,
            blobs=told.blobs,
            repositories=told.repositories,
            uploads=uploads,
            bytes=swept.bytes,
        )

    def _plans(self, grace: Grace) -> Iterable[Taken]:
        now = time.time()
        return [plan(r, now, grace) for r in self._depot.catalog.repositories.values()]

    async def _take_all(self, grace: Grace) -> AsyncIterator[Taken]:
        """Repository by repository; one that is pushed to meanwhile waits for the next time."""
        for name in sorted(self._depot.catalog.repositories):
            repository = self._depot.catalog.repositories.get(name)
            if repository is None:
                continue
            taken = plan(repository, time.time(), grace)
            if not taken.nothing and await self._take(repository, taken):
                yield taken

    async def _take(self, repository: Repository, taken: Taken) -> bool:
        """Remove it in parts; whether all went."""
        own = Key.repository(repository.name)
        revision = repository.record.revision if repository.record else 0
        records = content_of(repository, taken.manifests, taken.blobs)
        keys = list(records)
        for start in range(0, len(keys), _BATCH):
            part = {key: records[key] for key in keys[start : start + _BATCH]}
            holds = {key: record.revision for key, record in part.items()}
            change = Change(deletes=set(part), holds={**holds, own: revision})
            if not await self._depot.catalog.commit(change):
                return False
            for key, record in part.items():
                await self._depot.vault.drop(key.rpartition("@")[2], record.hold)
        if taken.repository and revision:
            return await self._depot.catalog.commit(Change(deletes={own}, holds={own: revision}))
        return True

    async def _end_uploads(self, grace: float) -> int:
        """Uploads that nobody goes on with. The content store itself spares those that are written."""
        seconds = self._depot.settings.upload_seconds if grace < 0 else grace
        catalog, touched, now = self._depot.catalog, self._depot.touched, time.time()
        last = {i: max(r.begun, touched.get(i, 0.0)) for i, r in catalog.uploads.items()}
        old = [i for i, moment in last.items() if now - moment >= seconds >= 0]
        ended = 0
        for id_ in old:
            if id_ not in self._depot.writing:
                await self._depot.cancel(id_)
                ended += 1
        return ended

    async def _drop_leftovers(self) -> None:
        """Holds without a record: of a crash between the two."""
        known = {
            record.hold
            for repository in self._depot.catalog.repositories.values()
            for table in (repository.blobs, repository.manifests)
            for record in table.values()
        }
        border = time.time() - _HOLD_SECONDS
        left = [
            hold
            async for hold in self._holds()
            if hold.owner not in known and hold_time(hold.owner) < border
        ]
        for hold in left:
            await self._depot.vault.drop(hold.digest, hold.owner)
        if left:
            self._depot.log.info("left-over holds dropped", extra={"count": len(left)})

    async def _holds(self) -> AsyncIterator[Hold]:
        after, more = ("", ""), True
        while more:
            found = await self._depot.vault.content.holds(HoldQuery(after=after, limit=_BATCH))
            for hold in found.holds:
                yield hold
                after = (hold.owner, hold.digest)
            more = found.more and bool(found.holds)


def _told(taken: Iterable[Taken]) -> Collected:
    listed = list(taken)
    return Collected(
        manifests=sum(len(one.manifests) for one in listed),
        blobs=sum(len(one.blobs) for one in listed),
        repositories=sum(one.repository for one in listed),
    )
