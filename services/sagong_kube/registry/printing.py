"""Columns and cells of tables: built-in kinds by their table, custom ones by their definitions."""

from __future__ import annotations

from typing import Any

from sagong.errors import InvalidArgument
from sagong.model.objects import GroupVersionKind
from sagong.model.times import age, parse_time
from sagong_kube.registry.document import Document
from sagong_kube.registry.jsonpath import find
from sagong_kube.registry.resource import Column, Resource

__all__ = ["cells", "columns"]

_NAME_SAID = (
    "Name must be unique within a namespace. Is required when creating resources, although some "
    "resources may allow a client to request the generation of an appropriate name automatically. "
    "Name is primarily intended for creation idempotence and configuration definition. Cannot be "
    "updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names"
)
_AGE_COLUMN = Column("Age", "date", ".metadata.creationTimestamp")


def _kind(resource: Resource) -> GroupVersionKind:
    return GroupVersionKind(resource.group, resource.kind.version, resource.kind.kind)


def columns(resource: Resource) -> list[dict[str, Any]]:
    """Column definitions of a resource's table."""
    if not resource.custom:
        from sagong_kube.convert import table

        found: list[dict[str, Any]] = table.columns(_kind(resource))
        return found
    name = {
        "name": "Name",
        "type": "string",
        "format": "name",
        "description": _NAME_SAID,
        "priority": 0,
    }
    return [name, *(_definition(column) for column in resource.columns or (_AGE_COLUMN,))]


def _definition(column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    }


def cells(resource: Resource, document: Document, now: float) -> list[Any]:
    """One row's cells."""
    if not resource.custom:
        from sagong_kube.convert import table

        found: list[Any] = table.cells(_kind(resource), document, now)
        return found
    name = document["metadata"]["name"]
    return [name, *(_cell(c, document, now) for c in resource.columns or (_AGE_COLUMN,))]


def _cell(column: Column, document: Document, now: float) -> Any:
    found = find(document, column.path)
    if not found:
        return None
    value = found[0]
    match column.type:
        case "date":
            return _age_of(value, now)
        case "integer" if isinstance(value, int | float):
            return int(value)
        case "number" if isinstance(value, int | float):
            return value
        case "boolean" if isinstance(value, bool):
            return value
        case "string":
            return " ".join(_text(v) for v in found) if len(found) > 1 else _text(value)
    return None


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    import msgspec

    return msgspec.json.encode(value).decode()


def _age_of(stamp: Any, now: float) -> str:
    try:
        return age(now - parse_time(str(stamp)))
    except InvalidArgument:
        return "<invalid>"
