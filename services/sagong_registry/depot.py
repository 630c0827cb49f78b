"""What is done with repositories, whoever asks: blobs linked and unlinked, manifests kept and dropped.

Content first, record second, when something comes; record first, content second, when it goes: a
crash between the two leaves a hold without a record, which the next collection drops, and never a
record without content.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from sagong.errors import NotFound
from sagong_registry.catalog import Catalog, Change, Key
from sagong_registry.documents import Facts
from sagong_registry.gate import Gate
from sagong_registry.record import (
    BlobRecord,
    ManifestRecord,
    Record,
    RepositoryRecord,
    TagRecord,
    UploadRecord,
    new_hold,
)
from sagong_registry.refusal import Fault, Refused, refused
from sagong_registry.repository import Repository
from sagong_registry.settings import Settings
from sagong_registry.vault import Vault

__all__ = ["Depot", "Push", "content_of"]

# Records that go in one transaction.
_PART = 1000


@dataclass(frozen=True, slots=True)
class Push:
    """A manifest to be kept: its bytes, what it is, the tags it gets.

    `complete`: all it needs must be in the repository (copies of other registries come piece by piece).
    """

    repository: str
    digest: str
    raw: bytes
    facts: Facts
    tags: tuple[str, ...] = ()
    complete: bool = True


class Depot:
    """Catalog and vault together."""

    def __init__(
        self, catalog: Catalog, vault: Vault, gate: Gate, settings: Settings, log: logging.Logger
    ) -> None:
        self.catalog = catalog
        self.vault = vault
        self.gate = gate
        self.settings = settings
        self.log = log
        # Uploads whose bytes are coming in just now, how far those are that came in here, and when
        # the last ones did.
        self.writing: set[str] = set()
        self.reached: dict[str, int] = {}
        self.touched: dict[str, float] = {}

    async def repository(self, name: str) -> Repository:
        """A repository; NAME_UNKNOWN without it."""
        found = await self.catalog.find_repository(name)
        if found is None:
            raise refused("NAME_UNKNOWN", detail={"name": name})
        return found

    # -- blobs ------------------------------------------------------------------------------

    async def blob(self, name: str, digest: str) -> BlobRecord:
        """A blob's record; BLOB_UNKNOWN without it."""
        found = await self.catalog.find_blob(name, digest)
        if found is None:
            raise refused("BLOB_UNKNOWN", detail={"digest": digest})
        return found

    def told(self, name: str, digest: str) -> None:
        """A client was told that a blob is here, and may count on it: its collection is put off."""
        repository = self.catalog.repositories.get(name)
        if repository is not None:
            repository.seen[digest] = time.time()

    async def begin(self, id_: str, name: str) -> None:
        """Begin an upload."""
        record = UploadRecord(repository=name, begun=time.time())
        change = Change(puts={Key.upload(id_): record})
        _, offset = await asyncio.gather(self.catalog.commit(change), self.vault.offset(id_))
        self.reached[id_] = offset

    async def cancel(self, id_: str) -> None:
        """Forget an upload."""
        self._let_go(id_)
        await self.vault.abandon(id_)
        await self.catalog.commit(Change(deletes={Key.upload(id_)}))

    async def finish(self, id_: str, name: str, digest: str) -> None:
        """Make a blob of the repository of an upload, and forget the upload."""
        hold = new_hold(name, time.time())
        self._let_go(id_)
        try:
            blob = await self.vault.finish(id_, digest, hold)
        except NotFound:
            # Nothing was ever sent: it is the empty blob, or the digest is wrong.
            await self.vault.offset(id_)
            blob = await self.vault.finish(id_, digest, hold)
        await self._link(
            name, digest, BlobRecord(size=blob.size, hold=hold, added=time.time()), id_
        )

    def _let_go(self, id_: str) -> None:
        self.reached.pop(id_, None)
        self.touched.pop(id_, None)

    async def mount(self, name: str, digest: str) -> bool:
        """Make a blob that is here one of the repository, too; whether it is here."""
        hold = new_hold(name, time.time())
        try:
            blob = await self.vault.hold(digest, hold)
        except NotFound:
            return False
        await self._link(name, digest, BlobRecord(size=blob.size, hold=hold, added=time.time()))
        return True

    async def _link(self, name: str, digest: str, record: BlobRecord, upload: str = "") -> None:
        key, replaced = Key.blob(name, digest), ""

        def plan() -> Change:
            nonlocal replaced
            repository = self.catalog.repositories.get(name)
            old = repository.blobs.get(digest) if repository else None
            replaced = old.hold if old else ""
            change = Change(puts={key: record}, holds={key: old.revision if old else 0})
            if repository is None or repository.record is None:
                change.puts[Key.repository(name)] = RepositoryRecord(created=time.time())
                change.holds[Key.repository(name)] = 0
            if upload:
                change.deletes.add(Key.upload(upload))
            return change

        await self.catalog.change(plan)
        if replaced:
            await self.vault.drop(digest, replaced)

    async def remove_blob(self, name: str, digest: str) -> None:
        """Take a blob out of the repository."""
        found = await self.blob(name, digest)
        key = Key.blob(name, digest)
        if await self.catalog.commit(Change(deletes={key}, holds={key: found.revision})):
            await self.vault.drop(digest, found.hold)

    # -- manifests --------------------------------------------------------------------------

    async def manifest(self, name: str, digest: str) -> ManifestRecord:
        """A manifest's record; MANIFEST_UNKNOWN without it."""
        found = await self.catalog.find_manifest(name, digest)
        if found is None:
            raise await self.manifest_unknown(name, digest)
        return found

    async def manifest_unknown(self, name: str, reference: str) -> Refused:
        """The refusal of a manifest that is not there, or of a whole repository."""
        if await self.catalog.find_repository(name) is None:
            return refused("NAME_UNKNOWN", detail={"name": name})
        return refused("MANIFEST_UNKNOWN", detail={"name": name, "reference": reference})

    async def push(self, push: Push) -> None:
        """Keep a manifest and point tags at it; MANIFEST_BLOB_UNKNOWN lists what it lacks."""
        name, digest = push.repository, push.digest
        if push.complete:
            await self._check_needs(push)
        hold = new_hold(name, time.time())
        await self.vault.put(push.raw, hold, digest)
        replaced = ""

        def plan() -> Change:
            nonlocal replaced
            repository = self.catalog.repositories.get(name) or Repository(name)
            old = repository.manifests.get(digest)
            replaced = old.hold if old else ""
            return _push_plan(push, repository, _record(push, hold, old))

        try:
            await self.catalog.change(plan)
        except Refused:
            await self.vault.drop(digest, hold)
            raise
        if replaced:
            await self.vault.drop(digest, replaced)

    async def _check_needs(self, push: Push) -> None:
        """Look for all in the state too, before memory is believed that something is missing."""
        name = push.repository
        for need in push.facts.blobs:
            await self.catalog.find_blob(name, need.digest)
        for need in push.facts.manifests:
            if await self.catalog.find_manifest(name, need.digest) is None:
                await self.catalog.find_blob(name, need.digest)
        _lacks(push, self.catalog.repositories.get(name) or Repository(name))

    async def remove_manifest(self, name: str, digest: str) -> None:
        """Drop a manifest and the tags that mean it."""
        await self.manifest(name, digest)
        dropped = ""

        def plan() -> Change:
            nonlocal dropped
            repository = self.catalog.repositories.get(name) or Repository(name)
            found = repository.manifests.get(digest)
            if found is None:
                return Change()
            dropped = found.hold
            key = Key.manifest(name, digest)
            change = Change(deletes={key}, holds={key: found.revision})
            for tag in repository.tags_of(digest):
                change.deletes.add(Key.tag(name, tag))
                change.holds[Key.tag(name, tag)] = repository.tags[tag].revision
            return change

        await self.catalog.change(plan)
        if dropped:
            await self.vault.drop(digest, dropped)

    async def remove_tag(self, name: str, tag: str) -> None:
        """Drop a tag; its manifest stays for a while."""
        if await self.catalog.find_tag(name, tag) is None:
            raise await self.manifest_unknown(name, tag)

        def plan() -> Change:
            repository = self.catalog.repositories.get(name) or Repository(name)
            found = repository.tags.get(tag)
            if found is None:
                return Change()
            key = Key.tag(name, tag)
            change = Change(deletes={key}, holds={key: found.revision})
            _release(change, repository, found.digest, leaving={tag})
            return change

        await self.catalog.change(plan)

    async def remove_repository(self, name: str) -> None:
        """Drop all of it, in parts, tags first; what is pushed to it meanwhile goes as well."""
        while await self._remove_some(name):
            pass

    async def _remove_some(self, name: str) -> bool:
        """Drop a part; whether there was any."""
        dropped: list[tuple[str, str]] = []

        def plan() -> Change:
            repository = self.catalog.repositories.get(name) or Repository(name)
            content = content_of(repository)
            records: dict[str, Record] = {Key.tag(name, t): r for t, r in repository.tags.items()}
            records |= content
            if repository.record is not None:
                records[Key.repository(name)] = repository.record
            part = list(records)[:_PART]
            dropped[:] = [
                (key.rpartition("@")[2], content[key].hold) for key in part if key in content
            ]
            return Change(deletes=set(part), holds={key: records[key].revision for key in part})

        await self.catalog.change(plan)
        for digest, hold in dropped:
            await self.vault.drop(digest, hold)
        return self.catalog.repositories.get(name) is not None


