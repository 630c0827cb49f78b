"""The catalog: repositories, tags, manifests, blobs, uploads; durable in the state, read from memory.

`sagong.keyspace` brings what another generation of this service writes during a swap; until it has
come, what is not found in memory is asked for in the state, so nothing acknowledged is ever missing.
Writes are plans over what memory shows, guarded by revisions; a plan that lost a race is made anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from sagong.contracts.state import (
    Compare,
    Operation,
    OperationKind,
    State,
)
from sagong.errors import Aborted
from sagong.keyspace import Keyspace
from sagong_registry.record import (
    AccountRecord,
    BlobRecord,
    ManifestRecord,
    Record,
    RepositoryRecord,
    TagRecord,
    UploadRecord,
    decoded,
    encoded,
)
from sagong_registry.repository import Repository

__all__ = ["Catalog", "Change", "Key"]

_ROOT, _END = "/registry/", "/registry0"
_TRIES = 8
_KINDS: dict[str, type[Any]] = {
    "repositories": RepositoryRecord,
    "tags": TagRecord,
    "manifests": ManifestRecord,
    "blobs": BlobRecord,
    "uploads": UploadRecord,
    "accounts": AccountRecord,
}


class Key:
    """Keys of the records."""

    @staticmethod
    def repository(name: str) -> str:
        """Of a repository's own record."""
        return f"{_ROOT}repositories/{name}"

    @staticmethod
    def tag(name: str, tag: str) -> str:
        """Of a tag."""
        return f"{_ROOT}tags/{name}:{tag}"

    @staticmethod
    def manifest(name: str, digest: str) -> str:
        """Of a manifest."""
        return f"{_ROOT}manifests/{name}@{digest}"

    @staticmethod
    def blob(name: str, digest: str) -> str:
        """Of a blob."""
        return f"{_ROOT}blobs/{name}@{digest}"

    @staticmethod
    def upload(id_: str) -> str:
        """Of an upload."""
        return f"{_ROOT}uploads/{id_}"

    @staticmethod
    def account(name: str) -> str:
        """Of an account."""
        return f"{_ROOT}accounts/{name}"


@dataclass(slots=True)
class Change:
    """A transaction: records to put, keys to delete, and the revisions that must hold."""

    puts: dict[str, Record] = field(default_factory=dict)
    deletes: set[str] = field(default_factory=set)
    holds: dict[str, int] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to be done."""
        return not (self.puts or self.deletes)


class Catalog:
    """All records; `load` first, then `follow` in the background."""

    def __init__(self, state: State) -> None:
        self.repositories: dict[str, Repository] = {}
        self.uploads: dict[str, UploadRecord] = {}
        self.accounts: dict[str, AccountRecord] = {}
        self._keyspace = Keyspace(state, start=_ROOT, end=_END, records=self)

    async def load(self) -> None:
        """Read everything."""
        await self._keyspace.load()

    async def follow(self, log: logging.Logger) -> None:
        """Show what others write, for ever."""
        await self._keyspace.follow(log)

    def repository(self, name: str) -> Repository | None:
        """A repository that clients can know of."""
        found = self.repositories.get(name)
        return found if found is not None and found.known else None

    async def find_repository(self, name: str) -> Repository | None:
        """The same, surely."""
        found = self.repository(name)
        if found is None:
            await self._refresh((Key.repository(name),))
            found = self.repository(name)
        return found

    async def find_tag(self, name: str, tag: str) -> TagRecord | None:
        """What a tag means."""
        found = self._in(name).tags.get(tag)
        if found is None:
            await self._refresh((Key.tag(name, tag),))
            found = self._in(name).tags.get(tag)
        return found

    async def find_manifest(self, name: str, digest: str) -> ManifestRecord | None:
        """A manifest's record."""
        found = self._in(name).manifests.get(digest)
        if found is None:
            await self._refresh((Key.manifest(name, digest),))
            found = self._in(name).manifests.get(digest)
        return found

    async def find_blob(self, name: str, digest: str) -> BlobRecord | None:
        """A blob's record."""
        found = self._in(name).blobs.get(digest)
        if found is None:
            await self._refresh((Key.blob(name, digest),))
            found = self._in(name).blobs.get(digest)
        return found

    async def find_upload(self, id_: str) -> UploadRecord | None:
        """An upload's record."""
        if id_ not in self.uploads:
            await self._refresh((Key.upload(id_),))
        return self.uploads.get(id_)

    async def change(self, plan: Callable[[], Change]) -> None:
        """Do what `plan` says over what is known, made anew when others were quicker."""
        for _ in range(_TRIES):
            change = plan()
            if change.empty or await self.commit(change):
                return
            await self._refresh({*change.holds, *change.puts, *change.deletes})
        raise Aborted("others change the same at the same time; try again")

    async def commit(self, change: Change) -> bool:
        """Do a change, if the revisions that it counts on still hold."""
        operations = [
            Operation(kind=OperationKind.PUT, key=key, value=encoded(record))
            for key, record in change.puts.items()
        ]
        operations += [Operation(kind=OperationKind.DELETE, key=key) for key in change.deletes]
        compare = tuple(Compare(key=key, revision=r) for key, r in change.holds.items())
        return await self._keyspace.commit(operations, compare)

    async def _refresh(self, keys: Iterable[str]) -> None:
        for key in keys:
            await self._keyspace.read(key)

    def _in(self, name: str) -> Repository:
        """The repository, or one without anything."""
        return self.repositories.get(name) or Repository(name)

    def _made(self, name: str) -> Repository:
        found = self.repositories.get(name)
        if found is None:
            found = self.repositories[name] = Repository(name)
        return found

    def clear(self) -> None:
        """See `Records`."""
        for table in (self.repositories, self.uploads, self.accounts):
            table.clear()

    def place(self, key: str, value: bytes, revision: int) -> None:
        """See `Records`."""
        kind, _, name = key.removeprefix(_ROOT).partition("/")
        if kind not in _KINDS:
            return
        record = decoded(value, _KINDS[kind], revision)
        if kind in ("uploads", "accounts"):
            getattr(self, kind)[name] = record
        elif kind == "repositories":
            self._made(name).record = record
        elif kind == "tags":
            name, _, tag = name.partition(":")
            self._made(name).tags[tag] = record
        elif kind == "blobs":
            name, _, digest = name.partition("@")
            self._made(name).blobs[digest] = record
        else:
            name, _, digest = name.partition("@")
            self._made(name).put_manifest(digest, record)

    def drop(self, key: str) -> None:
        """See `Records`."""
        kind, _, name = key.removeprefix(_ROOT).partition("/")
        if kind in ("uploads", "accounts"):
            getattr(self, kind).pop(name, None)
            return
        name, _, rest = name.replace("@", ":", 1).partition(":")
        repository = self.repositories.get(name)
        if repository is None:
            return
        if kind == "repositories":
            repository.record = None
        elif kind == "tags":
            repository.tags.pop(rest, None)
        elif kind == "blobs":
            repository.blobs.pop(rest, None)
            repository.seen.pop(rest, None)
        else:
            repository.drop_manifest(rest)
        if repository.empty and repository.record is None:
            del self.repositories[name]
