"""Tables: the server-side columns of kubectl, for built-in and custom kinds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sagong.model.objects import GroupVersionKind
from sagong_kube.convert.cells import age_of, elapsed
from sagong_kube.convert.columns import definitions
from sagong_kube.convert.jsonpath import find
from sagong_kube.convert.object_rows import role
from sagong_kube.convert.pod_row import pod_conditions
from sagong_kube.convert.rows import ROWS

__all__ = ["age_cell", "cells", "columns", "partial", "row", "table"]

Document = dict[str, Any]

PARTIAL: Final = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
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


def age_cell(kind: GroupVersionKind) -> int | None:
    """Where the age stands in a kind's rows, None if nowhere: all else of a row can be cached."""
    named = [column["name"] for column in definitions(kind)]
    return named.index("Age") if "Age" in named else None


def partial(document: Document) -> Document:
    """An object's metadata alone."""
    return {**PARTIAL, "metadata": document["metadata"]}


def row(
    kind: GroupVersionKind,
    document: Document,
    now: float,
    *,
    include: str = "Metadata",
    custom: Sequence[Mapping[str, Any]] | None = None,
) -> Document:
    """A TableRow; `include`: None, Metadata or Object."""
    made: Document = {"cells": cells(kind, document, now, custom)}
    if kind.kind == "Pod" and not kind.group:
        conditions = pod_conditions(document)
        if conditions:
            made["conditions"] = conditions
    if include == "Object":
        made["object"] = document
    elif include == "Metadata":
        made["object"] = partial(document)
    return made


def table(
    kind: GroupVersionKind,
    documents: Iterable[Document],
    *,
    now: float,
    metadata: Document | None = None,
    include: str = "Metadata",
    custom: Sequence[Mapping[str, Any]] | None = None,
) -> Document:
    """A whole Table; `metadata` is that of the list."""
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata or {},
        "columnDefinitions": columns(kind, custom),
        "rows": [row(kind, each, now, include=include, custom=custom) for each in documents],
    }


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
