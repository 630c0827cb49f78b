"""Who owns which fields: managedFields, kept by every write."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from sagong.errors import InvalidArgument
from sagong.model.objects import GroupVersionKind
from sagong_kube.patch import fieldset
from sagong_kube.patch.fieldset import FieldSet, Path
from sagong_kube.patch.shapes import Shape, shape_of
from sagong_kube.patch.typed import Comparison, compared
from sagong_kube.schema import resources
from sagong_kube.schema.inspection import Inspection
from sagong_kube.schema.types import type_of

__all__ = ["Entry", "Managed", "after_update", "empty", "read", "take", "write"]

Document = dict[str, Any]

APPLY: Final = "Apply"
UPDATE: Final = "Update"
BEFORE_APPLY: Final = "before-first-apply"
_ANCIENT: Final = "ancient-changes"
_MOST_UPDATERS: Final = 10
_STRIPPED: Final = frozenset(
    (
        ("f:apiVersion",),
        ("f:kind",),
        ("f:metadata",),
        *(
            ("f:metadata", f"f:{name}")
            for name in (
                *("name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName"),
                *("generation", "managedFields", "resourceVersion"),
            )
        ),
    )
)
_STATUS: Final[tuple[Path, ...]] = (("f:status",),)
_NOT_STATUS: Final[tuple[Path, ...]] = (("f:spec",), ("f:metadata", "f:labels"))


class Owner(msgspec.Struct, frozen=True, order=True):
    """What tells one entry from another."""

    manager: str
    operation: str
    api_version: str = ""
    subresource: str = ""

    def __str__(self) -> str:
        said = f'"{self.manager}"'
        if self.subresource:
            said += f' with subresource "{self.subresource}"'
        return f"{said} using {self.api_version}" if self.operation == UPDATE else said


class Entry(msgspec.Struct, frozen=True):
    """What an owner owns, since when, and in which version it said so."""

    fields: FieldSet
    time: str
    api_version: str


Managed = dict[Owner, Entry]


def read(entries: Iterable[Mapping[str, Any]] | None) -> Managed:
    """managedFields decoded; a list that can't be is treated as none, as upstream does."""
    found: Managed = {}
    try:
        for entry in entries or ():
            owner, value = _read_entry(entry)
            found[owner] = value
    except (InvalidArgument, KeyError, TypeError):
        return {}
    return found


def owner_of(manager: str, operation: str, kind: GroupVersionKind, subresource: str) -> Owner:
    """The identity of an entry; appliers are the same whatever version they write in."""
    api_version = "" if operation == APPLY else kind.api_version
    return Owner(manager, operation, api_version, subresource)


def _read_entry(entry: Mapping[str, Any]) -> tuple[Owner, Entry]:
    operation, api_version = entry["operation"], entry["apiVersion"]
    owner = Owner(
        entry.get("manager", ""),
        operation,
        "" if operation == APPLY else api_version,
        entry.get("subresource", ""),
    )
    fields = fieldset.decode(entry.get("fieldsV1") or {})
    return owner, Entry(fields, entry.get("time") or "", api_version)


def write(managed: Managed) -> list[Document]:
    """managedFields as objects show them, appliers first, then by time."""
    ordered = sorted(managed.items(), key=lambda each: (each[0].operation, each[1].time, each[0]))
    return [_written(owner, entry) for owner, entry in ordered]


def _written(owner: Owner, entry: Entry) -> Document:
    found: Document = {
        "manager": owner.manager,
        "operation": owner.operation,
        "apiVersion": entry.api_version,
        "time": entry.time,
        "fieldsType": "FieldsV1",
        "fieldsV1": fieldset.encode(entry.fields),
    }
    if not entry.time:
        del found["time"]
    if owner.subresource:
        found["subresource"] = owner.subresource
    return found


