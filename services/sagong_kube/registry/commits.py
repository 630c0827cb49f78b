"""Batches of writes over the bus: planned one after the other, stored in one transaction.

A commit leaves a mark in its transaction, so that the same commit sent again, to this process or
to its successor, is answered and not done twice.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Awaitable, Callable

import msgspec

from sagong.contracts.objects import Commit, CommitResult, Outcome, Verb, Write
from sagong.contracts.state import Compare, Operation, OperationKind
from sagong.errors import Conflict, InvalidArgument, SagongError
from sagong_kube import refusal
from sagong_kube.registry import document as documents
from sagong_kube.registry.actor import Actor, DeleteOptions, WriteOptions
from sagong_kube.registry.binding import bind
from sagong_kube.registry.deletion import plan_deletion, preconditions
from sagong_kube.registry.eviction import mark_disrupted, spend_budget
from sagong_kube.registry.planner import Planned, Planner, Subject
from sagong_kube.registry.resource import Catalogue, Resource
from sagong_kube.registry.shapes import Patch
from sagong_kube.registry.view import View
from sagong_kube.storage.keys import COMMITS
from sagong_kube.storage.record import Record, with_revision
from sagong_kube.storage.renewals import Renewals
from sagong_kube.storage.store import Store

__all__ = ["Commits", "Marks", "resource_of"]

_TRIES = 8
_KEPT = 512


class _Mark(msgspec.Struct, array_like=True):
    """What became of one write, without its body: where it is, at which revision, or an error."""

    storage: str
    key: str
    error: str
    message: str


class Marks:
    """Marks of commits done within the last ten minutes, as the store has them."""

    def __init__(self) -> None:
        self._marks: dict[str, tuple[int, bytes]] = {}

    def put(self, key: str, value: bytes, revision: int) -> None:
        """A commit was done."""
        self._marks[key[len(COMMITS) :]] = (revision, value)

    def remove(self, key: str) -> None:
        """A commit's mark has expired."""
        self._marks.pop(key[len(COMMITS) :], None)

    def find(self, commit: str) -> tuple[int, bytes] | None:
        """(revision, outcomes) of a commit."""
        return self._marks.get(commit)


class _Planned(msgspec.Struct):
    """A write as it will be answered once its transaction is done."""

    storage: str = ""
    key: str = ""
    value: bytes = b""
    revision: int = 0
    written: bool = False
    renewed: Record | None = None
    error: str = ""
    message: str = ""

    def outcome(self, revision: int) -> Outcome:
        """The answer; what wrote nothing keeps the revision it has."""
        if self.error:
            return Outcome(error=self.error, message=self.message)
        at = revision if self.written else self.revision
        return Outcome(body=with_revision(self.value, at) if at else self.value, revision=at)


def resource_of(catalogue: Catalogue, name: str) -> Resource:
    """The resource that the bus writes `group/version/plural` or `v1/plural`."""
    parts = name.split("/")
    if len(parts) not in (2, 3):
        raise InvalidArgument(f"resource {name!r}: write it as group/version/plural or v1/plural")
    group, version, plural = parts if len(parts) == 3 else ("", *parts)
    return catalogue.find(group, version, plural)


