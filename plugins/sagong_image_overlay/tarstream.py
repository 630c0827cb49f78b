"""Reads tar (ustar, PAX, GNU, sparse) from a stream of bytes into entries; trusts nothing in it.

Formats: POSIX.1-2017 pax(1), GNU tar manual chapter "Tar Internals"; whiteouts as in the OCI image
specification, layer.md. Where writers and readers differ, an archive means what it means to Docker and
containerd (Go's archive/tar): what they scanned and signed is what is unpacked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from sagong.errors import InvalidArgument, ResourceExhausted
from sagong_image_overlay.entry import Entry, Kind, checked_name

__all__ = ["Bounds", "TarStream"]

BLOCK = 512
_ZERO = bytes(BLOCK)
_EXTENSION_LIMIT = 1 << 20
_SEGMENT_LIMIT = 1 << 16
_UNSAFE_XATTRS = (b"trusted.", b"user.overlay.", b"security.selinux", b"security.ima")
_SAFE_XATTRS = (b"user.", b"security.capability", b"system.posix_acl_")
_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER,
    b"4": Kind.BLOCK,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
    b"S": Kind.FILE,
}
_PAX_KEYS = frozenset((b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime"))
_XATTR = b"SCHILY.xattr."
_OCTAL = re.compile(rb"[0-7]*")
_DECIMAL = re.compile(rb"-?[0-9]{1,20}")
# The last number stands for "as it is" in chown(2).
_MOST_ID = (1 << 32) - 2
_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"


class Bounds:
    """How much an archive may hold, against bombs.

    `ratio`, if not 0: how many times its own size it may unpack to.
    """

    def __init__(self, entries: int = 2_000_000, size: int = 256 << 30, ratio: int = 0) -> None:
        self.entries = entries
        self.size = size
        self.ratio = ratio

    @property
    def stream(self) -> int:
        """Bytes of the whole stream: content, and a few blocks for each entry."""
        return self.size + self.entries * 4 * BLOCK + (64 << 20)


def _number(field: bytes) -> int:
    """An octal or base-256 number of a header."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        bits = len(field) * 8
        return value - (1 << bits) if field[0] & 0x40 else value & ((1 << bits - 1) - 1)
    text = field.strip(b" \0")
    if not _OCTAL.fullmatch(text):
        raise InvalidArgument(f"archive header has the number {field!r}")
    return int(text, 8) if text else 0


def _checksum(header: bytes) -> int:
    """As it stands there; -1 for what can be none."""
    text = header[148:156].strip(b" \0")
    return int(text, 8) if text and not text.strip(b"01234567") else -1


def _text(field: bytes) -> bytes:
    end = field.find(0)
    return field if end < 0 else field[:end]


