"""Plans of writes: from a request and what is there to the bytes that shall be stored."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import msgspec

from sagong.model.names import generated_name
from sagong_kube import refusal
from sagong_kube.refusal import Cause
from sagong_kube.registry import deletion, strategy, versions
from sagong_kube.registry import document as documents
from sagong_kube.registry.actor import Actor, WriteOptions
from sagong_kube.registry.document import Document
from sagong_kube.registry.resource import Resource
from sagong_kube.registry.review import CREATE, UPDATE, Admission, Review
from sagong_kube.registry.shapes import Shapes
from sagong_kube.registry.view import View
from sagong_kube.storage.record import Record, without_revision

__all__ = ["Planned", "Planner", "Renewing", "Subject"]

_NAME_TRIES = 8


class Subject(msgspec.Struct, frozen=True):
    """What is written to, by whom and how."""

    resource: Resource
    namespace: str
    name: str
    actor: Actor
    options: WriteOptions = WriteOptions()
    subresource: str = ""


class Planned(msgspec.Struct):
    """A planned write. `value` is the object as it will be stored (or was, when `deleted`).

    `unchanged` ones write nothing; `renewed` ones are volatile.
    """

    subject: Subject
    key: str
    value: bytes
    base: Record | None
    created: bool = False
    deleted: bool = False
    unchanged: bool = False
    renewed: bool = False
    warnings: list[str] = []


Renewing = Callable[[Record, Document, Document], bool]


class Planner:
    """Plans creations and updates on a view; the caller commits the view's changes."""

    def __init__(
        self,
        shapes: Shapes,
        admission: Admission,
        *,
        chance: random.Random,
        lease: Callable[[Resource], Awaitable[str]],
        renews: Renewing,
    ) -> None:
        self.shapes = shapes
        self.admission = admission
        self._chance = chance
        self._lease = lease
        self._renews = renews

    async def create(self, view: View, subject: Subject, document: Document) -> Planned:
        """Plan a new object."""
        resource = subject.resource
        self._identify(subject, document)
        document = versions.to_stored(resource, document)
        self.shapes.default(resource, document)
        metadata = document["metadata"]
        metadata["uid"] = documents.new_uid(self._chance)
        metadata["creationTimestamp"] = documents.now()
        name = self._name(view, subject, metadata)
        review = self._review(view, subject, CREATE, name)
        review.new = document
        strategy.prepare_create(resource, document, subject.actor)
        await self.admission.mutate(review)
        document = review.new
        key = resource.key(subject.namespace, name)
        if view.record(resource.storage, key) is not None:
            raise refusal.already_exists(resource.plural, resource.group, name)
        manager = "" if self._owners_known(subject) else subject.options.manager
        self._refuse(resource, name, self.shapes.begin(resource, document, manager))
        await self.admission.validate(review)
        value = documents.encode(document)
        view.plan(
            resource.storage,
            key,
            value,
            lease=await self._lease(resource),
            beside=review.beside,
            guards=review.guards,
        )
        return Planned(subject, key, value, None, created=True, warnings=review.warnings)

    def _identify(self, subject: Subject, document: Document) -> None:
        metadata = document.get("metadata")
        if not isinstance(metadata, dict):
            metadata = document["metadata"] = {}
        said = metadata.get("namespace") or ""
        if subject.resource.namespaced:
            if said and said != subject.namespace:
                raise refusal.bad_request(
                    "the namespace of the provided object does not match the namespace sent on "
                    "the request"
                )
            metadata["namespace"] = subject.namespace
        else:
            metadata.pop("namespace", None)
        name = metadata.get("name") or ""
        if subject.name and name and name != subject.name:
            raise refusal.bad_request(
                f"the name of the object ({name}) does not match the name on the URL "
                f"({subject.name})"
            )
        if subject.name:
            metadata["name"] = subject.name

    def _name(self, view: View, subject: Subject, metadata: Document) -> str:
        resource = subject.resource
        if metadata.get("resourceVersion") not in (None, "", "0"):
            raise refusal.bad_request("resourceVersion should not be set on objects to be created")
        if metadata.get("name"):
            return str(metadata["name"])
        base = metadata.get("generateName") or ""
        if not base:
            cause = Cause(
                "FieldValueRequired",
                "Required value: name or generateName is required",
                "metadata.name",
            )
            raise refusal.invalid(resource.kind.kind, resource.group, "", (cause,))
        for _ in range(_NAME_TRIES):
            name = generated_name(base, self._chance)
            if view.record(resource.storage, resource.key(subject.namespace, name)) is None:
                break
        metadata["name"] = name
        return name

    def _review(self, view: View, subject: Subject, operation: str, name: str) -> Review:
        return Review(
            view=view,
            resource=subject.resource,
            operation=operation,
            namespace=subject.namespace,
            name=name,
            actor=subject.actor,
            subresource=subject.subresource,
            dry_run=subject.options.dry_run,
        )

    @staticmethod
    def _owners_known(subject: Subject) -> bool:
        return subject.options.applied or subject.options.untracked

    def _manage(self, subject: Subject, new: Document, old: Document) -> None:
        options = subject.options
        if options.untracked:
            _keep_owners(new, old)
        elif not options.applied:
            self.shapes.manage(subject.resource, new, old, options.manager, subject.subresource)

    def _refuse(self, resource: Resource, name: str, causes: list[Cause]) -> None:
        if causes:
            raise refusal.invalid(resource.kind.kind, resource.group, name, causes)

    async def update(self, view: View, subject: Subject, document: Document) -> Planned:
        """Plan an object to replace the present one, or a part of it named by the subresource."""
        resource = subject.resource
        self._identify(subject, document)
        key = resource.key(subject.namespace, subject.name)
        record = view.record(resource.storage, key)
        if record is None:
            if resource.storage in strategy.CREATE_ON_UPDATE and not subject.subresource:
                return await self.create(view, subject, document)
            raise refusal.not_found(resource.plural, resource.group, subject.name)
        self._precondition(subject, document, record)
        document = versions.to_stored(resource, document)
        self.shapes.default(resource, document)
        return await self.replace(view, subject, document, record)

    def _precondition(self, subject: Subject, document: Document, record: Record) -> None:
        resource, metadata = subject.resource, document["metadata"]
        said = str(metadata.get("resourceVersion") or "")
        if said in ("", "0"):
            if resource.custom:
                cause = Cause(
                    "FieldValueInvalid",
                    "Invalid value: 0x0: must be specified for an update",
                    "metadata.resourceVersion",
                )
                raise refusal.invalid(resource.kind.kind, resource.group, subject.name, (cause,))
        elif said != str(record.revision):
            raise refusal.modified(resource.plural, resource.group, subject.name)
        uid = metadata.get("uid") or record.uid
        if uid != record.uid:
            why = (
                f"Precondition failed: UID in precondition: {uid}, UID in object meta: {record.uid}"
            )
            raise refusal.conflict(resource.plural, resource.group, subject.name, why)

    async def replace(
        self, view: View, subject: Subject, document: Document, record: Record
    ) -> Planned:
        """Plan `document` (in the stored version, complete) over the record."""
        resource = subject.resource
        old = documents.decode(record)
        old["metadata"].pop("resourceVersion", None)
        # Planning changes documents in place, so what is compared with is decoded apart.
        new = strategy.prepare_update(
            resource, document, documents.decode(record), subject.subresource
        )
        new["metadata"].pop("resourceVersion", None)
        new["metadata"]["name"] = subject.name
        review = self._review(view, subject, UPDATE, subject.name)
        review.new, review.old = new, old
        await self.admission.mutate(review)
        new = review.new
        if not subject.subresource and strategy.has_generation(resource):
            strategy.count_generation(new, old)
        if same_object(new, old, owners=subject.options.applied):
            value = without_revision(record.body)
            return Planned(
                subject, record.key, value, record, unchanged=True, warnings=review.warnings
            )
        self._manage(subject, new, old)
        causes = _metadata_wrong(new, old)
        causes += self.shapes.validate(resource, new, old, subject.subresource)
        self._refuse(resource, subject.name, causes)
        await self.admission.validate(review)
        if deletion.ends_by_update(new, old):
            return self._ending(view, subject, record, new, review)
        value = documents.encode(new)
        planned = Planned(subject, record.key, value, record, warnings=review.warnings)
        if not subject.options.dry_run and self._renews(record, new, old):
            planned.renewed = True
            return planned
        lease = await self._lease(resource)
        view.plan(
            resource.storage,
            record.key,
            value,
            lease=lease,
            beside=review.beside,
            guards=review.guards,
        )
        return planned

    def _ending(
        self, view: View, subject: Subject, record: Record, new: Document, review: Review
    ) -> Planned:
        beside, guards = deletion.released(view, subject.resource, new)
        view.plan(
            subject.resource.storage,
            record.key,
            None,
            beside=(*review.beside, *beside),
            guards=(*review.guards, *guards),
        )
        value = documents.encode(new)
        return Planned(subject, record.key, value, record, deleted=True, warnings=review.warnings)


