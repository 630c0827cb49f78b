"""Protocol buffers' wire format for the messages that are listed in `messages.py`.

A message is a dataclass whose fields say their numbers and kinds; encoder and decoder read that.
Unknown fields are skipped, fields at their defaults are left out (proto3).
Source: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar

from sagong.errors import InvalidArgument

__all__ = ["Mapped", "Repeated", "decode", "encode", "proto"]

M = TypeVar("M")
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DEPTH = 32


@dataclasses.dataclass(frozen=True)
class Repeated:
    """A field that may come several times."""

    kind: Any


@dataclasses.dataclass(frozen=True)
class Mapped:
    """A map from strings."""

    kind: Any


Kind = Any  # "string", "bytes", "uint", "int", "bool", a message's class, Repeated or Mapped
_EMPTY: dict[str, Any] = {"string": "", "bytes": b"", "uint": 0, "int": 0, "bool": False}


def proto(number: int, kind: Kind) -> Any:
    """A field of a message."""
    metadata = {"number": number, "kind": kind}
    if isinstance(kind, Repeated):
        return dataclasses.field(default_factory=list, metadata=metadata)
    if isinstance(kind, Mapped):
        return dataclasses.field(default_factory=dict, metadata=metadata)
    if isinstance(kind, str):
        return dataclasses.field(default=_EMPTY[kind], metadata=metadata)
    return dataclasses.field(default=None, metadata=metadata)


@functools.cache
def _table(kind: Any) -> tuple[tuple[str, int, Kind], ...]:
    fields = dataclasses.fields(kind)
    return tuple((f.name, f.metadata["number"], f.metadata["kind"]) for f in fields)


@functools.cache
def _numbers(kind: Any) -> dict[int, tuple[str, Kind]]:
    return {number: (name, found) for name, number, found in _table(kind)}


# Writing.


def encode(message: Any) -> bytes:
    """A message's bytes."""
    out = bytearray()
    for name, number, kind in _table(message.__class__):
        value = getattr(message, name)
        if isinstance(kind, Repeated):
            for item in value:
                _put(out, number, kind.kind, item)
        elif isinstance(kind, Mapped):
            for key, item in value.items():
                entry = bytearray()
                _put(entry, 1, "string", key)
                _put(entry, 2, kind.kind, item)
                _put_bytes(out, number, entry)
        elif value is not None and value != _EMPTY.get(kind if isinstance(kind, str) else ""):
            _put(out, number, kind, value)
    return bytes(out)


def _put(out: bytearray, number: int, kind: Kind, value: Any) -> None:
    match kind:
        case "string":
            _put_bytes(out, number, value.encode("utf-8", "replace"))
        case "bytes":
            _put_bytes(out, number, value)
        case "uint" | "int" | "bool":
            _varint(out, number << 3 | _VARINT)
            _varint(out, int(value) & (1 << 64) - 1)
        case _:
            _put_bytes(out, number, encode(value))


def _put_bytes(out: bytearray, number: int, value: bytes | bytearray) -> None:
    _varint(out, number << 3 | _BYTES)
    _varint(out, len(value))
    out += value


def _varint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


# Reading.


def decode(kind: Callable[[], M], data: bytes | memoryview, depth: int = 0) -> M:
    """A message of its bytes; InvalidArgument if they are none."""
    if depth > _DEPTH:
        raise InvalidArgument(f"a {_name(kind)} is nested deeper than {_DEPTH}")
    message: Any = kind()
    numbers = _numbers(message.__class__)
    view = memoryview(data)
    at = 0
    try:
        while at < len(view):
            tag, at = _read_varint(view, at)
            value, at = _read_value(view, at, tag & 7)
            known = numbers.get(tag >> 3)
            if known is not None:
                _set(message, known[0], known[1], value, depth)
    except (IndexError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise InvalidArgument(f"malformed {_name(kind)}: {error}") from None
    made: M = message
    return made


def _name(kind: object) -> str:
    return getattr(kind, "__name__", "message")


def _read_varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a varint is too long")


def _read_value(view: memoryview, at: int, wire: int) -> tuple[int | memoryview, int]:
    if wire == _VARINT:
        return _read_varint(view, at)
    size = {_FIXED64: 8, _FIXED32: 4}.get(wire, -1)
    if wire == _BYTES:
        size, at = _read_varint(view, at)
    if size < 0 or at + size > len(view):
        raise ValueError("a field is cut")
    return view[at : at + size], at + size


def _set(message: Any, name: str, kind: Kind, value: int | memoryview, depth: int) -> None:
    if isinstance(kind, Repeated):
        getattr(message, name).append(_of(kind.kind, value, depth))
    elif isinstance(kind, Mapped):
        key, item = _entry(kind.kind, value, depth)
        getattr(message, name)[key] = item
    else:
        setattr(message, name, _of(kind, value, depth))


def _of(kind: Kind, value: int | memoryview, depth: int) -> Any:
    if kind in ("uint", "int", "bool"):
        if not isinstance(value, int):
            raise ValueError("bytes where a number belongs")
        if kind == "bool":
            return bool(value)
        return value - (1 << 64) if kind == "int" and value >> 63 else value
    if isinstance(value, int):
        raise ValueError("a number where bytes belong")
    if kind == "string":
        return bytes(value).decode()
    return bytes(value) if kind == "bytes" else decode(kind, value, depth + 1)


def _entry(kind: Kind, value: int | memoryview, depth: int) -> tuple[str, Any]:
    if isinstance(value, int):
        raise ValueError("a number where a map's entry belongs")
    key, item = "", None
    at = 0
    while at < len(value):
        tag, at = _read_varint(value, at)
        part, at = _read_value(value, at, tag & 7)
        if tag >> 3 == 1:
            key = _of("string", part, depth)
        elif tag >> 3 == 2:
            item = _of(kind, part, depth)
    if item is None:
        item = _EMPTY[kind] if isinstance(kind, str) else kind()
    return key, item