class TarStream:
    """Entries of a tar; after each `next` its content must be taken by `pieces`.

    `whiteouts` turns OCI's whiteout names into their kinds; else they are files as any.
    """

    def __init__(self, chunks: Iterator[bytes], *, whiteouts: bool, bounds: Bounds) -> None:
        self._chunks = chunks
        self._whiteouts = whiteouts
        self._bounds = bounds
        self._hash = hashlib.sha256()
        self._buffer = b""
        self._at = 0
        self._left = 0
        self._padding = 0
        self._read = 0
        self.entries = 0
        self.total = 0

    def _more(self) -> bool:
        data = next(self._chunks, b"")
        if not data:
            return False
        self._hash.update(data)
        self._read += len(data)
        if self._read > self._bounds.stream:
            raise ResourceExhausted(
                f"the archive has more than {self._bounds.stream} bytes; raise max_layer_size"
            )
        self._buffer = self._buffer[self._at :] + data if self._at < len(self._buffer) else data
        self._at = 0
        return True

    def _take(self, count: int) -> bytes:
        while len(self._buffer) - self._at < count:
            if not self._more():
                raise InvalidArgument("the archive ends in the middle of an entry")
        data = self._buffer[self._at : self._at + count]
        self._at += count
        return data

    def pieces(self) -> Iterator[memoryview]:
        """The content of the last entry in pieces."""
        while self._left:
            if self._at == len(self._buffer) and not self._more():
                raise InvalidArgument("the archive ends in the middle of a file")
            piece = memoryview(self._buffer)[self._at : self._at + self._left]
            self._at += len(piece)
            self._left -= len(piece)
            yield piece

    def content(self) -> bytes:
        """The content of the last entry as one piece."""
        data = self._take(self._left)
        self._left = 0
        return data

    def finish(self) -> str:
        """Read what follows the end; the digest of the whole uncompressed archive."""
        while self._more():
            self._at = len(self._buffer)
        return "sha256:" + self._hash.hexdigest()

    def _header(self) -> bytes | None:
        if len(self._buffer) - self._at < BLOCK:
            while len(self._buffer) - self._at < BLOCK:
                if not self._more():
                    break
            if self._at == len(self._buffer):
                return None
        raw = self._take(BLOCK)
        if raw[0] == 0 and raw == _ZERO:
            return None
        stored = _checksum(raw)
        found = sum(raw) - sum(raw[148:156]) + 256
        if stored != found and stored != _signed_sum(raw):
            raise InvalidArgument("this is not a tar archive, or it is damaged (header checksum)")
        return raw

    def _extension(self, size: int) -> bytes:
        if not 0 <= size <= _EXTENSION_LIMIT:
            raise InvalidArgument(f"archive header extension of {size} bytes; at most 1 MiB goes")
        data = self._take(size)
        self._take(-size % BLOCK)
        return data

    def next(self) -> Entry | None:
        """The next entry, or None at the archive's end."""
        if self._padding:
            self._take(self._padding)
            self._padding = 0
        extended: dict[bytes, bytes] = {}
        long_name = long_link = b""
        while True:
            raw = self._header()
            if raw is None:
                return None
            kind = raw[156:157]
            if kind == b"x":
                extended = _records(self._extension(_number(raw[124:136])))
            elif kind in (b"g", b"V"):
                # Global records (a commit's id, mostly) and labels of volumes: nobody's.
                self._extension(_number(raw[124:136]))
                extended, long_name, long_link = {}, b"", b""
            elif kind == b"L":
                long_name = _text(self._extension(_number(raw[124:136])))
            elif kind == b"K":
                long_link = _text(self._extension(_number(raw[124:136])))
            else:
                return self._entry(raw, extended, long_name, long_link)

    def _entry(self, raw: bytes, pax: dict[bytes, bytes], name: bytes, link: bytes) -> Entry:
        kind = _KINDS.get(raw[156:157])
        if kind is None:
            raise InvalidArgument(f"archive entry of unknown type {raw[156:157]!r}")
        entry = Entry(kind)
        entry.name, entry.link = _text(raw[:100]), _text(raw[157:257])
        if raw[257:263] == b"ustar\0" and raw[345]:
            entry.name = _text(raw[345:500]) + b"/" + entry.name
        entry.mode = _number(raw[100:108]) & 0o7777
        entry.uid, entry.gid = _number(raw[108:116]), _number(raw[116:124])
        entry.size = _number(raw[124:136])
        entry.seconds = _number(raw[136:148])
        if kind in (Kind.CHARACTER, Kind.BLOCK):
            entry.major, entry.minor = _number(raw[329:337]), _number(raw[337:345])
        if pax:
            _apply_pax(entry, pax)
        entry.name, entry.link = name or entry.name, link or entry.link
        # Before there was a kind for directories, a slash told them.
        if raw[156] == 0 and entry.name.endswith(b"/"):
            entry.kind = Kind.DIRECTORY
        return self._checked(entry, raw, pax)

    def _checked(self, entry: Entry, raw: bytes, pax: dict[bytes, bytes]) -> Entry:
        # Whatever size they tell, links, directories and devices have no data.
        stored = entry.size = entry.size if entry.kind == Kind.FILE else 0
        ids = (entry.uid, entry.gid)
        if not 0 <= stored < 1 << 62 or min(ids) < 0 or max(ids) > _MOST_ID:
            raise InvalidArgument(f"archive entry {entry.name[:120]!r} has impossible numbers")
        if entry.major >> 12 or entry.minor >> 20 or entry.major < 0 or entry.minor < 0:
            raise InvalidArgument(f"archive entry {entry.name[:120]!r} is an impossible device")
        if not -(1 << 33) < entry.seconds < 1 << 34:
            entry.seconds = entry.nanoseconds = 0
        self._left, self._padding = stored, -stored % BLOCK
        if raw[156:157] == b"S":
            self._gnu_sparse(entry, raw)
        elif entry.kind == Kind.FILE and (b"GNU.sparse.major" in pax or b"GNU.sparse.map" in pax):
            self._pax_sparse(entry, pax)
        self._count(entry)
        entry.name = checked_name(entry.name)
        if entry.kind == Kind.HARDLINK:
            entry.link = checked_name(entry.link, "hard link to")
        elif entry.kind == Kind.SYMLINK:
            if not entry.link or b"\0" in entry.link or len(entry.link) > 4095:
                raise InvalidArgument(f"archive link {entry.name[:120]!r} has no usable target")
        else:
            entry.link = b""
        return self._whiteout(entry) if self._whiteouts else entry

    def _take_skipped(self) -> None:
        for _ in self.pieces():
            pass

    def _count(self, entry: Entry) -> None:
        self.entries += 1
        self.total += entry.stored
        if self.entries > self._bounds.entries:
            raise ResourceExhausted(f"the archive has more than {self._bounds.entries} entries")
        if self.total > self._bounds.size or entry.size > self._bounds.size:
            raise ResourceExhausted(
                f"the archive unpacks to more than {self._bounds.size} bytes; raise max_layer_size"
            )

    def _whiteout(self, entry: Entry) -> Entry:
        parent, _, base = entry.name.rpartition(b"/")
        if not base.startswith(_WHITEOUT):
            return entry
        self._take_skipped()
        if base == _OPAQUE:
            return Entry(Kind.OPAQUE, parent)
        if base.startswith(b".wh..wh."):
            # Bookkeeping of AUFS (.wh..wh.plnk, .wh..wh.aufs): means nothing to us.
            return Entry(Kind.PROGRESS)
        hidden = base.removeprefix(_WHITEOUT)
        if hidden in (b"", b".", b".."):
            raise InvalidArgument(f"archive whiteout {entry.name[:120]!r} hides nothing")
        return Entry(Kind.WHITEOUT, parent + b"/" + hidden if parent else hidden)

    def _gnu_sparse(self, entry: Entry, raw: bytes) -> None:
        segments = _segments(raw[386:482])
        real, more = _number(raw[483:495]), raw[482]
        while more:
            block = self._take(BLOCK)
            segments += _segments(block[:504])
            more = block[504]
            if len(segments) > _SEGMENT_LIMIT:
                raise ResourceExhausted("a sparse file of the archive has too many segments")
        self._set_sparse(entry, real, segments)

    def _pax_sparse(self, entry: Entry, pax: dict[bytes, bytes]) -> None:
        real = _decimal(pax.get(b"GNU.sparse.realsize") or pax.get(b"GNU.sparse.size") or b"0")
        entry.name = pax.get(b"GNU.sparse.name", entry.name)
        if pax.get(b"GNU.sparse.major") == b"1":
            numbers = self._map_in_data()
        else:
            numbers = [_decimal(n) for n in pax.get(b"GNU.sparse.map", b"").split(b",") if n]
        if len(numbers) % 2 or len(numbers) > 2 * _SEGMENT_LIMIT:
            raise InvalidArgument("a sparse file of the archive has a broken map")
        self._set_sparse(entry, real, list(zip(numbers[::2], numbers[1::2])))

    def _map_in_data(self) -> list[int]:
        """Format 1.0: decimal numbers by lines before the data, padded to a block."""
        lines: list[bytes] = []
        rest, wanted = b"", 1
        while len(lines) < wanted or wanted < 1:
            if wanted < 1 or self._left < BLOCK or len(lines) > 2 * _SEGMENT_LIMIT:
                raise InvalidArgument("a sparse file of the archive has a broken map")
            *whole, rest = (rest + self._take(BLOCK)).split(b"\n")
            self._left -= BLOCK
            lines += whole
            wanted = 1 + 2 * _decimal(lines[0]) if lines else 1
        return [_decimal(line) for line in lines[1:wanted]]

    def _set_sparse(self, entry: Entry, real: int, segments: list[tuple[int, int]]) -> None:
        end = 0
        if real < 0:
            raise InvalidArgument("a sparse file of the archive has a negative size")
        for offset, length in segments:
            if offset < end or length < 0 or offset + length > real:
                raise InvalidArgument("a sparse file of the archive has a broken map")
            end = offset + length
        if sum(length for _, length in segments) != self._left:
            raise InvalidArgument("a sparse file of the archive has more or less data than its map")
        entry.size, entry.segments = real, tuple((o, n) for o, n in segments if n)