def same_object(new: Document, old: Document, *, owners: bool = False) -> bool:
    """Whether nothing changed; who owns which fields counts only if `owners` is asked for."""
    if _bare(new) != _bare(old):
        return False
    return not owners or _owners(new) == _owners(old)


def _bare(document: Document) -> Document:
    metadata = {k: v for k, v in document["metadata"].items() if k != "managedFields"}
    return {**document, "metadata": metadata}


def _owners(document: Document) -> list[Document]:
    entries = document["metadata"].get("managedFields") or ()
    return [{k: v for k, v in entry.items() if k != "time"} for entry in entries]


def _keep_owners(new: Document, old: Document) -> None:
    kept = old["metadata"].get("managedFields")
    if kept:
        new["metadata"]["managedFields"] = kept
    else:
        new["metadata"].pop("managedFields", None)


def _metadata_wrong(new: Document, old: Document) -> list[Cause]:
    if "deletionTimestamp" not in old["metadata"]:
        return []
    before = set(old["metadata"].get("finalizers") or ())
    added = [f for f in new["metadata"].get("finalizers") or () if f not in before]
    if not added:
        return []
    shown = ", ".join(f'"{finalizer}"' for finalizer in added)
    return [
        Cause(
            "FieldValueForbidden",
            "Forbidden: no new finalizers can be added if the object is being deleted, found new "
            f"finalizers []string{{{shown}}}",
            "metadata.finalizers",
        )
    ]
