"""Protobuf request bodies of Kubernetes kinds, decoded by the table of field numbers.

A body is the magic `k8s\\0` and a `runtime.Unknown`: the kind (1), the object's bytes (2), its
encoding (3) and media type (4). Source: https://kubernetes.io/docs/reference/using-api/api-concepts/
and https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable
from typing import Any, Final

import msgspec

from sagong.errors import InvalidArgument
from sagong.model import times
from sagong.model.objects import GroupVersionKind, parse_api_version
from sagong.protobuf import fields, signed
from sagong_kube.schema.types import SCALARS, spec, type_of

__all__ = ["MAGIC", "MEDIA", "decode", "is_protobuf"]

MAGIC: Final = b"k8s\x00"
MEDIA: Final = "application/vnd.kubernetes.protobuf"
_DEEPEST: Final = 64

# What reading a body that is no such message ends with.
_BROKEN: Final = (
    KeyError,
    RecursionError,
    TypeError,
    ValueError,
    msgspec.DecodeError,
)

Document = dict[str, Any]
Read = Callable[[memoryview, int], Any]
# (field name, reader of its value, how it is collected: "" once, "[" list, "{" map)
Slot = tuple[str, Any, str]


def is_protobuf(body: bytes) -> bool:
    """Whether a body is in this form."""
    return body[:4] == MAGIC


def decode(
    body: bytes, expected: GroupVersionKind | None = None
) -> tuple[GroupVersionKind, Document]:
    """The kind and the document of a body; `expected` serves when the body names no kind.

    Zero values of Go's value fields are in the document: `decoding.conform` drops them.
    """
    if not is_protobuf(body):
        raise InvalidArgument(
            "provided data does not appear to be a protobuf message, expected prefix "
            f"{list(MAGIC)}".replace(",", "")
        )
    try:
        kind, raw = _envelope(memoryview(body)[4:], expected)
        name = type_of(kind)
        if name is None:
            said = f'no kind "{kind.kind}" is registered for version "{kind.api_version}"'
            raise InvalidArgument(said)
        document: Document = _message(name)(raw, 0)
    except _BROKEN as error:
        said = str(error) or "unexpected EOF"
        raise InvalidArgument(f"unable to decode protobuf body: {said}") from None
    return kind, {"apiVersion": kind.api_version, "kind": kind.kind, **document}


def _envelope(
    data: memoryview, expected: GroupVersionKind | None
) -> tuple[GroupVersionKind, memoryview]:
    """The kind and the object's bytes of a runtime.Unknown."""
    kind, raw = expected, memoryview(b"")
    for number, value in fields(data):
        if number == 1:
            names = {n: str(v, "utf-8") for n, v in fields(value)}
            if names.get(2):
                at = parse_api_version(names.get(1, ""))
                kind = GroupVersionKind(at.group, at.version, names[2])
        elif number == 2:
            raw = value
    if kind is None:
        raise InvalidArgument("Object 'Kind' is missing in the protobuf body")
    return kind, raw


# Scalars


def _signed(value: int, _: int) -> int:
    return signed(value)


def _text(value: memoryview, _: int) -> str:
    return str(value, "utf-8")


def _bytes(value: memoryview, _: int) -> str:
    return base64.b64encode(value).decode()


def _parts(value: memoryview) -> dict[int, Any]:
    return dict(fields(value))


def _quantity(value: memoryview, _: int) -> str:
    return str(_parts(value).get(1, b"0"), "utf-8")


def _time(value: memoryview, _: int) -> str | None:
    parts = _parts(value)
    return times.time_text(signed(parts.get(1, 0))) if parts else None


def _micro_time(value: memoryview, _: int) -> str | None:
    parts = _parts(value)
    if not parts:
        return None
    return times.micro_time(signed(parts.get(1, 0)) + parts.get(2, 0) / 1e9)


def _int_or_string(value: memoryview, _: int) -> int | str:
    parts = _parts(value)
    if parts.get(1):
        return str(parts.get(3, b""), "utf-8")
    return signed(parts.get(2, 0))


def _raw(value: memoryview, _: int) -> Any:
    """An embedded document, as JSON or again as protobuf."""
    inside = bytes(_parts(value).get(1, b""))
    if is_protobuf(inside):
        return decode(inside)[1]
    return msgspec.json.decode(inside) if inside else None


def _schema_or(number: int, alternative: Callable[[Any], Any]) -> Read:
    def read(value: memoryview, depth: int) -> Any:
        schema, other = number, 3 - number
        groups: dict[int, list[Any]] = {}
        for at, part in fields(value):
            groups.setdefault(at, []).append(part)
        if schema in groups:
            return _message(_SCHEMA)(groups[schema][0], depth + 1)
        return alternative(groups.get(other, []))

    return read


