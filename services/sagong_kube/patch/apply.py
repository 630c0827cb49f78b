"""Server-side apply: what a manager applies is merged in, what it no longer applies is removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from sagong.errors import Conflict, InvalidArgument
from sagong.model.objects import GroupVersionKind
from sagong_kube.patch import fieldset
from sagong_kube.patch.fieldset import FieldSet, Path
from sagong_kube.patch.managed import (
    APPLY,
    BEFORE_APPLY,
    UPDATE,
    Entry,
    Managed,
    Owner,
    changed_by,
    empty,
    ignored,
    owner_of,
    plain,
    read,
    stripped,
    take,
    write,
)
from sagong_kube.patch.shapes import Shape, shape_of
from sagong_kube.patch.typed import compared, field_set, merged, owned_containers, removed

__all__ = ["Applied", "ApplyConflict", "apply"]

Document = dict[str, Any]


class ApplyConflict(Conflict):
    """Others own fields that the applied document sets to something else."""

    def __init__(self, found: list[tuple[Owner, Path]]) -> None:
        super().__init__(_message(found), detail={"reason": "Conflict"})
        self.causes: tuple[tuple[str, str, str], ...] = tuple(
            ("FieldManagerConflict", fieldset.shown(path), f"conflict with {owner}")
            for owner, path in found
        )


def _message(found: list[tuple[Owner, Path]]) -> str:
    if len(found) == 1:
        owner, path = found[0]
        return f"Apply failed with 1 conflict: conflict with {owner}: {fieldset.shown(path)}"
    lines: list[str] = []
    for owner in dict.fromkeys(owner for owner, _ in found):
        lines.append(f"conflicts with {owner}:")
        lines += [f"- {fieldset.shown(path)}" for each, path in found if each == owner]
    return f"Apply failed with {len(found)} conflicts: " + "\n".join(lines)


class Applied(msgspec.Struct, frozen=True):
    """The document after an apply, with its managedFields; `changed` is false for a no-op."""

    document: Document
    changed: bool = True


def apply(
    live: Document | None,
    applied: Document,
    kind: GroupVersionKind,
    *,
    manager: str,
    now: str,
    force: bool = False,
    subresource: str = "",
    schema: Mapping[str, Any] | None = None,
) -> Applied:
    """Apply a document over the live one (None: it does not exist yet).

    ApplyConflict unless `force`. The applied document must not have managedFields.
    """
    if (applied.get("metadata") or {}).get("managedFields"):
        raise InvalidArgument("metadata.managedFields must be nil")
    shape = shape_of(kind, schema)
    base: Document = live or {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {}}
    owner = owner_of(manager, APPLY, kind, subresource)
    managed = _known(live, base, shape, kind, now, schema)
    mine, config = managed.get(owner), plain(applied)
    old = plain(base)
    fields = _owned(config, shape, kind, subresource, schema)
    document = merged(old, config, shape)
    others = [entry.fields for each, entry in managed.items() if each != owner]
    document = _pruned(document, mine.fields if mine else frozenset(), [fields, *others], shape)
    changes = compared(old, document, shape)
    if not force:
        _check_conflicts(managed, owner, changes.added | changes.modified)
    found = take(managed, changes, owner)
    unchanged = mine is not None and changes.same and mine.fields == fields
    time = mine.time if mine is not None and unchanged else now
    if fields:
        found[owner] = Entry(fields, time, kind.api_version)
    else:
        found.pop(owner, None)
    document["metadata"]["managedFields"] = write(found)
    return Applied(document, not unchanged)


def _known(
    live: Document | None,
    base: Document,
    shape: Shape,
    kind: GroupVersionKind,
    now: str,
    schema: Mapping[str, Any] | None,
) -> Managed:
    """Who owns what; all that an object without managedFields has belongs to nobody in particular."""
    managed = read(base["metadata"].get("managedFields"))
    if live is None or managed:
        return managed
    first = Owner(BEFORE_APPLY, UPDATE, kind.api_version)
    return changed_by({}, empty(kind, schema), live, shape, first, kind, now, schema=schema)


def _owned(
    config: Document,
    shape: Shape,
    kind: GroupVersionKind,
    subresource: str,
    schema: Mapping[str, Any] | None,
) -> FieldSet:
    without: tuple[Path, ...] = ignored(kind, subresource)
    if schema is not None and not subresource:
        without = (("f:status",),)
    return stripped(field_set(config, shape), without)


def _pruned(document: Document, last: FieldSet, owned: list[FieldSet], shape: Shape) -> Document:
    """Without what the manager applied last time and nobody owns any more."""
    if not last:
        return document
    kept = owned_containers((path for fields in owned for path in fields), shape)
    gone = owned_containers(last, shape) - kept
    gone -= {("f:metadata",), ("f:apiVersion",), ("f:kind",)}
    result: Document = removed(document, gone, shape)
    return result


def _check_conflicts(managed: Managed, owner: Owner, changed: FieldSet) -> None:
    found = [
        (other, path)
        for other, entry in sorted(managed.items(), key=lambda each: each[0])
        if other != owner
        for path in sorted(entry.fields & changed)
    ]
    if found:
        raise ApplyConflict(found)
