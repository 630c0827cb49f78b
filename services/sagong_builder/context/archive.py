"""Reads archives that strangers made: decompressed into a file of ours, then indexed as a tree."""

from __future__ import annotations

import bz2
import contextlib
import io
import lzma
import os
import posixpath
import tarfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from sagong.errors import InvalidArgument, ResourceExhausted, SagongError
from sagong.zstd import decompressed
from sagong_builder.context.tree import Entry, Kind, Tree

__all__ = ["Archive", "begins_archive", "compression_of", "is_archive", "open_archive"]

_PIECE = 1 << 20
_READ = 1 << 18
_HEADER_LIMIT = 1 << 20
_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
_KINDS = {
    tarfile.DIRTYPE: Kind.DIRECTORY,
    tarfile.SYMTYPE: Kind.SYMLINK,
    tarfile.CHRTYPE: Kind.CHARACTER,
    tarfile.BLKTYPE: Kind.BLOCK,
    tarfile.FIFOTYPE: Kind.FIFO,
}
_XATTR = "SCHILY.xattr."


class _Member(tarfile.TarInfo):
    """A header whose extensions are bounded: their sizes are the author's wish."""

    def _proc_pax(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        self._check()
        return super()._proc_pax(tar)  # type: ignore[misc,no-any-return]

    def _proc_gnulong(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        self._check()
        return super()._proc_gnulong(tar)  # type: ignore[misc,no-any-return]

    def _check(self) -> None:
        if not 0 <= self.size <= _HEADER_LIMIT:
            raise tarfile.ReadError(f"an extended header of {self.size} bytes")


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Archive:
    """An open archive: its tree, and the file with the contents."""

    def __init__(self, path: Path, file: BinaryIO, tree: Tree) -> None:
        self.path = path
        self.tree = tree
        self._file = file

    def close(self) -> None:
        """Close and delete the file."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def release(self) -> None:
        """Close the file and leave it where it is, for whoever goes on with it."""
        self._file.close()

    def add(self, path: str, content: bytes) -> None:
        """A file more."""
        with self.path.open("ab") as file:
            offset = file.tell()
            file.write(content)
        entry = Entry(Kind.FILE, 0o644, size=len(content), offset=offset, mtime=time.time())
        self.tree.put(path, entry)

    def content(self, entry: Entry) -> Iterator[bytes]:
        """A regular file's bytes in pieces; holes of sparse files as zeros."""
        if entry.extents is None:
            yield from self._stored(entry.offset, entry.size)
            return
        at, stored = 0, entry.offset
        for offset, length in entry.extents:
            yield from _zeros(offset - at)
            yield from self._stored(stored, length)
            at, stored = offset + length, stored + length
        yield from _zeros(entry.size - at)

    def _stored(self, offset: int, left: int) -> Iterator[bytes]:
        while left > 0:
            data = os.pread(self._file.fileno(), min(_PIECE, left), offset)
            if not data:
                raise InvalidArgument("the archive ends within a file")
            yield data
            offset += len(data)
            left -= len(data)


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        yield bytes(min(count, _PIECE))
        count -= _PIECE


def compression_of(head: bytes) -> str:
    """The compression that begins with these bytes; "" is none."""
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "")


def is_archive(head: bytes) -> bool:
    """Whether a file that begins so is a tar, plain or compressed (its first 512 bytes at least)."""
    if compression_of(head):
        return True
    with contextlib.suppress(tarfile.TarError, ValueError, UnicodeError):
        if len(head) >= tarfile.BLOCKSIZE:
            block = head[: tarfile.BLOCKSIZE]
            tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            return True
    return False


def begins_archive(path: Path) -> bool:
    """Whether a file's content begins as a tar's once it is decompressed, however it goes on."""
    with path.open("rb") as file:
        raw = file.read(_READ)
    head = b""
    with contextlib.suppress(Exception):  # each codec has an error class of its own
        match compression_of(raw):
            case "":
                head = raw
            case "gzip":
                head = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(raw, tarfile.BLOCKSIZE)
            case "bzip2":
                head = bz2.BZ2Decompressor().decompress(raw, tarfile.BLOCKSIZE)
            case "xz":
                head = lzma.LZMADecompressor().decompress(raw, tarfile.BLOCKSIZE)
            case _:
                head = next(decompressed(io.BytesIO(raw).read))
    head = head[: tarfile.BLOCKSIZE]
    return not compression_of(head) and is_archive(head)


def open_archive(source: Path, target: Path, *, limit: int, entries: int) -> Archive:
    """Decompress `source` into `target` (which it becomes if it is plain) and index it."""
    try:
        return _opened(source, target, limit, entries)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _opened(source: Path, target: Path, limit: int, entries: int) -> Archive:
    with source.open("rb") as file:
        kind = compression_of(file.read(8))
        file.seek(0)
        if kind:
            _decompress(file, kind, target, limit)
            source.unlink(missing_ok=True)
        else:
            os.rename(source, target)
    size = target.stat().st_size
    with target.open("ab") as file:
        # Some writers leave the last file's padding and the end's blocks out.
        file.write(bytes(-size % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE))
    opened = target.open("rb")
    try:
        return Archive(target, opened, _index(opened, entries, size))
    except BaseException:
        opened.close()
        raise


def _decompress(file: BinaryIO, kind: str, target: Path, limit: int) -> None:
    size = 0
    try:
        with target.open("wb") as out:
            for piece in _plain(file, kind):
                size += len(piece)
                if size > limit:
                    raise ResourceExhausted(f"the archive unpacks to more than {limit} bytes")
                out.write(piece)
    except SagongError:
        raise
    except Exception as error:  # each codec has an error class of its own
        if isinstance(error, OSError) and error.errno is not None:
            reason = f"the archive can't be unpacked: {os.strerror(error.errno)}"
            raise ResourceExhausted(reason) from None
        raise InvalidArgument(f"the {kind} archive is damaged: {error}") from None


def _plain(file: BinaryIO, kind: str) -> Iterator[bytes]:
    match kind:
        case "gzip":
            from isal import igzip

            opened = igzip.IGzipFile(fileobj=file, mode="rb")  # type: ignore[no-untyped-call]
            return _pieces(opened)
        case "bzip2":
            return _pieces(bz2.BZ2File(file))
        case "xz":
            return _pieces(lzma.LZMAFile(file))
        case _:
            return decompressed(file.read)


def _pieces(file: _Readable) -> Iterator[bytes]:
    while piece := file.read(_READ):
        yield piece


def _index(file: BinaryIO, limit: int, size: int) -> Tree:
    tree = Tree()
    count = 0
    try:
        with tarfile.open(fileobj=file, mode="r:", tarinfo=_Member, errorlevel=1) as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]
                count += 1
                if count > limit:
                    raise ResourceExhausted(f"the archive has more than {limit} entries")
                entry = _put(tree, member)
                if entry is not None and entry.offset + _stored(entry) > size:
                    raise InvalidArgument("the archive ends within a file")
    except (tarfile.TarError, ValueError, OverflowError, UnicodeError, RecursionError) as error:
        raise InvalidArgument(f"the archive is no tar, or is damaged: {error}") from None
    return tree