def _signed_sum(raw: bytes) -> int:
    """Some old writers summed signed characters."""
    body = raw[:148] + b" " * 8 + raw[156:]
    return sum(byte - 256 if byte > 127 else byte for byte in body)


def _segments(raw: bytes) -> list[tuple[int, int]]:
    found = []
    for at in range(0, len(raw) - 23, 24):
        if raw[at] == 0:
            break
        found.append((_number(raw[at : at + 12]), _number(raw[at + 12 : at + 24])))
    return found


def _decimal(text: bytes) -> int:
    if not _DECIMAL.fullmatch(text):
        raise InvalidArgument(f"archive header has the number {text[:40]!r}")
    return int(text)


def _records(data: bytes) -> dict[bytes, bytes]:
    """The records of a PAX header: `length key=value\\n`."""
    found: dict[bytes, bytes] = {}
    sparse: list[bytes] = []
    at = 0
    while at < len(data) and data[at]:
        space = data.find(b" ", at, at + 20)
        length = _decimal(data[at:space]) if space > at else -1
        end = at + length
        equals = data.find(b"=", space, end)
        if length < 5 or end > len(data) or equals < 0 or data[end - 1] != 10:
            raise InvalidArgument("the archive has a broken PAX header")
        key, value = data[space + 1 : equals], data[equals + 1 : end - 1]
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            sparse.append(value)
        # An empty value takes what stands elsewhere; of an attribute it is the value.
        if (key in _PAX_KEYS and value) or key.startswith((_XATTR, b"GNU.sparse.")):
            found[key] = value
        at = end
    if sparse:
        found[b"GNU.sparse.map"] = b",".join(sparse)
    return found


