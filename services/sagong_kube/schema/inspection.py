"""The slow way through a document: names unknown fields, explains wrong types, drops nulls.

It gives the document as upstream's Go types would: the same as a round trip through the Structs
of `structure`, for documents that they refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sagong.errors import InvalidArgument
from sagong_kube.schema.types import FieldSpec, fields_of, spec

__all__ = ["Inspection"]

_JSON_NAMES: Final = {
    str: "string",
    bool: "bool",
    int: "number",
    float: "number",
    list: "array",
    dict: "object",
}
_GO_NAMES: Final = {
    "str": "string",
    "bytes": "[]uint8",
    "float": "float64",
    "quantity": "resource.Quantity",
    "time": "v1.Time",
    "microtime": "v1.MicroTime",
    "intstr": "intstr.IntOrString",
    "fields": "v1.FieldsV1",
}
_ZERO: Final[dict[str, Any]] = {
    "str": "",
    "bytes": "",
    "int32": 0,
    "int64": 0,
    "bool": False,
    "float": 0.0,
}
_ALWAYS: Final = frozenset(("time", "microtime", "quantity", "intstr", "raw", "json", "fields"))


class Inspection:
    """One walk over one document; `unknown` fills with the paths of fields no type has."""

    def __init__(self) -> None:
        self.unknown: list[str] = []

    def typed(self, document: Any, name: str, path: str = "", owner: str = "") -> dict[str, Any]:
        """A document of a type as Go would give it back; InvalidArgument if types don't fit."""
        if not isinstance(document, dict):
            raise _mismatch(document, name, path, owner)
        fields = fields_of(name)
        title = name.rpartition(".")[2]
        found: dict[str, Any] = {}
        for key, value in document.items():
            field = fields.get(key)
            if field is None:
                self.unknown.append(_join(path, key))
            elif value is not None:
                kept = self._value(value, field.type, _join(path, key), title)
                if _shown(field, kept):
                    found[key] = kept
        self._complete(found, fields)
        return found

    def _complete(self, found: dict[str, Any], fields: Mapping[str, FieldSpec]) -> None:
        """Fields that Go always writes."""
        for key, field in fields.items():
            if key in found or field.pointer or field.type in _ALWAYS or field.type[0] in "[{":
                continue
            if field.type in _ZERO:
                if not field.omitempty:
                    found[key] = _ZERO[field.type]
            elif spec(field.type) is not None:
                found[key] = self.typed({}, field.type)

    def _value(self, value: Any, kind: str, path: str, owner: str) -> Any:
        if kind[0] == "[":
            if not isinstance(value, list):
                raise _mismatch(value, kind, path, owner)
            held = kind[2:]
            return [self._held(item, held, f"{path}[{at}]", owner) for at, item in enumerate(value)]
        if kind[0] == "{":
            if not isinstance(value, dict):
                raise _mismatch(value, kind, path, owner)
            held = kind[2:]
            return {
                key: self._held(item, held, _join(path, key), owner) for key, item in value.items()
            }
        check = _CHECKS.get(kind)
        if check is not None:
            if not check(value):
                raise _mismatch(value, kind, path, owner)
            return value
        special = _SPECIAL.get(kind)
        if special is not None:
            return special(self, value, path, owner)
        return self.typed(value, kind, path, owner)

    def _held(self, item: Any, kind: str, path: str, owner: str) -> Any:
        if item is not None:
            return self._value(item, kind, path, owner)
        if kind in _ZERO:
            return _ZERO[kind]
        return self.typed({}, kind, path) if spec(kind) is not None else None

    def schema_or_list(self, value: Any, path: str, owner: str) -> Any:
        """A schema, or an array of them."""
        if isinstance(value, list):
            return self._value(value, f"[]{_SCHEMA}", path, owner)
        return self.typed(value, _SCHEMA, path, owner)

    def schema_or_bool(self, value: Any, path: str, owner: str) -> Any:
        """A schema, or true or false."""
        return value if isinstance(value, bool) else self.typed(value, _SCHEMA, path, owner)

    def schema_or_strings(self, value: Any, path: str, owner: str) -> Any:
        """A schema, or an array of strings."""
        if isinstance(value, list):
            return self._value(value, "[]str", path, owner)
        return self.typed(value, _SCHEMA, path, owner)


_SCHEMA: Final = "apiextensions.v1.JSONSchemaProps"
_SPECIAL: Final[dict[str, Callable[[Inspection, Any, str, str], Any]]] = {
    "schemaorarray": Inspection.schema_or_list,
    "schemaorbool": Inspection.schema_or_bool,
    "schemaorstrings": Inspection.schema_or_strings,
}


def _whole(value: Any, bits: int) -> bool:
    if isinstance(value, bool) or not isinstance(value, int):
        return False
    limit: int = 1 << (bits - 1)
    return -limit <= value < limit


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_CHECKS: Final[dict[str, Callable[[Any], bool]]] = {
    "str": lambda value: isinstance(value, str),
    "bytes": lambda value: isinstance(value, str),
    "time": lambda value: isinstance(value, str),
    "microtime": lambda value: isinstance(value, str),
    "int32": lambda value: _whole(value, 32),
    "int64": lambda value: _whole(value, 64),
    "bool": lambda value: isinstance(value, bool),
    "float": _number,
    "quantity": lambda value: isinstance(value, str) or _number(value),
    "intstr": lambda value: isinstance(value, str) or _whole(value, 32),
    "fields": lambda value: isinstance(value, dict),
    "raw": lambda value: True,
    "json": lambda value: True,
}


def _shown(field: FieldSpec, value: Any) -> bool:
    """Whether Go writes the value; empty ones of fields marked omitempty are left out."""
    if not field.omitempty or field.pointer:
        return True
    if field.type[0] in "[{":
        return bool(value)
    return field.type not in _ZERO or bool(value)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _mismatch(value: Any, kind: str, path: str, owner: str) -> InvalidArgument:
    said = _JSON_NAMES.get(type(value), "object")
    if said == "number" and kind in ("int32", "int64"):
        said = f"number {value}"
    steps = [step.partition("[")[0] for step in path.split(".")]
    where = f" Go struct field {owner}.{'.'.join(steps)}" if owner else " Go value"
    return InvalidArgument(f"json: cannot unmarshal {said} into{where} of type {_go(kind)}")


def _go(kind: str) -> str:
    if kind[0] == "[":
        return f"[]{_go(kind[2:])}"
    if kind[0] == "{":
        return f"map[string]{_go(kind[2:])}"
    return _GO_NAMES.get(kind) or ".".join(kind.split(".")[-2:])
