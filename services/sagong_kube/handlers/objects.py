"""The generic handlers: get, list, watch, create, update, patch, delete of every resource."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from sagong.errors import NotFound
from sagong.model.numbers import natural
from sagong_kube import refusal
from sagong_kube.handlers.body import check_kind, media_of, read_document
from sagong_kube.handlers.exchange import Answer, Ask, Reply
from sagong_kube.handlers.negotiation import Form, negotiate
from sagong_kube.handlers.paging import read_page
from sagong_kube.handlers.parameters import (
    delete_options,
    list_options,
    selection_of,
    write_options,
)
from sagong_kube.handlers.rendering import Renderer, document_answer
from sagong_kube.handlers.watching import Watching
from sagong_kube.registry import versions
from sagong_kube.registry.actor import DeleteOptions
from sagong_kube.registry.document import Document
from sagong_kube.registry.planner import Subject
from sagong_kube.registry.resource import Resource
from sagong_kube.registry.shapes import Patch
from sagong_kube.registry.writer import Writer, Written, returns_deleted
from sagong_kube.status import success
from sagong_kube.storage.record import Record

__all__ = ["Objects"]

_PATCHES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
_APPLY = "application/apply-patch+yaml"
_WAIT_SECONDS = 3.0
_AT_ONCE = 32


class Objects:
    """Handlers of one store, through one writer."""

    def __init__(self, writer: Writer, renderer: Renderer, watching: Watching) -> None:
        self.writer = writer
        self.store = writer.store
        self.renderer = renderer
        self.watching = watching

    # Reading

    async def record(self, ask: Ask, resource: Resource) -> Record:
        """The object that the request names, fresh enough."""
        version = ask.first("resourceVersion")
        if not version:
            await self.store.settle()
        elif revision := natural(version):
            await self.store.wait_revision(revision, _WAIT_SECONDS)
        target = ask.target
        found = self.store.get(resource.storage, resource.key(target.namespace, target.name))
        if found is None:
            raise refusal.not_found(resource.plural, resource.group, target.name)
        return found

    async def get(self, ask: Ask, resource: Resource) -> Reply:
        """GET of one object, or of its status."""
        form = _form(ask, listed=False)
        record = await self.record(ask, resource)
        body = versions.present(resource, record)
        return self.renderer.object(form, resource, body, include=ask.first("includeObject"))

    async def list(self, ask: Ask, resource: Resource) -> Reply:
        """GET of a collection."""
        form = _form(ask, listed=True)
        collection = self.store.collection(resource.storage)
        selection = selection_of(ask, resource, collection)
        page = await read_page(self.store, collection, selection, list_options(ask))
        return self.renderer.page(form, resource, page, ask.first("includeObject"))

    async def watch(self, ask: Ask, resource: Resource) -> Reply:
        """Watch of a collection, or of one object."""
        form = _form(ask, listed=False)
        collection = self.store.collection(resource.storage)
        selection = selection_of(ask, resource, collection)
        options = list_options(ask)
        return self.watching.open(resource, selection, options, form, ask.first("includeObject"))

    # Writing

    def subject(self, ask: Ask, resource: Resource, subresource: str = "") -> Subject:
        """What the request writes to."""
        target = ask.target
        return Subject(
            resource, target.namespace, target.name, ask.actor, write_options(ask), subresource
        )

    def _document(
        self, ask: Ask, resource: Resource, subject: Subject
    ) -> tuple[Document, Sequence[str]]:
        """The body as a checked document, and warnings about it."""
        document, text = read_document(ask, custom=resource.custom)
        check_kind(document, resource.kind)
        shapes = self.writer.planner.shapes
        return document, shapes.check(resource, document, text, subject.options.validation)

    async def create(self, ask: Ask, resource: Resource) -> Reply:
        """POST to a collection."""
        form = _form(ask, listed=False)
        subject = self.subject(ask, resource)
        document, warnings = self._document(ask, resource, subject)
        written = await self.writer.create(
            subject, document, lambda: self._document(ask, resource, subject)[0]
        )
        return self._written(ask, form, resource, written, 201, warnings)

    async def update(self, ask: Ask, resource: Resource, subresource: str = "") -> Reply:
        """PUT of an object or of one of its parts."""
        form = _form(ask, listed=False)
        subject = self.subject(ask, resource, subresource)
        document, warnings = self._document(ask, resource, subject)
        written = await self.writer.update(
            subject, document, lambda: self._document(ask, resource, subject)[0]
        )
        return self._written(
            ask, form, resource, written, 201 if written.created else 200, warnings
        )

    async def patch(self, ask: Ask, resource: Resource, subresource: str = "") -> Reply:
        """PATCH of an object or of one of its parts."""
        form = _form(ask, listed=False)
        subject = self.subject(ask, resource, subresource)
        media = media_of(ask)
        allowed = (
            _PATCHES if not resource.custom else tuple(p for p in _PATCHES if "strategic" not in p)
        )
        if media not in allowed:
            raise refusal.unsupported(allowed)
        body = ask.body
        warnings: Sequence[str] = ()
        if media == _APPLY:
            if not ask.first("fieldManager"):
                raise refusal.bad_request(
                    'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is '
                    "required for apply patch"
                )
            body, warnings = self._applied(ask, resource, subject)
        elif subject.options.force:
            raise refusal.bad_request(
                'PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified '
                "for non-apply patch"
            )
        written = await self.writer.patch(subject, Patch(media, body))
        code = 201 if written.created else 200
        return self._written(ask, form, resource, written, code, warnings)

    def _applied(
        self, ask: Ask, resource: Resource, subject: Subject
    ) -> tuple[bytes, Sequence[str]]:
        as_yaml = msgspec.structs.replace(
            ask, headers={**ask.headers, "content-type": "application/yaml"}
        )
        document, _ = read_document(as_yaml)
        if not document.get("apiVersion") or not document.get("kind"):
            raise refusal.bad_request("invalid object type: apiVersion and kind must be set")
        check_kind(document, resource.kind)
        checked = msgspec.json.decode(msgspec.json.encode(document))
        shapes = self.writer.planner.shapes
        warnings = shapes.check(resource, checked, b"", subject.options.validation)
        return msgspec.json.encode(document), warnings

    def _written(
        self,
        ask: Ask,
        form: Form,
        resource: Resource,
        written: Written,
        status: int,
        warnings: Sequence[str],
    ) -> Answer:
        answer = self.renderer.object(
            form, resource, written.body, status=status, include=ask.first("includeObject")
        )
        answer.warnings = (*warnings, *written.warnings)
        return answer

    # Deleting

    async def delete(self, ask: Ask, resource: Resource) -> Reply:
        """DELETE of one object."""
        form = _form(ask, listed=False)
        target = ask.target
        options = delete_options(ask)
        deleted = await self.writer.delete(
            resource, target.namespace, target.name, options, ask.actor
        )
        if deleted.gone and not returns_deleted(resource):
            status = success(
                name=target.name, group=resource.group, kind=resource.plural, uid=deleted.uid
            )
            answer = document_answer(Form(form.media, pretty=form.pretty), status)
        else:
            answer = self.renderer.object(form, resource, deleted.body)
        answer.warnings = deleted.warnings
        return answer

    async def delete_collection(self, ask: Ask, resource: Resource) -> Reply:
        """DELETE of a collection: each matching object, some at once."""
        form = _form(ask, listed=True)
        collection = self.store.collection(resource.storage)
        selection = selection_of(ask, resource, collection)
        options = delete_options(ask)
        listing = msgspec.structs.replace(
            ask, target=msgspec.structs.replace(ask.target, verb="list")
        )
        page = await read_page(self.store, collection, selection, list_options(listing))
        for start in range(0, len(page.records), _AT_ONCE):
            batch = page.records[start : start + _AT_ONCE]
            async with asyncio.TaskGroup() as group:
                for record in batch:
                    group.create_task(self._delete_one(ask, resource, record, options))
        return self.renderer.page(form, resource, page)

    async def _delete_one(
        self, ask: Ask, resource: Resource, record: Record, options: DeleteOptions
    ) -> None:
        try:
            await self.writer.delete(resource, record.namespace, record.name, options, ask.actor)
        except NotFound:
            return


def _form(ask: Ask, *, listed: bool) -> Form:
    form = negotiate(ask.headers.get("accept", ""), listed=listed)
    return msgspec.structs.replace(form, pretty=True) if ask.flag("pretty") else form
