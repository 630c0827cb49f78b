"""The contract `objects`: the same storage and rules for the system's own processes on the bus."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from sagong import call
from sagong.contracts.objects import (
    Commit,
    CommitResult,
    GetRequest,
    ListRequest,
    ListResult,
    Object,
    ObjectBatch,
    ObjectChange,
    ObjectWatch,
    Reminder,
    Silence,
    Verb,
)
from sagong.errors import Gone, PermissionDenied
from sagong.model.selectors import parse_fields, parse_labels
from sagong_kube.handlers.paging import read_page
from sagong_kube.handlers.parameters import ListOptions
from sagong_kube.refusal import not_found
from sagong_kube.registry import versions
from sagong_kube.registry.actor import Actor
from sagong_kube.registry.commits import Commits, resource_of
from sagong_kube.registry.resource import Catalogue, Resource
from sagong_kube.reminders import Change, Reminders, Silent, Wait
from sagong_kube.storage.change import ADDED, DELETED, MODIFIED
from sagong_kube.storage.collection import Selection
from sagong_kube.storage.store import Store
from sagong_kube.storage.watcher import Notice, Watcher

__all__ = ["ObjectsSlot", "Rules"]

# As often as upstream's bookmarks. All quiet watches are told in the same turn of the loop, so that
# a process with many of them wakes up once.
_PROGRESS_SECONDS = 60.0
_BATCH = 512
_COMINGS = frozenset({ADDED, DELETED})
_EVERY = _COMINGS | {MODIFIED}
_VERBS = {
    Verb.CREATE: ("create", ""),
    Verb.UPDATE: ("update", ""),
    Verb.STATUS: ("update", "status"),
    Verb.PATCH: ("patch", ""),
    Verb.DELETE: ("delete", ""),
    Verb.BIND: ("create", "binding"),
    Verb.EVICT: ("create", "eviction"),
}

Rule = Mapping[str, Sequence[str]]
Rules = Callable[[call.Call], Sequence[Rule] | None]


class ObjectsSlot:
    """Serves the bus; `rules` are the caller's RBAC rules by its manifest, None for no bounds."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        commits: Commits,
        reminders: Reminders,
        rules: Rules,
    ) -> None:
        self._store = store
        self._reminders = reminders
        self._catalogue = catalogue
        self._commits = commits
        self._rules = rules

    def _resource(self, name: str, verb: str, subresource: str = "") -> Resource:
        resource = resource_of(self._catalogue, name)
        caller = call.current()
        rules = self._rules(caller)
        if rules is not None and not any(_allows(r, resource, verb, subresource) for r in rules):
            part = f"{resource.qualified}/{subresource}" if subresource else resource.qualified
            raise PermissionDenied(
                f"{caller.caller} may not {verb} {part}: its manifest's [uses.objects] rules name "
                "neither"
            )
        return resource

    async def get(self, request: GetRequest) -> Object:
        """See the contract."""
        resource = self._resource(request.resource, "get")
        await self._store.settle()
        key = resource.key(request.namespace, request.name)
        record = self._store.get(resource.storage, key)
        if record is None:
            raise not_found(resource.plural, resource.group, request.name)
        return Object(body=versions.present(resource, record), revision=record.revision)

    async def list(self, request: ListRequest) -> ListResult:
        """See the contract."""
        resource = self._resource(request.resource, "list")
        collection = self._store.collection(resource.storage)
        selection = _selection(request)
        options = ListOptions(limit=request.limit, resume=request.resume)
        page = await read_page(self._store, collection, selection, options)
        items = tuple(versions.present(resource, record) for record in page.records)
        return ListResult(items=items, revision=page.revision, resume=page.resume)

    async def watch(self, request: ObjectWatch) -> AsyncIterator[ObjectBatch]:
        """See the contract."""
        resource = self._resource(request.resource, "watch")
        watcher = self._watcher(request)
        try:
            await self._store.watch(watcher, request.revision or None)
            first = await watcher.wait_pending(0)
            while len(first) > _BATCH:
                part, first = first[:_BATCH], first[_BATCH:]
                yield _batch(resource, part, 0)
            yield _batch(resource, first, watcher.revision, synced=True)
            while not watcher.ended:
                notices = await watcher.wait_pending(_until_progress(time.monotonic()))
                yield _batch(resource, notices, self._revision(notices))
            raise Gone(f"watch of {request.resource}: {watcher.ended}")
        finally:
            self._store.watchers.remove(watcher)

    def _watcher(self, request: ObjectWatch) -> Watcher:
        resource = self._resource(request.resource, "watch")
        return Watcher(self._store.collection(resource.storage), _selection(request))

    async def remind(self, reminder: Reminder) -> None:
        """See the contract."""
        waits: list[Wait] = [
            Change(self._watcher(watch), watch.revision, _EVERY) for watch in reminder.watches
        ]
        waits += [Change(self._watcher(w), w.revision, _COMINGS) for w in reminder.comings]
        waits += [self._silent(silence) for silence in reminder.silences]
        await self._reminders.leave(call.current().caller, waits)

    def _silent(self, silence: Silence) -> Silent:
        request = ObjectWatch(
            resource=silence.resource,
            namespace=silence.namespace,
            fields=f"metadata.name={silence.name}",
        )
        return Silent(self._watcher(request), silence.first, silence.seconds)

    def _revision(self, notices: Sequence[Notice]) -> int:
        return notices[-1][1].revision if notices else self._store.revision

    async def commit(self, commit: Commit) -> CommitResult:
        """See the contract."""
        for write in commit.writes:
            verb, subresource = _VERBS[write.verb]
            self._resource(write.resource, verb, write.subresource or subresource)
        caller = call.current().caller or "internal"
        groups = ("system:masters", "system:authenticated")
        return await self._commits.commit(commit, Actor(f"system:sagong:{caller}", groups=groups))


def _until_progress(now: float) -> float:
    return _PROGRESS_SECONDS - now % _PROGRESS_SECONDS


def _selection(request: ListRequest | ObjectWatch) -> Selection:
    return Selection(request.namespace, parse_labels(request.labels), parse_fields(request.fields))


def _batch(
    resource: Resource, notices: Sequence[Notice], revision: int, *, synced: bool = False
) -> ObjectBatch:
    changes = tuple(
        ObjectChange(kind=kind, body=versions.shown(resource, event.body(kind)))
        for kind, event in notices
    )
    return ObjectBatch(revision=revision, changes=changes, synced=synced)


def _allows(rule: Rule, resource: Resource, verb: str, subresource: str) -> bool:
    part = f"{resource.plural}/{subresource}" if subresource else resource.plural
    wanted = (
        (rule.get("groups", ()), resource.group),
        (rule.get("resources", ()), part),
        (rule.get("verbs", ()), verb),
    )
    return all(value in allowed or "*" in allowed for allowed, value in wanted)
