"""What is kept from build to build: directories of RUN --mount=type=cache, and contexts.

Each directory is the writable layer of a root filesystem without an image, lent for as long as the
cache is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec

from sagong.contracts.builder import CacheRecord, Pruned, PruneRequest
from sagong.contracts.image import Images, PrepareRequest, RootRef
from sagong_builder.kept import KeptContexts
from sagong_builder.mounting import MountSpec

__all__ = ["Caches", "Place"]


class Kept(msgspec.Struct):
    """A cache as it is written down."""

    id: str
    lease: str
    path: str
    created_at: float
    used_at: float
    uses: int = 0
    filled: bool = False


class Place(msgspec.Struct):
    """Where a cache lies: a path of the machine, and the lease that it belongs to."""

    lease: str
    path: str
    fresh: bool


class Caches:
    """All caches; the table of directories is a file."""

    def __init__(self, directory: Path, images: Images) -> None:
        self.contexts = KeptContexts(directory / "contexts")
        self._file = directory / "caches.json"
        self._images = images
        self._table: dict[str, Kept] = {}
        self._users: Counter[str] = Counter()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._filling: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def load(self) -> None:
        """Read the table; a damaged one is begun anew."""
        with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
            found = msgspec.json.decode(self._file.read_bytes(), type=list[Kept])
            self._table = {kept.id: kept for kept in found}

    def _save(self) -> None:
        temporary = self._file.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(list(self._table.values())))
        temporary.replace(self._file)

    @contextlib.asynccontextmanager
    async def used(
        self, mount: MountSpec, fill: Callable[[str], Awaitable[None]]
    ) -> AsyncIterator[Place]:
        """The cache of a mount for the time of the block; `fill` gives a new one, by its lease, what it
        begins with. Nobody uses one before that is done."""
        whose = (
            mount.id,
            mount.origin,
            mount.source,
            *map(str, (mount.mode, mount.uid, mount.gid)),
        )
        key = hashlib.sha256("\0".join(whose).encode()).hexdigest()
        lock = self._locks[key] if mount.sharing == "locked" else contextlib.nullcontext()
        async with lock:
            if mount.sharing == "private":
                key = self._free(key)
            self._users[key] += 1
            try:
                async with self._filling[key]:
                    place = await self._place(key)
                    if place.fresh:
                        await fill(place.lease)
                        self._filled(key)
                yield place
            finally:
                self._users[key] -= 1

    def _free(self, key: str) -> str:
        number, found = 0, key
        while self._users[found]:
            number += 1
            found = f"{key}-{number}"
        return found

    async def _place(self, key: str) -> Place:
        self.load()
        kept = self._table.get(key)
        now = time.time()
        if kept is None:
            lease = f"cache-{secrets.token_hex(16)}"
            kept = Kept(key, lease, "", now, now)
            self._table[key] = kept
            self._save()
        prepared = await self._images.prepare(PrepareRequest(id=kept.lease, image="", bare=True))
        self.load()  # another generation may have written it meanwhile
        kept = self._table.setdefault(key, kept)
        kept.path, kept.used_at, kept.uses = prepared.upper, now, kept.uses + 1
        self._save()
        return Place(kept.lease, kept.path, fresh=not kept.filled)

    def _filled(self, key: str) -> None:
        self.load()
        if key in self._table:
            self._table[key].filled = True
            self._save()

    async def records(self) -> list[CacheRecord]:
        """All, with what they hold."""
        self.load()
        sizes = dict((await self._images.usage()).containers) if self._table else {}
        found = [
            CacheRecord(
                id=kept.id,
                kind="exec.cachemount",
                description="cached mount of RUN",
                size=sizes.get(kept.lease, 0),
                in_use=self._users[kept.id] > 0,
                created_at=kept.created_at,
                used_at=kept.used_at,
                uses=kept.uses,
            )
            for kept in self._table.values()
        ]
        return found + self.contexts.records()

    async def prune(self, request: PruneRequest) -> Pruned:
        """Delete what the request means and nothing uses."""
        kept = 0
        deleted: list[str] = []
        freed = 0
        for record in sorted(await self.records(), key=lambda r: -r.used_at):
            wanted = not request.ids or any(record.id.startswith(i) for i in request.ids)
            old = time.time() - record.used_at >= request.unused_for
            room = request.keep and kept + record.size <= request.keep
            if room or record.in_use or not old or not wanted:
                kept += record.size
            elif self.contexts.drop(record.id) or await self._delete(record.id):
                deleted.append(record.id)
                freed += record.size
        return Pruned(deleted=tuple(deleted), reclaimed=freed)

    async def _delete(self, id_: str) -> bool:
        """A directory; False if it is gone already."""
        self.load()
        if id_ not in self._table:
            return False
        lease = self._table.pop(id_).lease
        self._save()
        await self._images.release(RootRef(id=lease))
        return True
