"""Messages of D-Bus as bytes: the types that systemd uses, without a library (ADR 487).

Source: D-Bus Specification, "Type System", "Marshaling (Wire Format)", "Message Protocol".
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

__all__ = ["CALL", "ERROR", "HEAD_SIZE", "RETURN", "SIGNAL", "Message", "Variant", "length_of"]

CALL, RETURN, ERROR, SIGNAL = 1, 2, 3, 4
HEAD_SIZE = 16
_VERSION = 1
_FIXED = {
    "y": "B",
    "b": "I",
    "n": "h",
    "q": "H",
    "i": "i",
    "u": "I",
    "x": "q",
    "t": "Q",
    "d": "d",
}
_ALIGNED = {"s": 4, "o": 4, "a": 4, "(": 8, "{": 8, "v": 1, "g": 1}
_CLOSING = {"(": ")", "{": "}"}
# Header fields by name: their number and type.
_FIELDS = {
    "path": (1, "o"),
    "interface": (2, "s"),
    "member": (3, "s"),
    "error": (4, "s"),
    "reply_to": (5, "u"),
    "destination": (6, "s"),
    "sender": (7, "s"),
    "signature": (8, "g"),
}
_NAMES = {number: name for name, (number, _) in _FIELDS.items()}


class Variant(NamedTuple):
    """A value that tells its type."""

    signature: str
    value: Any


class Message(NamedTuple):
    """A call, an answer or a signal. `fields` are those of the header by name."""

    kind: int
    serial: int
    fields: dict[str, Any]
    values: tuple[Any, ...] = ()

    def encode(self) -> bytes:
        """The bytes of it, little-endian."""
        body = _encode(self.fields.get("signature", ""), self.values)
        fields = [
            (number, Variant(kind, self.fields[name]))
            for name, (number, kind) in _FIELDS.items()
            if name in self.fields
        ]
        head = (ord("l"), self.kind, 0, _VERSION, len(body), self.serial, fields)
        encoded = _encode("yyyyuua(yv)", head)
        return encoded + bytes(-len(encoded) % 8) + body

    @classmethod
    def decode(cls, data: bytes) -> Message:
        """A message from its bytes, all of them; ValueError when they are none."""
        try:
            if length_of(data) != len(data):
                raise IndexError("it has another length")
            reader = _Reader(data)
            _, kind, _, _, _, serial, found = reader.values("yyyyuua(yv)")
            fields = {_NAMES[number]: value for number, value in found if number in _NAMES}
            reader.align(8)
            values = reader.values(fields.get("signature", ""))
        except (struct.error, IndexError, KeyError, TypeError, UnicodeDecodeError) as error:
            raise ValueError(f"not a message of D-Bus: {error}") from None
        return cls(kind, serial, fields, tuple(values))


def length_of(head: bytes) -> int:
    """How many bytes a message has in all, by its first HEAD_SIZE."""
    order = "<" if head[:1] == b"l" else ">"
    body, _, fields = struct.unpack_from(f"{order}III", head, 4)
    return int(HEAD_SIZE + fields + -fields % 8 + body)


def _types(signature: str) -> list[str]:
    """The complete types in a signature: "sa{sv}" has "s" and "a{sv}"."""
    found = []
    while signature:
        end = _end(signature)
        found.append(signature[:end])
        signature = signature[end:]
    return found


def _end(signature: str) -> int:
    """Where the first complete type ends."""
    first = signature[0]
    if first == "a":
        return 1 + _end(signature[1:])
    if first not in _CLOSING:
        return 1
    depth = 0
    for position, letter in enumerate(signature):
        depth += (letter in "({") - (letter in ")}")
        if depth == 0:
            return position + 1
    raise ValueError(f"signature {signature!r} has no end")


def _alignment(kind: str) -> int:
    first = kind[0]
    return struct.calcsize(_FIXED[first]) if first in _FIXED else _ALIGNED[first]


def _encode(signature: str, values: tuple[Any, ...]) -> bytes:
    out = bytearray()
    for kind, value in zip(_types(signature), values, strict=True):
        _put(out, kind, value)
    return bytes(out)


def _align(out: bytearray, size: int) -> None:
    out += bytes(-len(out) % size)


def _put(out: bytearray, kind: str, value: Any) -> None:
    first = kind[0]
    _align(out, _alignment(kind))
    if first in _FIXED:
        out += struct.pack(f"<{_FIXED[first]}", value)
    elif first in "so":
        encoded = value.encode()
        out += struct.pack("<I", len(encoded)) + encoded + b"\0"
    elif first == "g":
        out += bytes([len(value)]) + value.encode() + b"\0"
    elif first == "v":
        _put(out, "g", value.signature)
        _put(out, value.signature, value.value)
    elif first == "a":
        _put_array(out, kind[1:], value)
    else:
        for inner, part in zip(_types(kind[1:-1]), value, strict=True):
            _put(out, inner, part)


def _put_array(out: bytearray, kind: str, values: Any) -> None:
    """Its length counts from the first entry, after what aligns that."""
    place = len(out)
    out += bytes(4)
    _align(out, _alignment(kind))
    begin = len(out)
    for value in values:
        _put(out, kind, value)
    struct.pack_into("<I", out, place, len(out) - begin)


class _Reader:
    """Takes values from bytes, from the beginning on."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0
        self._order = "<" if data[:1] == b"l" else ">"

    def align(self, size: int) -> None:
        """Over what fills up."""
        self._place += -self._place % size

    def values(self, signature: str) -> list[Any]:
        """Values of the types of a signature."""
        return [self._get(kind) for kind in _types(signature)]

    def _number(self, kind: str) -> Any:
        self.align(_alignment(kind))
        code = self._order + _FIXED[kind]
        (found,) = struct.unpack_from(code, self._data, self._place)
        self._place += struct.calcsize(code)
        return bool(found) if kind == "b" else found

    def _text(self, length: int) -> str:
        begin, self._place = self._place, self._place + length + 1
        return self._data[begin : begin + length].decode()

    def _get(self, kind: str) -> Any:
        first = kind[0]
        if first in _FIXED:
            return self._number(first)
        self.align(_alignment(kind))
        if first in "so":
            return self._text(self._number("u"))
        if first == "g":
            return self._text(self._number("y"))
        if first == "v":
            (inner,) = _types(self._get("g"))
            return self._get(inner)
        if first == "a":
            return self._array(kind[1:])
        return tuple(self.values(kind[1:-1]))

    def _array(self, kind: str) -> list[Any]:
        length = self._number("u")
        self.align(_alignment(kind))
        end = self._place + length
        found = []
        while self._place < end:
            found.append(self._get(kind))
        return found
