"""Tables as kubectl asks for them: rows are cached, but for cells that the time changes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from sagong.model.times import age
from sagong_kube.handlers.paging import Page
from sagong_kube.registry import versions
from sagong_kube.registry.resource import Resource
from sagong_kube.storage.record import Record

__all__ = ["Tables"]

_ROWS_LIMIT = 20_000
_LATER = 10_000_000.0

_AGE = "Age"


class _Row(msgspec.Struct, gc=False):
    """A row without its age: the cells before and after it, and where the body has its metadata."""

    revision: int
    created: float
    before: bytes
    after: bytes
    start: int
    end: int


class _Metadata(msgspec.Struct):
    metadata: msgspec.Raw


_METADATA = b'"metadata":'
_PARTIAL = b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":'


class Tables:
    """Makes tables and keeps their rows, by the collection's key and revision."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], _Row] = {}
        self._metadata = msgspec.json.Decoder(_Metadata)

    def of_body(
        self, resource: Resource, body: bytes, version: str, include: str
    ) -> dict[str, Any]:
        """A table of one object."""
        document = msgspec.json.decode(body)
        row = self._row(resource, document, version, include)
        metadata = document.get("metadata") or {}
        return {
            "kind": "Table",
            "apiVersion": f"meta.k8s.io/{version}",
            "metadata": {"resourceVersion": str(metadata.get("resourceVersion", ""))},
            "columnDefinitions": _columns(resource),
            "rows": [row],
        }

    def event(
        self, resource: Resource, body: bytes, version: str, include: str, *, columns: bool
    ) -> dict[str, Any]:
        """A table of one object for a watch; only the first has columns."""
        table = self.of_body(resource, body, version, include)
        if not columns:
            table["columnDefinitions"] = None
        return table

    def _row(
        self, resource: Resource, document: dict[str, Any], version: str, include: str
    ) -> dict[str, Any]:
        row = {"cells": _cells(resource, document, time.time())}
        shown = _object(document, version, include)
        return {**row, "object": shown} if shown is not None else row

    def of_page(
        self, resource: Resource, page: Page, version: str, include: str
    ) -> tuple[bytes, Iterable[bytes], bytes]:
        """Head, rows and tail of a table of many."""
        from sagong_kube.handlers.rendering import list_metadata

        columns = _columns(resource)
        head = {
            "kind": "Table",
            "apiVersion": f"meta.k8s.io/{version}",
            "metadata": list_metadata(page),
            "columnDefinitions": columns,
        }
        ages = [at for at, column in enumerate(columns) if column["name"] == _AGE]
        encoded = msgspec.json.encode(head)[:-1] + b',"rows":['
        return encoded, self._rows_of(resource, page, version, include, ages), b"]}\n"

    def _rows_of(
        self, resource: Resource, page: Page, version: str, include: str, ages: list[int]
    ) -> Iterator[bytes]:
        now = time.time()
        cached = len(ages) == 1 and include == "Metadata" and version == "v1"
        cached = cached and resource.kind == resource.stored_kind
        kind = f"{resource.kind.api_version}/{resource.plural}"
        for record in page.records:
            row = self._rows.get((kind, record.key)) if cached else None
            if row is None or row.revision != record.revision:
                document = msgspec.json.decode(versions.present(resource, record))
                row = self._keep(resource, record, document, ages[0]) if cached else None
                if row is None:
                    yield msgspec.json.encode(self._row(resource, document, version, include))
                    continue
            old = msgspec.json.encode(age(now - row.created))
            shown = record.body[row.start : row.end]
            yield b"%b%b%b%b%b}}" % (row.before, old, row.after, _PARTIAL, shown)

    def _keep(
        self, resource: Resource, record: Record, document: dict[str, Any], at: int
    ) -> _Row | None:
        now = time.time()
        cells = _cells(resource, document, now)
        later = _cells(resource, document, now + _LATER)
        if [c for n, c in enumerate(cells) if n != at] != [
            c for n, c in enumerate(later) if n != at
        ]:
            return None
        created = _seconds(document["metadata"].get("creationTimestamp"))
        if created is None:
            return None
        before = msgspec.json.encode(cells[:at])[:-1] + (b"," if at else b"")
        after = msgspec.json.encode(cells[at + 1 :])[1:]
        start = record.body.index(_METADATA) + len(_METADATA)
        length = len(bytes(self._metadata.decode(record.body).metadata))
        row = _Row(
            record.revision,
            created,
            b'{"cells":' + before,
            (b"," if len(after) > 1 else b"") + after + b',"object":',
            start,
            start + length,
        )
        if len(self._rows) >= _ROWS_LIMIT:
            self._rows.clear()
        self._rows[f"{resource.kind.api_version}/{resource.plural}", record.key] = row
        return row


def _columns(resource: Resource) -> list[dict[str, Any]]:
    """Column definitions of a resource's table."""
    from sagong_kube.convert import table

    return table.columns(resource.kind, resource.columns if resource.custom else None)


def _cells(resource: Resource, document: dict[str, Any], now: float) -> list[Any]:
    """One row's cells."""
    from sagong_kube.convert import table

    return table.cells(resource.kind, document, now, resource.columns if resource.custom else None)


def _object(document: dict[str, Any], version: str, include: str) -> dict[str, Any] | None:
    if include == "None":
        return None
    if include == "Object":
        return document
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": document.get("metadata") or {},
    }


def _seconds(stamp: str | None) -> float | None:
    import datetime

    if not stamp:
        return None
    try:
        return datetime.datetime.fromisoformat(stamp).timestamp()
    except ValueError:
        return None
