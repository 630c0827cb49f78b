"""Protocol buffers' wire format: what is read, and what is refused."""

from __future__ import annotations

import struct

import pytest

from sagong.protobuf import BYTES, FIXED32, FIXED64, VARINT, fields, signed, varint


def read(raw: bytes) -> list[tuple[int, object]]:
    """All fields."""
    return [(n, bytes(v) if isinstance(v, memoryview) else v) for n, v in fields(memoryview(raw))]


def test_numbers_are_read_as_they_were_written() -> None:
    for value in (0, 1, 127, 128, 300, 1 << 32, (1 << 64) - 1):
        assert read(varint(5 << 3 | VARINT) + varint(value)) == [(5, value)]
    assert signed((1 << 64) - 5) == -5
    assert signed(5) == 5


def test_every_kind_of_field() -> None:
    raw = varint(1 << 3 | BYTES) + b"\x02ab" + varint(2 << 3 | FIXED64) + struct.pack("<d", 1.5)
    assert read(raw + varint(3 << 3 | FIXED32) + struct.pack("<f", 0.5)) == [
        (1, b"ab"),
        (2, 1.5),
        (3, 0.5),
    ]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"\x80", "EOF"),
        (b"\x0a\x05ab", "EOF"),
        (b"\x09\0\0", "EOF"),
        (b"\x0d\0", "EOF"),
        (b"\x08" + b"\xff" * 9 + b"\x7f", "overflow"),
        (b"\xff" * 12, "overflow"),
        (b"\x0b", "wireType 3"),
    ],
)
def test_what_is_no_message_is_refused(raw: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read(raw)
