"""Writes tar archives (ustar with PAX where it needs it) to a descriptor, or packed into content."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from sagong.linux.files import write_all
from sagong_image_overlay.compression import gzip_compressor

__all__ = ["Member", "PackedSink", "PlainSink", "RawSink", "Sink", "TarWriter"]

BLOCK = 512
_CHUNK = 1 << 20
_BATCH = 1 << 17
_TYPES = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}


class Sink(Protocol):
    """Where the archive goes."""

    def write(self, data: bytes) -> None:
        """Take bytes."""
        ...

    def copy(self, source: int, size: int) -> None:
        """Take exactly `size` bytes of a file, zeros if it has become shorter."""
        ...

    def close(self) -> None:
        """Take no more."""
        ...


class RawSink:
    """Writes to a socket, pipe or file; content goes there by sendfile."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """Collect small pieces."""
        self._parts.append(data)
        self._size += len(data)
        if self._size > _BATCH:
            self._flush()

    def _flush(self) -> None:
        data = b"".join(self._parts)
        self._parts, self._size = [], 0
        write_all(self._target, data)

    def copy(self, source: int, size: int) -> None:
        """Small files are read, large ones are sent by the kernel."""
        if size < _BATCH:
            self.write(os.pread(source, size, 0).ljust(size, b"\0"))
            return
        self._flush()
        at = 0
        while at < size:
            sent = os.sendfile(self._target, source, at, min(size - at, 1 << 30))
            if not sent:
                break
            at += sent
        while at < size:
            self.write(bytes(min(size - at, _CHUNK)))
            at += min(size - at, _CHUNK)

    def close(self) -> None:
        """Write what is left."""
        self._flush()


class PlainSink:
    """Writes a file and takes its digest, which is that of the archive itself."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._plain = hashlib.sha256()
        self._parts: list[bytes] = []
        self._waiting = 0
        self.size = 0

    def write(self, data: bytes) -> None:
        """Collect small pieces."""
        self._parts.append(data)
        self._waiting += len(data)
        if self._waiting > _CHUNK:
            self._flush()

    def _flush(self) -> None:
        data = b"".join(self._parts)
        self._parts, self._waiting = [], 0
        self._plain.update(data)
        self.size += len(data)
        write_all(self._target, data)

    def copy(self, source: int, size: int) -> None:
        """Read the file in pieces."""
        for data in _pieces(source, size):
            self.write(data)

    def close(self) -> None:
        """Write what is left."""
        self._flush()

    @property
    def diff_id(self) -> str:
        """The digest of the archive."""
        return "sha256:" + self._plain.hexdigest()

    @property
    def digest(self) -> str:
        """The same."""
        return self.diff_id


def _pieces(source: int, size: int) -> Iterator[bytes]:
    """Exactly `size` bytes of a file, zeros if it has become shorter."""
    at = 0
    while at < size:
        data = os.pread(source, min(_CHUNK, size - at), at) or bytes(min(_CHUNK, size - at))
        yield data
        at += len(data)


class PackedSink:
    """Writes a gzip file and takes both digests: of what is packed and of the archive itself."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._pack = gzip_compressor()
        self._plain = hashlib.sha256()
        self._packed = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Take bytes."""
        self._plain.update(data)
        self._put(self._pack.compress(data))

    def _put(self, packed: bytes) -> None:
        self._packed.update(packed)
        self.size += len(packed)
        write_all(self._target, packed)

    def copy(self, source: int, size: int) -> None:
        """Read the file in pieces."""
        for data in _pieces(source, size):
            self.write(data)

    def close(self) -> None:
        """End the gzip stream."""
        self._put(self._pack.flush())

    @property
    def diff_id(self) -> str:
        """The digest of the archive."""
        return "sha256:" + self._plain.hexdigest()

    @property
    def digest(self) -> str:
        """The digest of the packed file."""
        return "sha256:" + self._packed.hexdigest()


@dataclass(slots=True)
class Member:
    """A header's facts."""

    name: bytes
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    link: bytes = b""
    hard: bool = False
    device: int = 0
    xattrs: Sequence[tuple[bytes, bytes]] = ()


class TarWriter:
    """Puts members one after the other."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.entries = 0

    def add(self, member: Member, source: int | None = None) -> None:
        """A header, and the content of a regular file."""
        self.entries += 1
        self._sink.write(encode_header(member))
        if source is not None and member.size:
            self._sink.copy(source, member.size)
            self._sink.write(bytes(-member.size % BLOCK))

    def add_bytes(self, name: str, data: bytes, mtime: int = 0) -> None:
        """A small file that exists nowhere."""
        member = Member(name.encode(), stat.S_IFREG | 0o644, size=len(data), mtime=mtime)
        self.entries += 1
        self._sink.write(encode_header(member) + data + bytes(-len(data) % BLOCK))

    def close(self) -> None:
        """The two zero blocks at the end."""
        self._sink.write(bytes(2 * BLOCK))
        self._sink.close()


def _octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)


def _record(key: bytes, value: bytes) -> bytes:
    """A PAX record, whose length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) != len(str(rest)):
        length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _needs_pax(text: bytes, room: int) -> bool:
    return len(text) > room or not text.isascii()


def encode_header(member: Member) -> bytes:
    """The ustar header, preceded by a PAX header if a value does not fit into it."""
    name = member.name
    if stat.S_ISDIR(member.mode) and not member.hard and not name.endswith(b"/"):
        name += b"/"
    pax: list[bytes] = []
    if _needs_pax(name, 100):
        pax.append(_record(b"path", name))
    if _needs_pax(member.link, 100):
        pax.append(_record(b"linkpath", member.link))
    for key, value, most in (
        (b"uid", member.uid, 0o7777777),
        (b"gid", member.gid, 0o7777777),
        (b"size", member.size, 0o77777777777),
        (b"mtime", member.mtime, 0o77777777777),
    ):
        if not 0 <= value <= most:
            pax.append(_record(key, b"%d" % value))
    pax += [_record(b"SCHILY.xattr." + key, value) for key, value in member.xattrs]
    header = _ustar(member, name)
    if not pax:
        return header
    records = b"".join(pax)
    front = Member(b"PaxHeaders.0/" + name[-80:].rstrip(b"/"), stat.S_IFREG | 0o644)
    front.size = len(records)
    return _ustar(front, front.name, b"x") + records + bytes(-len(records) % BLOCK) + header


def _ustar(member: Member, name: bytes, kind: bytes = b"") -> bytes:
    kind = kind or (b"1" if member.hard else _TYPES[stat.S_IFMT(member.mode)])
    device = kind in (b"3", b"4")
    fields = b"".join(
        (
            name[:100].ljust(100, b"\0"),
            _octal(member.mode & 0o7777, 8),
            _octal(_fitting(member.uid, 0o7777777), 8),
            _octal(_fitting(member.gid, 0o7777777), 8),
            _octal(_fitting(member.size, 0o77777777777), 12),
            _octal(_fitting(member.mtime, 0o77777777777), 12),
            b"        ",
            kind,
            member.link[:100].ljust(100, b"\0"),
            b"ustar\x0000",
            bytes(64),
            _octal(os.major(member.device) if device else 0, 8),
            _octal(os.minor(member.device) if device else 0, 8),
            bytes(167),
        )
    )
    return fields[:148] + b"%06o\0 " % sum(fields) + fields[156:]


def _fitting(value: int, most: int) -> int:
    return value if 0 <= value <= most else 0
