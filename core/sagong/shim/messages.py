"""The protocol between plugin, launcher and monitors: JSON objects, each behind its length.

A request has a number `n` and an operation `op`; its answer has the same `n` and either `ok` or
`error` (a code of `sagong.errors` and a message). What has no `n` is an event. Version 1; a peer
speaks N and N-1, since a monitor outlives upgrades of the plugin.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

__all__ = ["PROTOCOL", "MessageReader", "answer", "encode", "failure"]

PROTOCOL = 1
MESSAGE_LIMIT = 16 << 20
_LENGTH = struct.Struct(">I")


def encode(message: dict[str, Any]) -> bytes:
    """One message as bytes."""
    return framed(json.dumps(message, separators=(",", ":")).encode())


def framed(body: bytes) -> bytes:
    """An encoded body behind its length."""
    return _LENGTH.pack(len(body)) + body


def answer(number: int, result: dict[str, Any] | None = None) -> bytes:
    """The bytes of a good answer."""
    return encode({"n": number, "ok": result or {}})


def failure(number: int, code: str, message: str) -> bytes:
    """The bytes of an error."""
    return encode({"n": number, "error": {"code": code, "message": message}})


class MessageReader:
    """Cuts a byte stream into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def keep(self, data: bytes) -> None:
        """Bytes that somebody else has already received; read at the next `feed`."""
        self._buffer += data

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Take bytes, yield the messages that are whole; ValueError for nonsense."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MESSAGE_LIMIT:
                raise ValueError(f"message of {length} bytes exceeds {MESSAGE_LIMIT}")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            message = json.loads(self._buffer[_LENGTH.size : end].decode())
            del self._buffer[:end]
            if not isinstance(message, dict):
                raise ValueError("a message must be a JSON object")
            yield message
