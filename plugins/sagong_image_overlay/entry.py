"""Entries of an archive as records on a pipe: what the parser tells the writer, checked twice.

A record is a fixed head, the name, the link, extended attributes and the map of data segments,
then the content. The format is private to one version of this package: both ends are forked from
the same process.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field

from sagong.errors import InvalidArgument, SagongError, from_code

__all__ = ["Entry", "Kind", "RecordReader", "checked_name", "encode"]

CHUNK = 1 << 20
NAME_LIMIT = 4095
PART_LIMIT = 255


class Kind:
    """What a record makes."""

    FILE = 0
    HARDLINK = 1
    SYMLINK = 2
    CHARACTER = 3
    BLOCK = 4
    DIRECTORY = 5
    FIFO = 6
    WHITEOUT = 7
    OPAQUE = 8
    PROGRESS = 9
    END = 10
    ERROR = 11


@dataclass(slots=True)
class Entry:
    """One entry; `size` is of the file, `segments` its data when it is sparse (offset, length)."""

    kind: int
    name: bytes = b""
    link: bytes = b""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    seconds: int = 0
    nanoseconds: int = 0
    size: int = 0
    major: int = 0
    minor: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    segments: tuple[tuple[int, int], ...] | None = field(default=None)

    @property
    def stored(self) -> int:
        """Bytes of content that follow the record."""
        if self.kind != Kind.FILE:
            return 0
        return self.size if self.segments is None else sum(length for _, length in self.segments)


_HEAD = struct.Struct("<BBHIIqIQIIHHII")
_PAIR = struct.Struct("<QQ")
_LENGTHS = struct.Struct("<HI")
_SPARSE = 1


def encode(entry: Entry) -> bytes:
    """The record of an entry, without its content."""
    segments = entry.segments
    xattrs = b"".join(
        _LENGTHS.pack(len(key), len(value)) + key + value for key, value in entry.xattrs
    )
    pairs = b"".join(_PAIR.pack(*pair) for pair in segments) if segments else b""
    head = _HEAD.pack(
        entry.kind,
        0 if segments is None else _SPARSE,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.seconds,
        entry.nanoseconds,
        entry.size,
        entry.major,
        entry.minor,
        len(entry.name),
        len(entry.link),
        len(xattrs),
        len(pairs),
    )
    return b"".join((head, entry.name, entry.link, xattrs, pairs))


def _decode_xattrs(raw: bytes) -> tuple[tuple[bytes, bytes], ...]:
    found, at = [], 0
    while at < len(raw):
        keys, values = _LENGTHS.unpack_from(raw, at)
        at += _LENGTHS.size
        found.append((raw[at : at + keys], raw[at + keys : at + keys + values]))
        at += keys + values
    return tuple(found)


def checked_name(raw: bytes, what: str = "entry") -> bytes:
    """A path relative to the root without ".", "..", empty parts; "" is the root itself."""
    # Nearly all names are clean: two searches decide it without splitting.
    if raw and raw[0] not in b"/." and b"/." not in raw and b"//" not in raw:
        name = raw[:-1] if raw[-1] == 47 else raw
    else:
        name = b"/".join(part for part in raw.split(b"/") if part not in (b"", b"."))
    if b".." in name and b".." in name.split(b"/"):
        raise InvalidArgument(f"archive {what} {_shown(raw)} points outside of the archive")
    if b"\0" in name or len(name) > NAME_LIMIT:
        raise InvalidArgument(f"archive {what} {_shown(raw)} is not a usable path")
    if len(name) > PART_LIMIT and max(map(len, name.split(b"/"))) > PART_LIMIT:
        raise InvalidArgument(f"archive {what} {_shown(raw)} has a part of over 255 bytes")
    return name


def _shown(raw: bytes) -> str:
    return repr(raw[:120].decode("utf-8", "replace"))


class RecordReader:
    """Reads records and their content from a pipe; `problems` tells why it ended too early."""

    def __init__(self, descriptor: int, problems: int | None = None) -> None:
        self._descriptor = descriptor
        self._problems = problems
        self._buffer = b""
        self._at = 0

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._buffer):
            self._fill(count)
            end = self._at + count
        data = self._buffer[self._at : end]
        self._at = end
        return data

    def _fill(self, count: int) -> None:
        parts = [self._buffer[self._at :]]
        have = len(parts[0])
        while have < count:
            more = os.read(self._descriptor, CHUNK)
            if not more:
                raise self._why_ended()
            parts.append(more)
            have += len(more)
        self._buffer, self._at = b"".join(parts), 0

    def _why_ended(self) -> SagongError:
        """What the parser said when it ended in the middle of a file."""
        if self._problems is not None and (raw := os.read(self._problems, 1 << 16)):
            problem = RecordReader(-1)
            problem._buffer = raw
            entry = problem.next()
            return from_code(entry.name.decode(), entry.link.decode("utf-8", "replace"))
        return InvalidArgument(
            "unexpected EOF: the archive ends within a file, or its parser was killed"
        )

    def next(self) -> Entry:
        """The next record; the caller must take its content with `copy` or `content`."""
        values = _HEAD.unpack(self._take(_HEAD.size))
        names, links, xattrs, pairs = values[10:]
        entry = Entry(
            values[0],
            self._take(names),
            self._take(links) if links else b"",
            *values[2:10],
        )
        if xattrs:
            entry.xattrs = _decode_xattrs(self._take(xattrs))
        if values[1] & _SPARSE:
            raw = self._take(pairs)
            entry.segments = tuple(_PAIR.iter_unpack(raw))
        return entry

    def content(self, size: int) -> bytes:
        """Content that is small enough for one piece."""
        return self._take(size)

    def copy(self, size: int, target: int, offset: int | None = None) -> None:
        """Write `size` bytes of content to a file, from `offset` on or where it stands."""
        while size:
            if self._at == len(self._buffer):
                self._buffer, self._at = b"", 0
                self._fill(1)
            piece = memoryview(self._buffer)[self._at : self._at + size]
            if offset is None:
                written = os.write(target, piece)
            else:
                written = os.pwrite(target, piece, offset)
                offset += written
            self._at += written
            size -= written

    def skip(self, size: int) -> None:
        """Throw content away."""
        while size:
            size -= len(self._take(min(size, CHUNK)))
