"""What the server knows of the shapes of objects: reading, defaults, rules, merging, field owners."""

from __future__ import annotations

from typing import Protocol

import msgspec

from sagong_kube.refusal import Cause
from sagong_kube.registry.document import Document
from sagong_kube.registry.resource import Resource

__all__ = ["Patch", "Shapes"]


class Patch(msgspec.Struct, frozen=True):
    """A patch as sent; `media` is its Content-Type."""

    media: str
    body: bytes


class Shapes(Protocol):
    """Built-in kinds by their tables, custom ones by their definitions."""

    def check(
        self, resource: Resource, document: Document, body: bytes, validation: str
    ) -> list[str]:
        """Refuse wrong types, always; unknown and double fields as `validation` says: warnings."""
        ...

    def default(self, resource: Resource, document: Document) -> None:
        """Fill in defaults."""
        ...

    def begin(self, resource: Resource, document: Document, manager: str) -> list[Cause]:
        """What is wrong with an object about to be created; notes `manager` as its fields' owner.

        With "" the owners that the document names itself are kept.
        """
        ...

    def validate(
        self, resource: Resource, new: Document, old: Document, subresource: str
    ) -> list[Cause]:
        """What is wrong with changing the object so."""
        ...

    def patch(self, resource: Resource, live: Document, patch: Patch) -> Document:
        """The object that a JSON, merge or strategic merge patch makes."""
        ...

    def apply(
        self,
        resource: Resource,
        live: Document | None,
        applied: Document,
        manager: str,
        force: bool,
        subresource: str,
    ) -> Document:
        """Server-side apply; Conflict names the fields and their other managers."""
        ...

    def manage(
        self, resource: Resource, new: Document, old: Document, manager: str, subresource: str
    ) -> None:
        """Note who set what by an update that was no apply."""
        ...
