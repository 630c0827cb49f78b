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
from sagong.protobuf import BYTES, VARINT, fields, signed, varint

__all__ = ["Mapped", "Repeated", "decode", "encode", "proto"]

M = TypeVar("M")
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
            out += varint(number << 3 | VARINT) + varint(int(value) & (1 << 64) - 1)
        case _:
            _put_bytes(out, number, encode(value))


def _put_bytes(out: bytearray, number: int, value: bytes | bytearray) -> None:
    out += varint(number << 3 | BYTES) + varint(len(value))
    out += value


# Reading.


def decode(kind: Callable[[], M], data: bytes | memoryview, depth: int = 0) -> M:
    """A message of its bytes; InvalidArgument if they are none."""
    if depth > _DEPTH:
        raise InvalidArgument(f"a {_name(kind)} is nested deeper than {_DEPTH}")
    message: Any = kind()
    numbers = _numbers(message.__class__)
    try:
        for number, value in fields(memoryview(data)):
            known = numbers.get(number)
            if known is not None:
                _set(message, known[0], known[1], value, depth)
    except (UnicodeDecodeError, ValueError, TypeError) as error:
        raise InvalidArgument(f"malformed {_name(kind)}: {error}") from None
    made: M = message
    return made


def _name(kind: object) -> str:
    return getattr(kind, "__name__", "message")


def _set(message: Any, name: str, kind: Kind, value: int | float | memoryview, depth: int) -> None:
    if isinstance(kind, Repeated):
        getattr(message, name).append(_of(kind.kind, value, depth))
    elif isinstance(kind, Mapped):
        key, item = _entry(kind.kind, value, depth)
        getattr(message, name)[key] = item
    else:
        setattr(message, name, _of(kind, value, depth))


def _of(kind: Kind, value: int | float | memoryview, depth: int) -> Any:
    if kind in ("uint", "int", "bool"):
        if not isinstance(value, int):
            raise ValueError("bytes where a number belongs")
        if kind == "bool":
            return bool(value)
        return signed(value) if kind == "int" else value
    if isinstance(value, int | float):
        raise ValueError("a number where bytes belong")
    if kind == "string":
        return bytes(value).decode()
    return bytes(value) if kind == "bytes" else decode(kind, value, depth + 1)


def _entry(kind: Kind, value: int | float | memoryview, depth: int) -> tuple[str, Any]:
    if isinstance(value, int | float):
        raise ValueError("a number where a map's entry belongs")
    key, item = "", None
    for number, part in fields(value):
        if number == 1:
            key = _of("string", part, depth)
        elif number == 2:
            item = _of(kind, part, depth)
    if item is None:
        item = _EMPTY[kind] if isinstance(kind, str) else kind()
    return key, item