_SCHEMA: Final = "apiextensions.v1.JSONSchemaProps"


def _schemas(items: list[Any]) -> list[Document]:
    return [_message(_SCHEMA)(item, 0) for item in items]


def _strings(items: list[Any]) -> list[str]:
    return [str(item, "utf-8") for item in items]


def _allows(items: list[Any]) -> bool:
    return bool(items and items[0])


_SCALARS: Final[dict[str, Any]] = {
    "str": _text,
    "bytes": _bytes,
    "int32": _signed,
    "int64": _signed,
    "bool": lambda value, _: bool(value),
    "float": lambda value, _: float(value),
    "quantity": _quantity,
    "time": _time,
    "microtime": _micro_time,
    "intstr": _int_or_string,
    "raw": _raw,
    "json": _raw,
    "fields": _raw,
    "schemaorarray": _schema_or(1, _schemas),
    "schemaorbool": _schema_or(2, _allows),
    "schemaorstrings": _schema_or(1, _strings),
}


# Messages


@functools.cache
def _message(name: str) -> Read:
    """The reader of a type's messages."""
    slots: dict[int, Slot] = {}
    inline: dict[int, Any] = {}
    ready = False

    def prepare() -> None:
        nonlocal ready
        kinds = _field_types(name)
        _fill(name, kinds, slots, inline)
        ready = True

    def read(data: memoryview, depth: int) -> Document:
        if not ready:
            prepare()
        if depth > _DEEPEST:
            raise ValueError("message nested too deeply")
        found: Document = {}
        _read_into(found, data, slots, inline, depth + 1)
        return found

    return read


def _field_types(owner: str) -> dict[str, str]:
    """Types of a type's fields by name; inline structs have none of their own."""
    found = spec(owner)
    return {} if found is None else {field.name: field.type for field in found.fields}


def _fill(name: str, kinds: dict[str, str], slots: dict[int, Slot], inline: dict[int, Any]) -> None:
    """The readers of a message's field numbers; inline structs' fields are read into the owner."""
    found = spec(name)
    for number, field in ({} if found is None else found.wire).items():
        at = int(number)
        if field.startswith("+"):
            below: dict[int, Slot] = {}
            nested: dict[int, Any] = {}
            _fill(field[1:], kinds, below, nested)
            if at == 0:
                slots.update(below)
                inline.update(nested)
            else:
                inline[at] = (below, nested)
        elif field in kinds and at:
            slots[at] = _slot(field, kinds[field])


def _slot(field: str, kind: str) -> Slot:
    if kind.startswith("[]"):
        return field, _reader(kind[2:]), "["
    if kind.startswith("{}"):
        return field, _entry(kind[2:]), "{"
    return field, _reader(kind), ""


def _reader(kind: str) -> Read:
    if kind.startswith("[]"):
        # A list inside a map or list is a message whose field 1 repeats.
        held = _reader(kind[2:])
        return lambda value, depth: [held(item, depth) for at, item in fields(value) if at == 1]
    if kind in SCALARS:
        scalar: Read = _SCALARS[kind]
        return scalar
    return _message(kind)


def _entry(kind: str) -> Read:
    """Reads an entry of a map: key 1, value 2."""
    held = _reader(kind)
    empty = _EMPTY.get(kind)

    def read(data: memoryview, depth: int) -> tuple[str, Any]:
        parts = _parts(data)
        value = parts.get(2)
        shown = held(value, depth) if value is not None else _absent(kind, held, empty, depth)
        return str(parts.get(1, b""), "utf-8"), shown

    return read


_EMPTY: Final[dict[str, Any]] = {"str": "", "bytes": "", "bool": False, "int32": 0, "int64": 0}


def _absent(kind: str, held: Read, empty: Any, depth: int) -> Any:
    return empty if kind in _EMPTY else held(memoryview(b""), depth)


def _read_into(
    found: Document,
    data: memoryview,
    slots: dict[int, Slot],
    inline: dict[int, Any],
    depth: int,
) -> None:
    for number, value in fields(data):
        slot = slots.get(number)
        if slot is None:
            nested = inline.get(number)
            if nested is not None:
                _read_into(found, value, nested[0], nested[1], depth)
            continue
        name, reader, shape = slot
        if not shape:
            found[name] = reader(value, depth)
        elif shape == "[":
            found.setdefault(name, []).append(reader(value, depth))
        else:
            key, item = reader(value, depth)
            found.setdefault(name, {})[key] = item
