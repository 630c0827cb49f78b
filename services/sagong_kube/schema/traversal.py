"""Walks over documents that visit only the parts where something is to be done.

A plan is compiled once for a type: the fields whose values have a hook, or hold such fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sagong_kube.schema.structure import RECURSIVE
from sagong_kube.schema.types import spec

__all__ = ["ScalarHook", "Traversal", "TypeHook"]

ScalarHook = Callable[[Any], Any]
TypeHook = Callable[[dict[str, Any]], None]
Step = Callable[[Any], Any]


class Traversal:
    """Hooks for types (called with the object, before its parts) and for scalars (replaced)."""

    def __init__(
        self,
        *,
        types: Mapping[str, TypeHook] | None = None,
        scalars: Mapping[str, ScalarHook] | None = None,
    ) -> None:
        self._types = types or {}
        self._scalars = scalars or {}
        self._steps: dict[str, Step | None] = {}

    def walk(self, name: str, document: dict[str, Any]) -> None:
        """Visit a document of the type, changing it in place."""
        step = self._step(name)
        if step is not None:
            step(document)

    def _step(self, kind: str) -> Step | None:
        if kind not in self._steps:
            self._steps[kind] = None
            self._steps[kind] = self._compile(kind)
        return self._steps[kind]

    def _compile(self, kind: str) -> Step | None:
        if kind[0] == "[":
            return _listed(self._step(kind[2:]))
        if kind[0] == "{":
            return _mapped(self._step(kind[2:]))
        found = spec(kind)
        if found is None or kind in RECURSIVE:
            return self._scalars.get(kind)
        parts = [(field.name, self._step(field.type)) for field in found.fields]
        kept = tuple((name, step) for name, step in parts if step is not None)
        return _structured(self._types.get(kind), kept)


def _listed(step: Step | None) -> Step | None:
    if step is None:
        return None

    def visit(items: Any) -> Any:
        items[:] = [step(item) for item in items]
        return items

    return visit


def _mapped(step: Step | None) -> Step | None:
    if step is None:
        return None

    def visit(items: Any) -> Any:
        for key, item in items.items():
            items[key] = step(item)
        return items

    return visit


def _structured(hook: TypeHook | None, parts: tuple[tuple[str, Step], ...]) -> Step | None:
    if hook is None and not parts:
        return None

    def visit(document: Any) -> Any:
        if hook is not None:
            hook(document)
        for name, step in parts:
            value = document.get(name)
            if value is not None:
                document[name] = step(value)
        return document

    return visit