def ignored(kind: GroupVersionKind, subresource: str) -> tuple[Path, ...]:
    """Fields that a write to this endpoint can't own, since it doesn't change them."""
    if subresource == "status":
        return _NOT_STATUS
    resource = resources.of_kind(kind)
    if resource is not None and resource.subresource("status") is not None:
        return _STATUS
    return ()


def plain(document: Document) -> Document:
    """A document without what is never owned and takes part in no comparison."""
    metadata = {k: v for k, v in document.get("metadata", {}).items() if k != "managedFields"}
    return {**document, "metadata": metadata}


def stripped(fields: FieldSet, without: tuple[Path, ...]) -> FieldSet:
    """A set without the server's own fields and those below `without`."""
    kept = fields - _STRIPPED
    if not without:
        return kept
    return frozenset(path for path in kept if not fieldset.within(path, without))


def take(managed: Managed, changes: Comparison, keeper: Owner | None) -> Managed:
    """What others own after these changes: not what was changed or removed."""
    lost = changes.added | changes.modified | changes.removed
    found: Managed = {}
    for owner, entry in managed.items():
        if owner == keeper or not lost & entry.fields:
            found[owner] = entry
            continue
        fields = entry.fields - lost
        if fields:
            found[owner] = Entry(fields, entry.time, entry.api_version)
    return found


def after_update(
    new: Document,
    old: Document | None,
    kind: GroupVersionKind,
    *,
    manager: str,
    now: str,
    subresource: str = "",
    schema: Mapping[str, Any] | None = None,
) -> list[Document]:
    """managedFields of `new` after a create, update or patch of `old` (None: a creation)."""
    live = old or empty(kind, schema)
    listed = new.get("metadata", {}).get("managedFields")
    if listed is not None and not subresource and (not listed or listed == [{}]):
        managed: Managed = {}
        if old is not None:
            return []
    else:
        managed = ({} if subresource else read(listed)) or read(
            live["metadata"].get("managedFields")
        )
    if old is not None and not managed:
        return []
    shape = shape_of(kind, schema)
    owner = owner_of(manager, UPDATE, kind, subresource)
    changed = changed_by(managed, live, new, shape, owner, kind, now, schema=schema)
    return write(_capped(changed))


def empty(kind: GroupVersionKind, schema: Mapping[str, Any] | None) -> Document:
    """What creation is compared with: a built-in kind's object as Go types begin."""
    name = type_of(kind) if schema is None else None
    return {"metadata": {}} if name is None else _begun(name)


@functools.cache
def _begun(name: str) -> Document:
    return {"metadata": {}, **Inspection().typed({}, name)}


def changed_by(
    managed: Managed,
    old: Document,
    new: Document,
    shape: Shape,
    owner: Owner,
    kind: GroupVersionKind,
    now: str,
    *,
    schema: Mapping[str, Any] | None = None,
) -> Managed:
    """Ownership after an update by `owner`."""
    changes = compared(plain(old), plain(new), shape)
    found = take(managed, changes, None)
    without = (
        _STATUS
        if schema is not None and not owner.subresource
        else ignored(kind, owner.subresource)
    )
    mine = stripped(changes.added | changes.modified, without)
    if mine:
        before = found.get(owner)
        fields = mine | before.fields if before is not None else mine
        found[owner] = Entry(fields, now, kind.api_version)
    return found


def _capped(managed: Managed) -> Managed:
    """At most ten updaters: the oldest become one."""
    updaters = [(o, e) for o, e in managed.items() if o.operation == UPDATE]
    extra = len(updaters) - _MOST_UPDATERS
    if extra <= 0:
        return managed
    updaters.sort(key=lambda each: each[1].time)
    found = dict(managed)
    for owner, entry in updaters[: extra + 1]:
        if owner.manager == _ANCIENT:
            continue
        bucket = Owner(_ANCIENT, UPDATE, owner.api_version)
        known = found.get(bucket)
        fields = entry.fields | known.fields if known is not None else entry.fields
        del found[owner]
        found[bucket] = Entry(fields, entry.time, entry.api_version)
    return found
