"""Structs for strict decoding, made from the type table when a kind is first seen.

They read and write as upstream's Go types do: unknown fields are refused, empty values of fields
marked omitempty are left out, fields without that mark always appear.
"""

from __future__ import annotations

import functools
import keyword
from typing import Annotated, Any, Final

import msgspec

from sagong_kube.schema.types import SCALARS, FieldSpec, spec

__all__ = ["RECURSIVE", "struct_of"]

INT32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
INT64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_PYTHON: Final[dict[str, Any]] = {
    "str": str,
    "bytes": str,
    "int32": INT32,
    "int64": INT64,
    "bool": bool,
    "float": float,
    "quantity": str | int | float,
    "time": str,
    "microtime": str,
    "intstr": INT32 | str,
    "raw": Any,
    "json": Any,
    "fields": dict[str, Any],
}
_ZERO: Final[dict[str, Any]] = {
    "str": "",
    "bytes": "",
    "int32": 0,
    "int64": 0,
    "bool": False,
    "float": 0.0,
}
_NULLABLE: Final = frozenset(("quantity", "time", "microtime", "intstr"))

# Types that hold themselves have no Struct; documents of their kinds are inspected by walking.
RECURSIVE: Final = frozenset(("apiextensions.v1.JSONSchemaProps",))


@functools.cache
def struct_of(name: str) -> type[msgspec.Struct] | None:
    """The Struct of a type; None if it is unknown or recursive."""
    found = spec(name)
    if found is None or name in RECURSIVE:
        return None
    fields, renamed = [], {}
    for field in found.fields:
        made = _field(field)
        if made is None:
            return None
        attribute = f"{field.name}_" if keyword.iskeyword(field.name) else field.name
        if attribute != field.name:
            renamed[attribute] = field.name
        fields.append((attribute, *made))
    return msgspec.defstruct(
        name.rpartition(".")[2],
        fields,
        kw_only=True,
        omit_defaults=True,
        forbid_unknown_fields=True,
        gc=False,
        rename=renamed or None,
    )


def _field(field: FieldSpec) -> tuple[Any, Any] | None:
    """Annotation and default of a field; None if its type has no Struct."""
    held = _annotation(field.type)
    if held is None:
        return None
    if field.type[0] in "[{":
        if not field.omitempty:
            return held | None, None
        return held, msgspec.field(default_factory=list if field.type[0] == "[" else dict)
    if field.pointer or field.type in _NULLABLE or held is Any:
        return held | None if held is not Any else Any, None
    if field.type in _ZERO:
        zero = _ZERO[field.type]
        return held, zero if field.omitempty else msgspec.field(default_factory=type(zero))
    if field.type in SCALARS:
        return held | None, None
    return held, msgspec.field(default_factory=held)


def _annotation(kind: str) -> Any:
    """The Python type of a table's type; None if it has none."""
    if kind[0] in "[{":
        held = _annotation(kind[2:])
        if held is None:
            return None
        return list[held] if kind[0] == "[" else dict[str, held]  # type: ignore[valid-type]
    return _PYTHON[kind] if kind in _PYTHON else struct_of(kind)
