"""Protocol buffers' wire format: numbers and fields, for those who know their messages themselves.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

__all__ = ["BYTES", "FIXED32", "FIXED64", "VARINT", "fields", "signed", "varint"]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_DOUBLE, _FLOAT = struct.Struct("<d"), struct.Struct("<f")


def varint(value: int) -> bytes:
    """An unsigned number's bytes."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def signed(value: int) -> int:
    """What an int32 or int64 field's varint stands for."""
    return value - (1 << 64) if value >= 1 << 63 else value


def fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """(field number, value) pairs in their order: int, float (fixed ones), or a view of the bytes.

    ValueError for what is cut, for numbers of more than 64 bits and for groups.
    """
    at, end = 0, len(data)
    while at < end:
        tag, at = _read_varint(data, at)
        wire = tag & 7
        value: int | float | memoryview
        if wire == BYTES:
            size, at = _read_varint(data, at)
            if at + size > end:
                raise ValueError("unexpected EOF")
            value = data[at : at + size]
            at += size
        elif wire == VARINT:
            value, at = _read_varint(data, at)
        elif wire in (FIXED64, FIXED32):
            kind = _DOUBLE if wire == FIXED64 else _FLOAT
            if at + kind.size > end:
                raise ValueError("unexpected EOF")
            value = kind.unpack_from(data, at)[0]
            at += kind.size
        else:
            raise ValueError(f"illegal wireType {wire}")
        yield tag >> 3, value


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    try:
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >> 64:
                    raise ValueError("integer overflow")
                return value, at
            shift += 7
            if shift > 63:
                raise ValueError("integer overflow")
    except IndexError:
        raise ValueError("unexpected EOF") from None
