"""Columns and cells of tables as kubectl shows them, for built-in and custom kinds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sagong.model.objects import GroupVersionKind
from sagong_kube.convert.cells import age_of, elapsed
from sagong_kube.convert.columns import definitions
from sagong_kube.convert.jsonpath import find
from sagong_kube.convert.object_rows import role
from sagong_kube.convert.rows import ROWS

__all__ = ["cells", "columns"]

Document = dict[str, Any]

_NAME: Final = {
    "name": "Name",
    "type": "string",
    "format": "name",
    "description": "Name is unique within a namespace.",
    "priority": 0,
}
_AGE: Final = {
    "name": "Age",
    "type": "date",
    "format": "",
    "description": "The time at which the object was created.",
    "priority": 0,
}


def columns(
    kind: GroupVersionKind, custom: Sequence[Mapping[str, Any]] | None = None
) -> list[Document]:
    """columnDefinitions; `custom`: a custom kind's additionalPrinterColumns (None: built-in)."""
    if custom is None:
        return definitions(kind)
    shown = [
        {
            "name": column["name"],
            "type": column["type"],
            "format": column.get("format", ""),
            "description": column.get("description", ""),
            "priority": column.get("priority", 0),
        }
        for column in custom
    ]
    return [dict(_NAME), *(shown or [dict(_AGE)])]


def cells(
    kind: GroupVersionKind,
    document: Document,
    now: float,
    custom: Sequence[Mapping[str, Any]] | None = None,
) -> list[Any]:
    """The cells of an object's row; `now` in seconds since the epoch."""
    if custom is None:
        return ROWS.get((kind.group, kind.kind), role)(document, now)
    name = document["metadata"].get("name", "")
    if not custom:
        return [name, age_of(document, now)]
    return [name, *(_custom_cell(document, column, now) for column in custom)]


def _custom_cell(document: Document, column: Mapping[str, Any], now: float) -> Any:
    value = _found(document, column["jsonPath"])
    if value is None:
        return None
    if column["type"] == "date":
        return elapsed(value if isinstance(value, str) else None, now)
    if column["type"] == "string":
        return value if isinstance(value, str) else _text(value)
    if column["type"] == "integer":
        return int(value) if isinstance(value, int | float) else None
    return value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(f'"{v}"' if isinstance(v, str) else _text(v) for v in value) + "]"
    if isinstance(value, dict):
        return json.dumps(value, separators=(",", ":"))
    return str(value)


def _found(document: Any, path: str) -> Any:
    """What a simple JSON path finds: steps, indexes, quoted keys, filters."""
    found = find(document, path)
    if not found:
        return None
    return found[0] if len(found) == 1 else found
