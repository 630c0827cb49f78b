"""How the parts of a document merge: as a whole, by field, by key or as a set.

Built-in kinds take it from the type table, custom ones from their OpenAPI schema; what neither
knows is deduced: objects merge by field, lists are replaced.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

from sagong.model.objects import GroupVersionKind
from sagong_kube.schema.types import METADATA, FieldSpec, fields_of, spec, type_of

__all__ = ["DEDUCED", "LEAF", "Shape", "shape_of"]

# Fields that are keys of lists and have a default.
_KEY_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "core.v1.ContainerPort": {"protocol": "TCP"},
    "core.v1.ServicePort": {"protocol": "TCP"},
}


class Shape:
    """A node: `kind` is leaf (replaced as a whole), object, list (items by `keys`) or set."""

    def __init__(self, kind: str, keys: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self.keys = keys

    def member(self, name: str) -> Shape:
        """The shape of a field or of a map's value."""
        return DEDUCED

    def named(self, name: str) -> bool:
        """Whether it is a declared field, not a map's key."""
        return False

    def element(self) -> Shape:
        """The shape of a list's items."""
        return LEAF

    def default_key(self, name: str) -> Any:
        """The default of a key that an item leaves out, None if it has none."""
        return None


class _Deduced(Shape):
    """What is not declared: objects by field, all else as a whole."""

    def __init__(self) -> None:
        super().__init__("object")


LEAF: Final = Shape("leaf")
DEDUCED: Final[Shape] = _Deduced()


class _Struct(Shape):
    """A type of the table."""

    def __init__(self, name: str) -> None:
        super().__init__("object")
        self._fields = fields_of(name)
        self._name = name

    def member(self, name: str) -> Shape:
        found = self._fields.get(name)
        return DEDUCED if found is None else _of_field(found)

    def named(self, name: str) -> bool:
        return name in self._fields

    def default_key(self, name: str) -> Any:
        return _KEY_DEFAULTS.get(self._name, {}).get(name)


class _Map(Shape):
    """A map of the table: keys are data."""

    def __init__(self, held: Shape) -> None:
        super().__init__("object")
        self._held = held

    def member(self, name: str) -> Shape:
        return self._held


class _List(Shape):
    """A list whose items have an identity."""

    def __init__(self, kind: str, held: Shape, keys: tuple[str, ...] = ()) -> None:
        super().__init__(kind, keys)
        self._held = held

    def element(self) -> Shape:
        return self._held


@functools.cache
def _of_type(name: str) -> Shape:
    """A scalar, a type, or a map of them; plain lists are replaced."""
    if name.startswith("{}"):
        return _Map(_of_type(name[2:]))
    found = spec(name)
    if found is None or found.atomic:
        return LEAF
    return _Struct(name)


@functools.cache
def _of_field(field: FieldSpec) -> Shape:
    if field.type[0] != "[":
        return LEAF if field.atomic else _of_type(field.type)
    held = field.type[2:]
    if field.list == "map":
        return _List("list", _of_type(held), field.keys)
    if field.list == "set":
        return _List("set", LEAF)
    if field.list == "atomic" or "merge" not in field.patch.split(","):
        return LEAF
    if field.merge:
        return _List("list", _of_type(held), (field.merge,))
    return _List("set", LEAF)


class _Schema(Shape):
    """A node of a custom resource's schema."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        super().__init__("object")
        self._properties: Mapping[str, Any] = schema.get("properties") or {}
        self._rest = schema.get("additionalProperties")

    def member(self, name: str) -> Shape:
        if name in self._properties:
            return _of_schema(self._properties[name])
        return _of_schema(self._rest) if isinstance(self._rest, Mapping) else DEDUCED

    def named(self, name: str) -> bool:
        return name in self._properties

    def default_key(self, name: str) -> Any:
        return (self._properties.get(name) or {}).get("default")


class _Root(_Schema):
    """The root of a custom resource: its metadata is that of all objects."""

    def member(self, name: str) -> Shape:
        if name == "metadata":
            return _of_type(METADATA)
        return LEAF if name in ("apiVersion", "kind") else super().member(name)

    def named(self, name: str) -> bool:
        return name in ("metadata", "apiVersion", "kind") or super().named(name)


def _of_schema(schema: Mapping[str, Any]) -> Shape:
    kind = schema.get("type")
    if kind == "array":
        items = schema.get("items")
        held = _of_schema(items) if isinstance(items, Mapping) else DEDUCED
        match schema.get("x-kubernetes-list-type"):
            case "map":
                return _List("list", held, tuple(schema.get("x-kubernetes-list-map-keys") or ()))
            case "set":
                return _List("set", LEAF)
        return LEAF
    if kind == "object" or "properties" in schema or "additionalProperties" in schema:
        if schema.get("x-kubernetes-map-type") == "atomic":
            return LEAF
        if schema.get("x-kubernetes-embedded-resource"):
            return _Root(schema)
        return _Schema(schema)
    return DEDUCED if kind is None else LEAF


def shape_of(kind: GroupVersionKind, schema: Mapping[str, Any] | None) -> Shape:
    """The shape of a kind's documents; `schema` is a custom kind's openAPIV3Schema."""
    name = type_of(kind)
    if schema is None and name is not None:
        return _of_type(name)
    return _Root(schema or {})
