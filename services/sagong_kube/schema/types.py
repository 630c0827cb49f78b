"""The types of the API, read from the generated table: fields, how lists merge, field numbers."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from sagong.model.objects import GroupVersionKind

__all__ = [
    "METADATA",
    "SCALARS",
    "FieldSpec",
    "TypeSpec",
    "element",
    "fields_of",
    "spec",
    "type_of",
]

METADATA: Final = "meta.v1.ObjectMeta"
SCALARS: Final = frozenset(
    (
        *("str", "bytes", "int32", "int64", "bool", "float"),
        *("quantity", "time", "microtime", "intstr", "raw", "json", "fields"),
        *("schemaorarray", "schemaorbool", "schemaorstrings"),
    )
)
_TABLE: Final = Path(__file__).with_name("types.json")


class FieldSpec(msgspec.Struct, frozen=True):
    """A field. `type`: a scalar's or type's name, with `[]` and `{}` before what is held.

    `go`: "o" left out when empty, "p" a pointer (so zero values are kept). `list`: atomic, set or
    map with its `keys`; `merge` and `patch`: key and strategy of the strategic merge patch.
    """

    name: str
    type: str
    go: str = ""
    required: bool = False
    list: str = ""
    keys: tuple[str, ...] = ()
    merge: str = ""
    patch: str = ""
    atomic: bool = False

    @property
    def pointer(self) -> bool:
        """Whether absence differs from the zero value."""
        return "p" in self.go

    @property
    def omitempty(self) -> bool:
        """Whether the zero value is left out."""
        return "o" in self.go


class TypeSpec(msgspec.Struct, frozen=True):
    """A type: its fields, its field numbers (`+type`: inline), and if it is replaced as a whole."""

    fields: tuple[FieldSpec, ...] = ()
    wire: Mapping[str, str] = {}
    atomic: bool = False
    kind: tuple[str, str, str] = ("", "", "")


@functools.cache
def _table() -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(_TABLE.read_bytes(), type=dict[str, msgspec.Raw])


_DECODER: Final = msgspec.json.Decoder(TypeSpec)


@functools.cache
def spec(name: str) -> TypeSpec | None:
    """A type by its name (`core.v1.Pod`), None for scalars and unknown ones."""
    raw = _table().get(name)
    return None if raw is None else _DECODER.decode(raw)


@functools.cache
def fields_of(name: str) -> Mapping[str, FieldSpec]:
    """The fields of a type by their names; nothing for an unknown type."""
    found = spec(name)
    return {} if found is None else {each.name: each for each in found.fields}


@functools.lru_cache(1024)  # clients may name any kind
def type_of(kind: GroupVersionKind) -> str | None:
    """The type of a built-in kind, None for others."""
    prefix = kind.group.partition(".")[0] or "core"
    for name in (f"{prefix}.{kind.version}.{kind.kind}", f"meta.v1.{kind.kind}"):
        if name in _table():
            return name
    return None


def element(kind: str) -> str:
    """What a list or map type holds."""
    return kind[2:]
