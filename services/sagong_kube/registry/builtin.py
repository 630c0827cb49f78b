"""The built-in kinds: their table as a catalogue, and what is known of their shapes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from sagong.model.objects import GroupVersionKind
from sagong_kube import refusal
from sagong_kube.refusal import Cause
from sagong_kube.registry import document as documents
from sagong_kube.registry.document import Document
from sagong_kube.registry.resource import Resource
from sagong_kube.registry.shapes import Patch
from sagong_kube.schema import decoding, defaults, resources, validation
from sagong_kube.schema.rules.metadata import name_check

__all__ = ["BuiltinShapes", "apply_document", "builtin_resources", "note_managers"]


def builtin_resources() -> Iterator[Resource]:
    """Every resource of the table."""
    for spec in resources.RESOURCES:
        yield Resource(
            kind=spec.kind,
            plural=spec.plural,
            singular=spec.singular,
            namespaced=spec.namespaced,
            verbs=spec.verbs,
            short_names=spec.short_names,
            categories=spec.categories,
            subresources={part.name: part for part in spec.subresources},
            storage=spec.storage or f"{spec.kind.group or 'core'}/{spec.plural}",
            stored_kind=spec.stored if spec.stored.kind else spec.kind,
            virtual=spec.virtual,
        )


class BuiltinShapes:
    """Shapes of built-in kinds.

    Pods come in thousands from few templates: what a template's fields are, and that they are right,
    is kept by a digest of everything but what is each pod's own.
    """

    def __init__(self) -> None:
        self._templates: dict[tuple[int, int], Document] = {}

    def check(
        self, resource: Resource, document: Document, body: bytes, strictness: str
    ) -> list[str]:
        """See `Shapes.check`; the document is made what Go types would decode."""
        return self.read(resource.kind, document, body, strictness)

    @staticmethod
    def read(kind: GroupVersionKind, document: Document, body: bytes, strictness: str) -> list[str]:
        """Make a document what the kind's Go types would decode; problems are warnings."""
        if body and _may_repeat(document, body):
            decoded = decoding.decode(body, kind, validation=strictness)
        else:
            decoded = decoding.conform(document, kind, validation=strictness)
        if strictness == "Strict" and decoded.problems:
            raise refusal.bad_request(decoding.strict_error(kind, decoded.problems))
        document.clear()
        document.update(decoded.document)
        return list(decoded.problems) if strictness != "Ignore" else []

    def default(self, resource: Resource, document: Document) -> None:
        """See `Shapes.default`."""
        defaults.apply_defaults(document, _of(document))

    def begin(self, resource: Resource, document: Document, manager: str) -> list[Cause]:
        """See `Shapes.begin`; pods of one template are examined once."""
        if resource.storage != "core/pods" or not manager:
            causes, _ = self._examine(resource, document, manager)
            return causes
        digest = _template(document)
        known = self._templates.get(digest)
        if known is None:
            causes, fields = self._examine(resource, document, manager)
            if not causes and fields is not None:
                self._remember(digest, fields)
            return causes
        _own(document, manager, known)
        wrong = name_check("Pod")(document["metadata"]["name"])
        said = f'Invalid value: "{document["metadata"]["name"]}": '
        return [Cause("FieldValueInvalid", said + why, "metadata.name") for why in wrong]

    def _examine(
        self, resource: Resource, document: Document, manager: str
    ) -> tuple[list[Cause], Document | None]:
        if manager:
            note_managers(resource, document, None, manager, "", None)
        errors = validation.validate(document, _of(document), None, "")
        causes = [Cause(error.reason, error.message, error.path) for error in errors]
        entries: list[Document] = document["metadata"].get("managedFields") or []
        fields = entries[0]["fieldsV1"] if len(entries) == 1 else None
        return causes, fields

    def _remember(self, digest: tuple[int, int], fields: Document) -> None:
        if len(self._templates) >= _TEMPLATES:
            self._templates.clear()
        self._templates[digest] = fields

    def validate(
        self, resource: Resource, new: Document, old: Document, subresource: str
    ) -> list[Cause]:
        """See `Shapes.validate`."""
        if subresource == "binding":
            return []
        errors = validation.validate(new, _of(new), old, subresource)
        return [Cause(error.reason, error.message, error.path) for error in errors]

    def patch(self, resource: Resource, live: Document, patch: Patch) -> Document:
        """See `Shapes.patch`."""
        from sagong_kube.patch import jsonpatch, mergepatch, strategic

        change = _decoded(patch)
        patched: Document
        if patch.media == "application/json-patch+json":
            if not isinstance(change, list):
                raise refusal.bad_request("a JSON patch is an array of operations")
            patched = jsonpatch.apply(live, change)
        elif not isinstance(change, dict):
            raise refusal.bad_request("a patch is an object")
        elif patch.media == "application/merge-patch+json":
            patched = mergepatch.apply(live, change)
        else:
            patched = strategic.apply(live, change, resource.kind)
        decoded = decoding.conform(patched, resource.kind, validation="Ignore")
        result: Document = decoded.document
        return result

    def apply(
        self,
        resource: Resource,
        live: Document | None,
        applied: Document,
        manager: str,
        force: bool,
        subresource: str,
    ) -> Document:
        """See `Shapes.apply`."""
        document = apply_document(resource, live, applied, manager, force, subresource, None)
        # What is merged has only what was said; typed decoding fills in what Go types always have.
        decoded = decoding.conform(document, resource.kind, validation="Ignore")
        return decoded.document

    def manage(
        self, resource: Resource, new: Document, old: Document, manager: str, subresource: str
    ) -> None:
        """See `Shapes.manage`."""
        note_managers(resource, new, old, manager, subresource, None)


