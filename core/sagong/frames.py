"""Framing of attach and exec streams between a container's monitor and its clients.

A frame is Docker's stdcopy header (Engine API, "Stream format"), one byte of type, three of zero,
a 32-bit big-endian length, and the payload; types above 2 are ours. A client sends STDIN, RESIZE
and EOF; a monitor sends STDOUT, STDERR, ERROR and, last, EXIT. A log has STDOUT, STDERR, PLACE and,
last, EOF.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum

from sagong.errors import InvalidArgument

__all__ = ["FRAME_LIMIT", "Frame", "FrameReader", "pack"]

FRAME_LIMIT = 1 << 20
_HEADER = struct.Struct(">BxxxI")


class Frame(IntEnum):
    """Types of frames."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    ERROR = 3
    RESIZE = 16  # payload: u16 rows, u16 columns, big-endian
    EOF = 17  # the sender's input ends (half-close); no payload
    EXIT = 18  # payload: i32 exit code, big-endian
    SIGNAL = 19  # payload: u8 signal number, to an exec'd process
    PLACE = 20  # payload: opaque; how far a log has been told, to go on from there


def pack(kind: int, payload: bytes = b"") -> bytes:
    """One frame as bytes."""
    return _HEADER.pack(kind, len(payload)) + payload


class FrameReader:
    """Cuts a byte stream into frames; holds at most one unfinished frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Take bytes, yield (type, payload) of each frame that is whole now."""
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._buffer)
            if length > FRAME_LIMIT:
                raise InvalidArgument(f"frame of {length} bytes exceeds {FRAME_LIMIT}")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            yield kind, payload