class Commits:
    """Does commits of the bus."""

    def __init__(
        self,
        store: Store,
        planner: Planner,
        catalogue: Catalogue,
        renewals: Renewals,
        *,
        lease: Callable[[], Awaitable[str]],
    ) -> None:
        self._store = store
        self._planner = planner
        self._catalogue = catalogue
        self._renewals = renewals
        self._lease = lease
        self._done: collections.OrderedDict[str, CommitResult] = collections.OrderedDict()
        self.marks = Marks()

    async def commit(self, commit: Commit, actor: Actor) -> CommitResult:
        """Do it once."""
        known = self._done.get(commit.id) or self._marked(commit.id)
        if known is not None:
            return known
        for _ in range(_TRIES):
            if self._store.revision < self._store.written:
                await self._store.settle()
            view = View(self._store)
            planned = [await self._plan(view, commit, write, actor) for write in commit.writes]
            result = await self._store_all(commit, view, planned)
            if result is not None:
                self._keep(commit.id, result)
                return result
        raise Conflict(f"commit {commit.id}: its objects change faster than it can be stored")

    def _keep(self, commit: str, result: CommitResult) -> None:
        self._done[commit] = result
        if len(self._done) > _KEPT:
            self._done.popitem(last=False)

    def _marked(self, commit: str) -> CommitResult | None:
        found = self.marks.find(commit)
        if found is None:
            return None
        revision, value = found
        marks = msgspec.msgpack.decode(value, type=list[_Mark])
        return CommitResult(
            outcomes=tuple(self._remembered(mark, revision) for mark in marks), revision=revision
        )

    def _remembered(self, mark: _Mark, revision: int) -> Outcome:
        if mark.error:
            return Outcome(error=mark.error, message=mark.message)
        record = self._store.get(mark.storage, mark.key)
        return Outcome(body=record.body if record is not None else b"", revision=revision)

    async def _store_all(
        self, commit: Commit, view: View, planned: list[_Planned]
    ) -> CommitResult | None:
        revision = self._store.revision
        changes = view.changes
        if changes:
            marks = [_Mark(p.storage, p.key, p.error, p.message) for p in planned]
            mark = f"{COMMITS}{commit.id}"
            put = Operation(
                kind=OperationKind.PUT,
                key=mark,
                value=msgspec.msgpack.encode(marks),
                lease=await self._lease(),
            )
            first = changes[0]
            first.beside = (*first.beside, put)
            first.guards = (*first.guards, Compare(key=mark, revision=0))
            done = await self._store.write(changes, f"commit-{commit.id}-{time.monotonic_ns()}")
            if not done.done:
                return self._marked(commit.id)
            revision = done.revision
        for write in planned:
            if write.renewed is not None:
                self._renewals.renew(write.renewed, write.value)
        outcomes = tuple(write.outcome(revision) for write in planned)
        return CommitResult(outcomes=outcomes, revision=revision)

    async def _plan(self, view: View, commit: Commit, write: Write, actor: Actor) -> _Planned:
        try:
            return await self._plan_write(view, commit, write, actor)
        except SagongError as error:
            return _Planned(error=error.code, message=error.message)

    async def _plan_write(self, view: View, commit: Commit, write: Write, actor: Actor) -> _Planned:
        resource = resource_of(self._catalogue, write.resource)
        options = WriteOptions(
            manager=commit.manager or "sagong",
            validation="Ignore",
            force=True,
            # Nobody applies what controllers and nodes create and report; who changes a spec counts.
            untracked=write.verb not in (Verb.UPDATE, Verb.PATCH) or bool(write.subresource),
        )
        subresource = "status" if write.verb is Verb.STATUS else write.subresource
        subject = Subject(resource, write.namespace, write.name, actor, options, subresource)
        match write.verb:
            case Verb.CREATE | Verb.UPDATE | Verb.STATUS:
                return await self._put(view, subject, write)
            case Verb.PATCH:
                return await self._patch(view, subject, write)
            case Verb.BIND:
                return await self._bind(view, subject, write)
            case Verb.DELETE:
                return self._delete(view, subject, write)
            case Verb.EVICT:
                return self._evict(view, subject, write)

    async def _put(self, view: View, subject: Subject, write: Write) -> _Planned:
        document = _document(write)
        metadata = document.get("metadata") or {}
        subject = msgspec.structs.replace(
            subject,
            name=subject.name or metadata.get("name") or "",
            namespace=subject.namespace or metadata.get("namespace") or "",
        )
        kind = subject.resource.kind
        said = (
            document.setdefault("apiVersion", kind.api_version),
            document.setdefault("kind", kind.kind),
        )
        if said != (kind.api_version, kind.kind) and write.subresource in ("", "status"):
            raise InvalidArgument(
                f"{write.verb} {write.resource} {subject.name}: the body is a {said[1]} of {said[0]}"
            )
        self._planner.shapes.check(subject.resource, document, b"", "Ignore")
        plan = self._planner.create if write.verb is Verb.CREATE else self._planner.update
        planned = await plan(view, subject, document)
        return _planned(subject, planned.key, planned)

    def _record(self, view: View, subject: Subject) -> Record:
        resource = subject.resource
        record = view.record(resource.storage, resource.key(subject.namespace, subject.name))
        if record is None:
            raise refusal.not_found(resource.plural, resource.group, subject.name)
        return record

    async def _patch(self, view: View, subject: Subject, write: Write) -> _Planned:
        record = self._record(view, subject)
        if write.uid and write.uid != record.uid:
            preconditions(subject.resource, record, DeleteOptions(uid=write.uid))
        live = documents.decode(record)
        patch = Patch("application/merge-patch+json", write.body)
        patched = self._planner.shapes.patch(subject.resource, live, patch)
        said = patched["metadata"].get("resourceVersion")
        if said and said != str(record.revision):
            raise refusal.modified(subject.resource.plural, subject.resource.group, subject.name)
        self._planner.shapes.default(subject.resource, patched)
        planned = await self._planner.replace(view, subject, patched, record)
        return _planned(subject, planned.key, planned)

    async def _bind(self, view: View, subject: Subject, write: Write) -> _Planned:
        subject = msgspec.structs.replace(subject, subresource="binding")
        record = self._record(view, subject)
        pod = bind(documents.decode(record), write.node, uid=write.uid)
        planned = await self._planner.replace(view, subject, pod, record)
        return _planned(subject, planned.key, planned)

    def _delete(self, view: View, subject: Subject, write: Write) -> _Planned:
        record = self._record(view, subject)
        options = DeleteOptions(
            grace_seconds=write.grace_seconds, uid=write.uid, propagation=write.propagation
        )
        preconditions(subject.resource, record, options)
        planned = plan_deletion(view, subject.resource, record, options)
        value = documents.encode(planned.document)
        written = planned.gone or planned.changed
        return _Planned(subject.resource.storage, record.key, value, record.revision, written)

    def _evict(self, view: View, subject: Subject, write: Write) -> _Planned:
        record = self._record(view, subject)
        options = DeleteOptions(grace_seconds=write.grace_seconds, uid=write.uid)
        preconditions(subject.resource, record, options)
        spend_budget(view, record, dry_run=False)
        planned = plan_deletion(view, subject.resource, record, options)
        if not planned.gone:
            mark_disrupted(planned.document)
            view.plan(subject.resource.storage, record.key, documents.encode(planned.document))
        value = documents.encode(planned.document)
        return _Planned(subject.resource.storage, record.key, value, record.revision, True)


def _planned(subject: Subject, key: str, planned: Planned) -> _Planned:
    base = planned.base
    return _Planned(
        subject.resource.storage,
        key,
        planned.value,
        base.revision if base is not None else 0,
        written=not planned.unchanged and not planned.renewed,
        renewed=base if planned.renewed else None,
    )


def _document(write: Write) -> documents.Document:
    try:
        document = msgspec.json.decode(write.body)
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"{write.verb} {write.resource} {write.name}: {error}") from None
    if not isinstance(document, dict):
        raise InvalidArgument(f"{write.verb} {write.resource} {write.name}: not an object")
    return document