def _apply_pax(entry: Entry, pax: dict[bytes, bytes]) -> None:
    entry.name = pax.get(b"path", entry.name)
    entry.link = pax.get(b"linkpath", entry.link)
    if b"size" in pax:
        entry.size = _decimal(pax[b"size"])
    if b"uid" in pax:
        entry.uid = _decimal(pax[b"uid"])
    if b"gid" in pax:
        entry.gid = _decimal(pax[b"gid"])
    if b"mtime" in pax:
        entry.seconds, entry.nanoseconds = _time(pax[b"mtime"])
    entry.xattrs = tuple(
        (key[len(_XATTR) :], value)
        for key, value in pax.items()
        if key.startswith(_XATTR) and _is_safe(key[len(_XATTR) :])
    )


def _is_safe(name: bytes) -> bool:
    """Attributes that overlayfs or a security module reads must not come from an archive."""
    if len(name) > 255 or b"\0" in name:
        return False
    return name.startswith(_SAFE_XATTRS) and not name.startswith(_UNSAFE_XATTRS)


def _time(text: bytes) -> tuple[int, int]:
    whole, _, fraction = text.partition(b".")
    negative = whole.startswith(b"-")
    seconds = _decimal(whole)
    if fraction and not fraction.isdigit():
        raise InvalidArgument(f"archive header has the time {text[:40]!r}")
    nanoseconds = int(fraction[:9].ljust(9, b"0"))
    if negative and nanoseconds:
        return seconds - 1, 1_000_000_000 - nanoseconds
    return seconds, nanoseconds