def _stored(entry: Entry) -> int:
    return entry.size if entry.extents is None else sum(length for _, length in entry.extents)


def _inside(name: str) -> str:
    """A name as it is below the archive's root: what would lead out of it is left away."""
    return posixpath.normpath("/" + name).lstrip("/")


def _put(tree: Tree, member: tarfile.TarInfo) -> Entry | None:
    name = _inside(member.name)
    if member.islnk():
        linked = tree.get(_inside(member.linkname))
        if linked is not None and not linked.is_directory:
            tree.put(name, linked)
        return None
    kind = Kind.FILE if member.isreg() or member.issparse() else _KINDS.get(member.type)
    if kind is None:
        return None
    extents = None
    if member.issparse():
        extents = tuple(cast(list[tuple[int, int]], member.sparse) or ())
    entry = Entry(
        kind=kind,
        mode=member.mode & 0o7777,
        uid=member.uid,
        gid=member.gid,
        size=member.size if kind is Kind.FILE else 0,
        mtime=max(0.0, float(member.mtime)),
        link=member.linkname if kind is Kind.SYMLINK else "",
        offset=member.offset_data,
        device=(member.devmajor, member.devminor),
        extents=extents,
        xattrs=tuple(
            (key[len(_XATTR) :], value)
            for key, value in sorted(member.pax_headers.items())
            if key.startswith(_XATTR)
        ),
    )
    tree.put(name, entry)
    return entry
