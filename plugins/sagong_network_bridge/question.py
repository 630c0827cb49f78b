"""DNS messages as far as a resolver of names needs them: read one question, write its answer.

Whatever a container sends is read here, in a process without rights, so nothing is trusted: every
offset is checked and a malformed message is None. Source: RFC 1035 section 4, RFC 6891.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Question", "address_of", "answered", "failed", "question_of"]

A, PTR, AAAA, ANY = 1, 12, 28, 255
NO_ERROR, SERVER_FAILURE, NO_NAME = 0, 2, 3
SECONDS = 10

_HEADER = struct.Struct(">HHHHHH")
_FIXED = struct.Struct(">HHIH")
_OPTION = struct.Struct(">BHH")
_OPT = 41
_PLAIN, _MOST = 512, 65000
_RESPONSE, _TRUNCATED, _DESIRED, _AVAILABLE = 0x8000, 0x200, 0x100, 0x80


class Question(NamedTuple):
    """What is asked: the name in lower case without a dot at its end, and the raw question.

    `room` is how many bytes of a datagram the asker takes.
    """

    id: int
    flags: int
    name: str
    kind: int
    raw: bytes
    room: int = 512


def question_of(data: bytes) -> Question | None:
    """The question of a query; None for anything that isn't one."""
    if len(data) < 17:
        return None
    identity, flags, count, *_ = _HEADER.unpack_from(data)
    if flags & _RESPONSE or flags & 0x7800 or count != 1:
        return None
    labels: list[bytes] = []
    offset, total = 12, 0
    while offset < len(data):
        length = data[offset]
        if length > 63:
            return None
        offset += 1
        if not length:
            break
        labels.append(data[offset : offset + length])
        offset += length
        total += length + 1
    if offset + 4 > len(data) or total > 254:
        return None
    kind, class_ = struct.unpack_from(">HH", data, offset)
    if class_ not in (1, 255):
        return None
    name = b".".join(labels).decode("ascii", "replace").lower()
    return Question(identity, flags, name, kind, data[12 : offset + 4], _room(data, offset + 4))


def _room(data: bytes, offset: int) -> int:
    """What the OPT record says that follows the question at once, as askers write it."""
    if len(data) < offset + 11:
        return _PLAIN
    root, kind, size = _OPTION.unpack_from(data, offset)
    between = data[6:10] != bytes(4)  # answers or authorities in a question
    return _PLAIN if root or kind != _OPT or between else max(_PLAIN, min(size, _MOST))


def _head(question: Question, code: int, answers: int, extra: int = 0) -> bytes:
    flags = _RESPONSE | _AVAILABLE | (question.flags & _DESIRED) | code | extra
    return _HEADER.pack(question.id, flags, 1, answers, 0, 0) + question.raw


def failed(question: Question, code: int) -> bytes:
    """An answer without records."""
    return _head(question, code, 0)


def answered(question: Question, kind: int, values: list[bytes], limit: int) -> bytes:
    """An answer with records; if not all fit into `limit` bytes, those that do, and it says so."""
    records = [_FIXED.pack(kind, 1, SECONDS, len(value)) + value for value in values]
    left = limit - _HEADER.size - len(question.raw)
    fitting = list(_fitting([b"\xc0\x0c" + record for record in records], left))
    cut = _TRUNCATED if len(fitting) < len(records) else 0
    return _head(question, NO_ERROR, len(fitting), cut) + b"".join(fitting)


def _fitting(records: list[bytes], room: int) -> Iterator[bytes]:
    for record in records:
        room -= len(record)
        if room < 0:
            return
        yield record


def packed_name(name: str) -> bytes:
    """A name on the wire."""
    labels = [label.encode("ascii", "replace")[:63] for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def address_of(name: str) -> str:
    """The address that a reverse name asks for, "" if it is none."""
    if name.endswith(".in-addr.arpa"):
        parts = name.removesuffix(".in-addr.arpa").split(".")[::-1]
        return ".".join(parts) if len(parts) == 4 else ""
    if name.endswith(".ip6.arpa"):
        digits = "".join(name.removesuffix(".ip6.arpa").split(".")[::-1])
        try:
            return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))
        except (ValueError, OSError):
            return ""
    return ""