_OWN = frozenset(("name", "generateName", "uid", "creationTimestamp", "managedFields"))
_TEMPLATES = 1024


def _template(pod: Document) -> tuple[int, int]:
    metadata = {key: value for key, value in pod["metadata"].items() if key not in _OWN}
    shared = {**pod, "metadata": metadata, "generated": "generateName" in pod["metadata"]}
    encoded = msgspec.json.encode(shared)
    # Keyed by a secret of this process, and it doesn't let go of the interpreter as hashlib does.
    return len(encoded), hash(encoded)


def _own(document: Document, manager: str, fields: Document) -> None:
    entry = {
        "manager": manager,
        "operation": "Update",
        "apiVersion": document["apiVersion"],
        "time": documents.now(),
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }
    document["metadata"]["managedFields"] = [entry]


def _may_repeat(document: Document, body: bytes) -> bool:
    """Whether the text may name a field twice: a quick look before the slow search.

    Each name stands before `":` once; what is in strings is so in both texts alike.
    """
    return body.count(b'":') != msgspec.json.encode(document).count(b'":')


def _of(document: Document) -> GroupVersionKind:
    group, _, version = document["apiVersion"].rpartition("/")
    return GroupVersionKind(group, version, document["kind"])


def _decoded(patch: Patch) -> Any:
    try:
        return msgspec.json.decode(patch.body)
    except msgspec.DecodeError as error:
        raise refusal.bad_request(f"error decoding patch: {error}") from None


def note_managers(
    resource: Resource,
    new: Document,
    old: Document | None,
    manager: str,
    subresource: str,
    schema: Document | None,
) -> None:
    """Who owns which fields after a write that was no apply."""
    from sagong_kube.patch import managed

    fields = managed.after_update(
        new,
        old,
        _of(new),
        manager=manager,
        now=documents.now(),
        subresource=subresource,
        schema=schema,
    )
    if fields:
        new["metadata"]["managedFields"] = fields
    else:
        new["metadata"].pop("managedFields", None)


def apply_document(
    resource: Resource,
    live: Document | None,
    applied: Document,
    manager: str,
    force: bool,
    subresource: str,
    schema: Document | None,
) -> Document:
    from sagong_kube.patch import apply as server_side

    try:
        result = server_side.apply(
            live,
            applied,
            resource.kind,
            manager=manager,
            now=documents.now(),
            force=force,
            subresource=subresource,
            schema=schema,
        )
    except server_side.ApplyConflict as conflict:
        causes = [Cause(reason, message, field) for reason, field, message in conflict.causes]
        name = applied.get("metadata", {}).get("name", "")
        error = refusal.conflict(resource.plural, resource.group, name, "", causes)
        error.message = conflict.message
        error.args = (conflict.message,)
        raise error from None
    document: Document = result.document
    return document