def content_of(
    repository: Repository,
    manifests: Iterable[str] | None = None,
    blobs: Iterable[str] | None = None,
) -> dict[str, ManifestRecord | BlobRecord]:
    """Records by key of manifests and blobs of a repository: of all, or of those."""
    found: dict[str, ManifestRecord | BlobRecord] = {}
    for digest in repository.manifests if manifests is None else manifests:
        found[Key.manifest(repository.name, digest)] = repository.manifests[digest]
    for digest in repository.blobs if blobs is None else blobs:
        found[Key.blob(repository.name, digest)] = repository.blobs[digest]
    return found


def _record(push: Push, hold: str, old: ManifestRecord | None) -> ManifestRecord:
    facts = push.facts
    return ManifestRecord(
        media_type=facts.media_type,
        size=len(push.raw),
        hold=hold,
        pushed=time.time(),
        subject=facts.subject,
        artifact_type=facts.artifact_type,
        blobs=tuple(need.digest for need in facts.blobs),
        manifests=tuple(need.digest for need in facts.manifests),
        revision=old.revision if old else 0,
    )


def _push_plan(push: Push, repository: Repository, record: ManifestRecord) -> Change:
    """The transaction of a push.

    The repository's own record is written with every push, so that a collection which was planned
    before it is refused; and what the manifest needs must not have gone meanwhile.
    """
    name, now = push.repository, record.pushed
    own = repository.record or RepositoryRecord(created=now)
    own = msgspec.structs.replace(
        own, changed=now, description=(push.tags and push.facts.description) or own.description
    )
    change = Change(
        puts={Key.repository(name): own, Key.manifest(name, push.digest): record},
        holds={
            Key.repository(name): own.revision,
            Key.manifest(name, push.digest): record.revision,
        },
    )
    if push.complete:
        _lacks(push, repository)
        change.holds.update(_revisions(push, repository))
    for tag in push.tags:
        old = repository.tags.get(tag)
        change.puts[Key.tag(name, tag)] = TagRecord(digest=push.digest, pushed=now)
        change.holds[Key.tag(name, tag)] = old.revision if old else 0
        if old is not None and old.digest != push.digest:
            _release(change, repository, old.digest, leaving=set(push.tags))
    return change


