"""Columns and cells of tables: built-in kinds by their table, custom ones by their definitions."""

from __future__ import annotations

import datetime
from typing import Any

from sagong.model.objects import GroupVersionKind
from sagong_kube.registry.document import Document
from sagong_kube.registry.jsonpath import find
from sagong_kube.registry.resource import Column, Resource

__all__ = ["age", "cells", "columns"]

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
        return age(now - datetime.datetime.fromisoformat(str(stamp)).timestamp())
    except ValueError:
        return "<invalid>"


def age(seconds: float) -> str:
    """A duration as kubectl shows it: two units at most, fewer the longer it is."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 0:
        return "0s"
    if whole < 60 * 2:
        return f"{whole}s"
    minutes = whole // 60
    if minutes < 10:
        return f"{minutes}m{whole % 60}s" if whole % 60 else f"{minutes}m"
    if minutes < 60 * 3:
        return f"{minutes}m"
    hours = whole // 3600
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if hours < 24 * 8:
        return f"{hours // 24}d{hours % 24}h" if hours % 24 else f"{hours // 24}d"
    if hours < 24 * 365 * 2:
        return f"{hours // 24}d"
    if hours < 24 * 365 * 8:
        days = hours // 24 % 365
        return f"{hours // 24 // 365}y{days}d" if days else f"{hours // 24 // 365}y"
    return f"{hours // 24 // 365}y"
