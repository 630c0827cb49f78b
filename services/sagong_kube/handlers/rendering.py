"""Bytes of answers: single objects and lists in the form that was negotiated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from sagong_kube.handlers.exchange import Answer, Pieces, Reply
from sagong_kube.handlers.negotiation import Form
from sagong_kube.handlers.paging import Page
from sagong_kube.handlers.table import Tables
from sagong_kube.registry import versions
from sagong_kube.registry.resource import Resource
from sagong_kube.storage.record import Record

__all__ = ["Renderer"]

_PIECE = 256 << 10
_LARGE = 128 << 10


class _Metadata(msgspec.Struct):
    metadata: msgspec.Raw


class Renderer:
    """Renders records; tables have a cache of rows."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self._metadata = msgspec.json.Decoder(_Metadata)

    def object(
        self, form: Form, resource: Resource, body: bytes, *, status: int = 200, include: str = ""
    ) -> Answer:
        """One object that is in the resource's version already."""
        if form.kind == "Table":
            document = self.tables.of_body(resource, body, form.version, include or "Metadata")
            return document_answer(form, document, status)
        if form.kind:
            partial = self.partial(body, form.version)
            return Answer(partial + b"\n", status, form.content_type)
        return plain_answer(form, body, status)

    def partial(self, body: bytes, version: str) -> bytes:
        """An object's metadata alone."""
        metadata = self._metadata.decode(body).metadata
        head = f'{{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/{version}","metadata":'
        return head.encode() + bytes(metadata) + b"}"

    def page(self, form: Form, resource: Resource, page: Page, include: str = "") -> Reply:
        """A list."""
        if form.kind == "Table":
            head, rows, tail = self.tables.of_page(
                resource, page, form.version, include or "Metadata"
            )
            return self._list(form, head, rows, tail)
        metadata = list_metadata(page)
        if form.kind:
            head = _list_head("PartialObjectMetadataList", f"meta.k8s.io/{form.version}", metadata)
            items = (self.partial(self._body(resource, r), form.version) for r in page.records)
            return self._list(form, head, items, b"]}\n")
        head = _list_head(f"{resource.kind.kind}List", resource.kind.api_version, metadata)
        return self._list(form, head, self._bodies(resource, page.records), b"]}\n")

    def _body(self, resource: Resource, record: Record) -> bytes:
        return versions.present(resource, record)

    def _bodies(self, resource: Resource, records: list[Record]) -> Iterable[bytes]:
        if resource.kind == resource.stored_kind:
            return [record.body for record in records]
        return (versions.present(resource, record) for record in records)

    def _list(self, form: Form, head: bytes, items: Iterable[bytes], tail: bytes) -> Reply:
        pieces = _pieces(head, items, tail)
        if form.media != "application/json" or form.pretty:
            return plain_answer(form, b"".join(pieces), 200)
        first = next(pieces)
        second = next(pieces, None)
        if second is None:
            return Answer(first)
        return Pieces(_chained(first, second, pieces))


def _chained(first: bytes, second: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield second
    yield from rest


def _pieces(head: bytes, items: Iterable[bytes], tail: bytes) -> Iterator[bytes]:
    parts, size, separator = [head], len(head), b""
    for item in items:
        parts.append(separator)
        parts.append(item)
        separator = b","
        size += len(item) + 1
        if size >= _PIECE:
            yield b"".join(parts)
            parts, size = [], 0
    parts.append(tail)
    yield b"".join(parts)


def _list_head(kind: str, api_version: str, metadata: dict[str, Any]) -> bytes:
    encoded = msgspec.json.encode(metadata)
    head = f'{{"kind":"{kind}","apiVersion":"{api_version}","metadata":'
    return head.encode() + encoded + b',"items":['


def list_metadata(page: Page) -> dict[str, Any]:
    """The metadata of a list."""
    metadata: dict[str, Any] = {"resourceVersion": str(page.revision)}
    if page.resume:
        metadata["continue"] = page.resume
    if page.remaining is not None:
        metadata["remainingItemCount"] = page.remaining
    return metadata


def plain_answer(form: Form, body: bytes, status: int) -> Answer:
    """Bytes of JSON in the form's media type."""
    if form.media == "application/yaml":
        import yaml

        text = yaml.safe_dump(msgspec.json.decode(body), sort_keys=True)
        return Answer(text.encode(), status, form.media)
    if form.pretty:
        return Answer(msgspec.json.format(body, indent=2) + b"\n", status, form.media)
    return Answer(body if body.endswith(b"\n") else body + b"\n", status, form.media)


def document_answer(form: Form, document: Any, status: int = 200) -> Answer:
    """A document in the form's media type."""
    return plain_answer(form, msgspec.json.encode(document), status)
