"""Doing writes: plan on the cache, commit with conditions, plan anew when somebody was faster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from sagong.errors import SagongError
from sagong_kube import refusal
from sagong_kube.registry import document as documents
from sagong_kube.registry import strategy, versions
from sagong_kube.registry.actor import Actor, DeleteOptions, WriteOptions
from sagong_kube.registry.deletion import plan_deletion, preconditions
from sagong_kube.registry.document import Document
from sagong_kube.registry.planner import Planned, Planner, Subject
from sagong_kube.registry.resource import Resource
from sagong_kube.registry.review import DELETE, Review
from sagong_kube.registry.shapes import Patch
from sagong_kube.registry.view import View
from sagong_kube.storage.record import Record, with_revision
from sagong_kube.storage.renewals import Renewals
from sagong_kube.storage.store import Store

__all__ = ["Again", "Deleted", "Writer", "Written", "returns_deleted"]

_TRIES = 8
APPLY_MEDIA = "application/apply-patch+yaml"


class Written(msgspec.Struct, frozen=True):
    """An object as the write left it, in the version it was written in."""

    body: bytes
    created: bool = False
    deleted: bool = False
    warnings: tuple[str, ...] = ()
    revision: int = 0


class Deleted(msgspec.Struct, frozen=True):
    """`body` is the object as it was or as it is marked; `gone` if it ended at once."""

    body: bytes
    gone: bool
    uid: str
    name: str
    warnings: tuple[str, ...] = ()


Again = Callable[[], Document]


class _Fresh:
    """A document for each try: planning changes what it is given."""

    def __init__(self, document: Document, again: Again) -> None:
        self._first: Document | None = document
        self._again = again

    def take(self) -> Document:
        """The document as it came."""
        first, self._first = self._first, None
        return first if first is not None else self._again()


Plan = Callable[[View], Awaitable[Planned]]


class Writer:
    """All writes of the API go through here, or through `Commits` for batches."""

    def __init__(self, store: Store, planner: Planner, renewals: Renewals) -> None:
        self.store = store
        self.planner = planner
        self._renewals = renewals

    async def create(self, subject: Subject, document: Document, again: Again) -> Written:
        """Make an object; `again` gives the document anew when a lost race needs another try."""
        fresh = _Fresh(document, again)
        return await self._run(
            subject, lambda view: self.planner.create(view, subject, fresh.take())
        )

    async def update(self, subject: Subject, document: Document, again: Again) -> Written:
        """Replace an object or one of its subresources; `again` as for `create`."""
        fresh = _Fresh(document, again)
        return await self._run(
            subject, lambda view: self.planner.update(view, subject, fresh.take())
        )

    async def edit(
        self, subject: Subject, change: Callable[[Document], Document | None]
    ) -> Written:
        """Change the present object by a function; None from it leaves the object as it is.

        The function is called again when somebody else wrote meanwhile.
        """

        async def plan(view: View) -> Planned:
            record = self._record(view, subject)
            document = change(documents.decode(record))
            if document is None:
                document = documents.decode(record)
            return await self.planner.replace(view, subject, document, record)

        return await self._run(subject, plan)

    async def patch(self, subject: Subject, patch: Patch) -> Written:
        """Patch an object; an apply may create it."""
        if patch.media == APPLY_MEDIA:
            return await self._run(subject, lambda view: self._plan_apply(view, subject, patch))
        return await self._run(subject, lambda view: self._plan_patch(view, subject, patch))

    async def _plan_patch(self, view: View, subject: Subject, patch: Patch) -> Planned:
        resource, record = subject.resource, self._record(view, subject)
        live = versions.from_stored(resource, documents.decode(record))
        patched = self.planner.shapes.patch(resource, live, patch)
        self._same_identity(resource, live, patched)
        if resource.custom and not (patched["metadata"].get("resourceVersion")):
            patched["metadata"]["resourceVersion"] = str(record.revision)
        return await self.planner.update(view, subject, patched)

    def _same_identity(self, resource: Resource, live: Document, patched: Document) -> None:
        for field in ("name", "namespace"):
            if patched["metadata"].get(field) != live["metadata"].get(field):
                raise refusal.bad_request(
                    f"the {field} of the object can't be changed by a patch: metadata.{field} "
                    f"is {live['metadata'].get(field)}"
                )

    async def _plan_apply(self, view: View, subject: Subject, patch: Patch) -> Planned:
        resource, options = subject.resource, subject.options
        subject = msgspec.structs.replace(
            subject, options=msgspec.structs.replace(options, applied=True)
        )
        applied: Document = msgspec.json.decode(patch.body)
        _drop_null_times(applied)
        key = resource.key(subject.namespace, subject.name)
        record = view.record(resource.storage, key)
        shapes = self.planner.shapes
        if record is None:
            if subject.subresource:
                raise refusal.not_found(resource.plural, resource.group, subject.name)
            document = shapes.apply(
                resource, None, applied, options.manager, options.force, subject.subresource
            )
            return await self.planner.create(view, subject, document)
        live = versions.from_stored(resource, documents.decode(record))
        document = shapes.apply(
            resource, live, applied, options.manager, options.force, subject.subresource
        )
        said = str(applied.get("metadata", {}).get("resourceVersion") or record.revision)
        document["metadata"]["resourceVersion"] = said
        return await self.planner.update(view, subject, document)

    def _record(self, view: View, subject: Subject) -> Record:
        resource = subject.resource
        record = view.record(resource.storage, resource.key(subject.namespace, subject.name))
        if record is None:
            raise refusal.not_found(resource.plural, resource.group, subject.name)
        return record

    async def _run(self, subject: Subject, plan: Plan) -> Written:
        resource = subject.resource
        for _ in range(_TRIES):
            view = View(self.store)
            try:
                planned = await plan(view)
            except SagongError:
                # The refusal may rest on a cache that has not seen an acknowledged write yet.
                if self.store.revision >= self.store.written:
                    raise
                await self.store.settle()
                continue
            if subject.options.dry_run or planned.unchanged or planned.renewed:
                return self._without_write(planned)
            done = await self.store.write(view.changes)
            if done.done:
                return _written(planned, done.revision)
        raise refusal.modified(resource.plural, resource.group, subject.name)

    def _without_write(self, planned: Planned) -> Written:
        base = planned.base
        if planned.renewed and base is not None:
            self._renewals.renew(base, planned.value)
        return _written(planned, base.revision if base is not None else 0)

    # Deletion

    async def delete(
        self, resource: Resource, namespace: str, name: str, options: DeleteOptions, actor: Actor
    ) -> Deleted:
        """Delete, or mark for deletion."""
        subject = Subject(resource, namespace, name, actor, WriteOptions(dry_run=options.dry_run))
        for _ in range(_TRIES):
            view = View(self.store)
            record = view.record(resource.storage, resource.key(namespace, name))
            if record is None and self.store.revision < self.store.written:
                await self.store.settle()
                continue
            record = self._record(view, subject)
            preconditions(resource, record, options)
            warnings = await self._review_deletion(view, subject, record)
            planned = plan_deletion(view, resource, record, options)
            value = documents.encode(planned.document)
            if options.dry_run or not view.changes:
                body = versions.shown(resource, with_revision(value, record.revision))
                return Deleted(body, planned.gone, record.uid, name, warnings)
            done = await self.store.write(view.changes)
            if done.done:
                body = versions.shown(resource, with_revision(value, done.revision))
                return Deleted(body, planned.gone, record.uid, name, warnings)
        raise refusal.modified(resource.plural, resource.group, name)

    async def _review_deletion(
        self, view: View, subject: Subject, record: Record
    ) -> tuple[str, ...]:
        review = Review(
            view=view,
            resource=subject.resource,
            operation=DELETE,
            namespace=subject.namespace,
            name=subject.name,
            actor=subject.actor,
            old=documents.decode(record),
            dry_run=subject.options.dry_run,
        )
        await self.planner.admission.mutate(review)
        await self.planner.admission.validate(review)
        return tuple(review.warnings)


def _written(planned: Planned, revision: int) -> Written:
    body = with_revision(planned.value, revision) if revision else planned.value
    return Written(
        versions.shown(planned.subject.resource, body),
        created=planned.created,
        deleted=planned.deleted,
        warnings=tuple(planned.warnings),
        revision=revision,
    )


def returns_deleted(resource: Resource) -> bool:
    """Whether a completed deletion answers with the object instead of a Status."""
    return resource.storage in strategy.RETURNS_DELETED


def _drop_null_times(value: object) -> None:
    """Clients in Go write `creationTimestamp: null` for none: nobody owns that by applying it."""
    if isinstance(value, list):
        for item in value:
            _drop_null_times(item)
    elif isinstance(value, dict):
        if value.get("creationTimestamp", 0) is None:
            del value["creationTimestamp"]
        for item in value.values():
            _drop_null_times(item)
