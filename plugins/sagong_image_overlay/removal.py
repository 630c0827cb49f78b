"""Removing names and images as Docker does it, and pruning."""

from __future__ import annotations

import asyncio

import msgspec

from sagong.contracts.image import ImageChanged, ImageQuery, Removed, RemoveRequest
from sagong.errors import Conflict, NotFound
from sagong.model import oci, references
from sagong_image_overlay.index import Record
from sagong_image_overlay.naming import short_id
from sagong_image_overlay.store import Store

__all__ = ["Removal"]


class Result:
    """What one removal did."""

    def __init__(self) -> None:
        self.untagged: list[str] = []
        self.deleted: list[str] = []
        self.events: list[ImageChanged] = []

    @property
    def told(self) -> Removed:
        """Without what was reclaimed, which is known later."""
        return Removed(untagged=tuple(self.untagged), deleted=tuple(self.deleted))


class Removal:
    """Decides what may go, and takes it out of the index; content follows by `Store.collect`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._index = store.index
        # Checks and changes must not be torn apart by the saving between them.
        self._lock = asyncio.Lock()

    async def remove(self, request: RemoveRequest) -> Removed:
        """Remove a name, or an image by its id."""
        asked = request.reference
        async with self._lock:
            try:
                record = self._index.find(asked)
            except NotFound:
                removed = self._index.removed_before(asked)
                if removed is None:
                    raise
                return removed
            result = Result()
            if self._index.is_by_id(asked):
                self._remove_image(record, request, result)
            else:
                self._remove_name(record, request, result)
            self._index.note_removal(asked, result.told)
            return await self._finish(result)

    async def _finish(self, result: Result) -> Removed:
        self._index.changed()
        if result.deleted:
            self._store.litter()
        await self._index.save()
        self._store.tell(result.events)
        freed = (await self._store.collect()).bytes if result.deleted else 0
        return msgspec.structs.replace(result.told, reclaimed=freed)

    def _remove_name(self, record: Record, request: RemoveRequest, result: Result) -> None:
        reference = references.parse(request.reference).tagged
        digests = self._index.digests_of(record.id)
        others = [r for r in self._index.names_of(record.id) if r.canonical != reference.canonical]
        if reference.digest:
            others += [other for other in digests if other.canonical != reference.canonical]
        else:
            others += [other for other in digests if other.name != reference.name]
        users = self._store.roots.users_of(record.id)
        if not others and users and not (request.force or request.keep):
            raise Conflict(
                f'conflict: unable to remove repository reference "{request.reference}" (must '
                f"force) - container {short_id(users[0])} is using its referenced image "
                f"{short_id(record.id)}"
            )
        self._untag(record, reference, result)
        if not reference.digest and not any(other.name == reference.name for other in others):
            # The last tag of a repository takes its digests with it.
            for digest in digests:
                if digest.name == reference.name:
                    self._untag(record, digest, result)
        if not others and not request.keep and not self._index.children(record.id):
            self._untag_all(record, result)
            self._delete(record, prune_parents=request.prune_parents, result=result)

    def _remove_image(self, record: Record, request: RemoveRequest, result: Result) -> None:
        users = self._store.roots.users_of(record.id)
        repositories = {r.name for r in self._index.names_of(record.id)}
        shown = short_id(record.id)
        if self._index.children(record.id):
            raise Conflict(
                f"conflict: unable to delete {shown} (cannot be forced) - "
                "image has dependent child images"
            )
        if len(repositories) > 1 and not request.force:
            raise Conflict(
                f"conflict: unable to delete {shown} (must be forced) - "
                "image is referenced in multiple repositories"
            )
        if users and not request.force:
            raise Conflict(
                f"conflict: unable to delete {shown} (must be forced) - "
                f"image is being used by container {short_id(users[0])}"
            )
        self._untag_all(record, result)
        self._delete(record, prune_parents=request.prune_parents, result=result)

    def _untag(self, record: Record, reference: references.Reference, result: Result) -> None:
        table = self._index.digests if reference.digest else self._index.names
        key = f"{reference.name}@{reference.digest}" if reference.digest else reference.canonical
        if table.pop(key, None) is not None:
            result.untagged.append(reference.familiar)
            result.events.append(self._store.change("untag", record.id, reference.familiar))
            self._index.changed()

    def _untag_all(self, record: Record, result: Result) -> None:
        for reference in (*self._index.names_of(record.id), *self._index.digests_of(record.id)):
            self._untag(record, reference, result)

    def _delete(self, record: Record, *, prune_parents: bool, result: Result) -> None:
        del self._index.images[record.id]
        self._store.forget(record.id)
        result.deleted += [record.id, *self._free_chains(record)]
        result.events.append(self._store.change("delete", record.id))
        parent = self._index.images.get(record.parent)
        if parent is None or not prune_parents:
            return
        named = self._index.names_of(parent.id) or self._index.digests_of(parent.id)
        used = self._index.children(parent.id) or self._store.roots.users_of(parent.id)
        if not named and not used:
            self._delete(parent, prune_parents=True, result=result)

    def _free_chains(self, gone: Record) -> list[str]:
        """Chain ids of an image's layers that no other image and no lease has, the topmost first."""
        users = [record.diff_ids for record in self._index.images.values()]
        for lease in self._store.roots.table.values():
            users.append(tuple(layer.diff_id for layer in lease.image.layers))
        needed = {chain for diff_ids in set(users) for chain in oci.chain_ids(diff_ids)}
        return [chain for chain in reversed(oci.chain_ids(gone.diff_ids)) if chain not in needed]

    async def prune(self, query: ImageQuery, matching: list[str]) -> Removed:
        """Delete those of the matching images that nothing uses; then unreferenced content.

        By default only images without a name go; `dangling` False takes the named ones, too, and of
        those that are used all names but one.
        """
        async with self._lock:
            result = Result()
            # An image that others were made of is in use until they are gone, whenever all were made.
            for identity in sorted(matching, key=self._index.depth, reverse=True):
                record = self._index.images.get(identity)
                if record is None:
                    continue
                if self._is_unused(record, query):
                    self._untag_all(record, result)
                    self._delete(record, prune_parents=True, result=result)
                elif query.dangling is False and self._store.roots.users_of(record.id):
                    self._leave_one_name(record, result)
            removed = await self._finish(result)
            freed = (await self._store.collect()).bytes + self._store.content.drop_partials()
        return msgspec.structs.replace(removed, reclaimed=removed.reclaimed + freed)

    def _leave_one_name(self, record: Record, result: Result) -> None:
        """What a container uses keeps the last of its names, as in Docker."""
        names = sorted(self._index.names_of(record.id), key=lambda name: name.familiar)
        for name in names[:-1]:
            self._untag(record, name, result)

    def _is_unused(self, record: Record, query: ImageQuery) -> bool:
        if self._store.roots.users_of(record.id) or self._index.children(record.id):
            return False
        if query.dangling is False:
            return True
        named = self._index.names_of(record.id) or self._index.digests_of(record.id)
        return not (named or self._index.is_part(record.id))