def _revisions(push: Push, repository: Repository) -> dict[str, int]:
    name = push.repository
    found = {
        Key.blob(name, need.digest): repository.blobs[need.digest].revision
        for need in (*push.facts.blobs, *push.facts.manifests)
        if need.digest in repository.blobs
    }
    found |= {
        Key.manifest(name, need.digest): repository.manifests[need.digest].revision
        for need in push.facts.manifests
        if need.digest in repository.manifests
    }
    return found


def _lacks(push: Push, repository: Repository) -> None:
    """Raise what the manifest needs and the repository does not have, or has in another size."""
    faults = []
    for needs, tables in (
        (push.facts.blobs, (repository.blobs,)),
        (push.facts.manifests, (repository.manifests, repository.blobs)),
    ):
        for need in needs:
            sizes = [table[need.digest].size for table in tables if need.digest in table]
            if not sizes:
                faults.append(_unknown(need.digest))
            elif need.size not in sizes:
                text = f"{need.digest} has {sizes[0]} bytes, the manifest says {need.size}"
                faults.append(Fault("MANIFEST_INVALID", text))
    if faults:
        raise Refused(faults)


def _unknown(digest: str) -> Fault:
    text = f"the manifest needs {digest}, which is not in the repository: push it first"
    return Fault("MANIFEST_BLOB_UNKNOWN", text, {"digest": digest})


def _release(change: Change, repository: Repository, digest: str, leaving: Iterable[str]) -> None:
    """Note when a manifest's last tag leaves it."""
    record = repository.manifests.get(digest)
    if record is None or set(repository.tags_of(digest)) - set(leaving):
        return
    key = Key.manifest(repository.name, digest)
    change.puts[key] = msgspec.structs.replace(record, released=time.time())
    change.holds[key] = record.revision
