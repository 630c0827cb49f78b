"""Jobs that pack: a writable layer as a blob, plain archives compressed, images for `docker save`."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from typing import Any

from sagong_image_overlay.compression import Decompressor, compression_of
from sagong_image_overlay.confine import PARSER, READER, confine
from sagong_image_overlay.marks import OPAQUE, is_whiteout
from sagong_image_overlay.reading import member_of, read_xattrs
from sagong_image_overlay.tarout import Member, PackedSink, PlainSink, RawSink, TarWriter
from sagong_image_overlay.tree import open_directory

__all__ = ["JOBS"]

Report = Callable[[dict[str, Any]], None]


class LayerArchive:
    """Puts writable or unpacked layers, one over the other, into a tar as one layer of OCI.

    Without `whiteouts` deletions are left out: there is nothing below. `exact` tells whether the tar
    has all that the directories have. `stubs` are left out where they are empty.
    """

    def __init__(
        self, tar: TarWriter, *, whiteouts: bool = True, stubs: Sequence[bytes] = ()
    ) -> None:
        self._tar = tar
        self._whiteouts = whiteouts
        self._stubs = frozenset(stubs)
        self._links: dict[tuple[int, int], bytes] = {}
        self.size = 0
        self.exact = True

    def put(self, parts: Sequence[int], prefix: bytes) -> None:
        """All entries of a directory that lies in these parts, the top one first."""
        names = {os.fsencode(text) for part in parts for text in os.listdir(part)}
        for name in sorted(names):
            with contextlib.suppress(FileNotFoundError):
                self._entry(parts, name, prefix)

    def _entry(self, parts: Sequence[int], name: bytes, prefix: bytes) -> None:
        number, status = _topmost(parts, name)
        if self._is_stub(parts[number:], name, prefix + name, status):
            self.exact = False
            return
        member = member_of(prefix + name, status)
        if is_whiteout(status):
            self._hide(prefix + b".wh." + name, member.mtime)
        elif stat.S_ISDIR(status.st_mode):
            self._directory(parts[number:], name, member)
        elif stat.S_ISSOCK(status.st_mode):
            self.exact = False
        else:
            self._file(parts[number], name, member, status)

    def _is_stub(
        self, parts: Sequence[int], name: bytes, path: bytes, status: os.stat_result
    ) -> bool:
        """Whether it is what something was mounted upon: an empty file, or a directory of such."""
        if path not in self._stubs:
            return False
        if not stat.S_ISDIR(status.st_mode):
            return stat.S_ISREG(status.st_mode) and not status.st_size
        opened: list[int] = []
        try:
            if _open_parts(parts, name, opened):
                return False
            below = {os.fsencode(text) for part in opened for text in os.listdir(part)}
            return all(self._is_stub_below(opened, entry, path) for entry in below)
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def _is_stub_below(self, parts: Sequence[int], name: bytes, above: bytes) -> bool:
        number, status = _topmost(parts, name)
        return self._is_stub(parts[number:], name, above + b"/" + name, status)

    def _hide(self, name: bytes, mtime: int = 0) -> None:
        if self._whiteouts:
            self._tar.add(Member(name, stat.S_IFREG, mtime=mtime))

    def _directory(self, parts: Sequence[int], name: bytes, member: Member) -> None:
        opened: list[int] = []
        try:
            hides = _open_parts(parts, name, opened)
            member.xattrs = read_xattrs(opened[0])
            self._tar.add(member)
            if hides:
                self._hide(member.name + b"/.wh..wh..opq")
            self.put(opened, member.name + b"/")
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def _file(self, directory: int, name: bytes, member: Member, status: os.stat_result) -> None:
        known = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and known in self._links:
            member.hard, member.link = True, self._links[known]
            self._tar.add(member)
            return
        if stat.S_ISLNK(status.st_mode):
            member.link = os.readlink(name, dir_fd=directory)
        if stat.S_ISREG(status.st_mode):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            opened = os.open(name, flags, dir_fd=directory)
            try:
                member.size = os.fstat(opened).st_size
                member.xattrs = read_xattrs(opened)
                self._tar.add(member, opened)
                self.size += member.size
            finally:
                os.close(opened)
        else:
            self._tar.add(member)
        if status.st_nlink > 1:
            self._links[known] = member.name


def _topmost(parts: Sequence[int], name: bytes) -> tuple[int, os.stat_result]:
    """The first part that has the name, and what it is there."""
    for number, part in enumerate(parts[:-1]):
        with contextlib.suppress(FileNotFoundError):
            return number, os.lstat(name, dir_fd=part)
    return len(parts) - 1, os.lstat(name, dir_fd=parts[-1])


def _open_parts(parts: Sequence[int], name: bytes, opened: list[int]) -> bool:
    """Open a directory in all parts where it is one; whether it hides what is below them."""
    for part in parts:
        try:
            status = os.lstat(name, dir_fd=part)
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(status.st_mode):
            return True
        opened.append(open_directory(name, part))
        if _opaque(opened[-1]):
            return True
    return False


def _opaque(opened: int) -> bool:
    with contextlib.suppress(OSError):
        return os.getxattr(opened, OPAQUE) in (b"y", b"x")
    return False


def layer(job: dict[str, Any], descriptors: list[int], report: Report) -> dict[str, Any]:
    """Pack the directories `parts`, the top one first, as one layer into the first descriptor."""
    parts = [open_directory(path) for path in job["parts"]]
    confine(READER, job["jail"])
    sink = PackedSink(descriptors[0]) if job["compress"] else PlainSink(descriptors[0])
    tar = TarWriter(sink)
    stubs = [os.fsencode(path).strip(b"/") for path in job["stubs"]]
    archive = LayerArchive(tar, whiteouts=job["whiteouts"], stubs=stubs)
    archive.put(parts, b"")
    tar.close()
    return {
        "diff_id": sink.diff_id,
        "digest": sink.digest,
        "packed": sink.size,
        "size": archive.size,
        "entries": tar.entries,
        "exact": archive.exact,
    }


def repack(job: dict[str, Any], descriptors: list[int], report: Report) -> dict[str, Any]:
    """Digests of the archive in the first descriptor; gzip of it in the second if it needs that.

    What is gzip or zstd already is only measured: `packed` is False then.
    """
    source, target = descriptors
    head = os.pread(source, 8, 0)
    confine(PARSER, job["jail"])
    plain = Decompressor(source)
    if compression_of(head) in ("gzip", "zstd"):
        hashed = hashlib.sha256()
        for piece in plain:
            hashed.update(piece)
        return {"packed": False, "diff_id": "sha256:" + hashed.hexdigest()}
    sink = PackedSink(target)
    for piece in plain:
        sink.write(piece)
    sink.close()
    return {"packed": True, "diff_id": sink.diff_id, "digest": sink.digest, "size": sink.size}


def save(job: dict[str, Any], descriptors: list[int], report: Report) -> dict[str, Any]:
    """Archive `documents` (base64) and `blobs`, by digest with their times, of the store `root`."""
    confine(READER, job["root"])
    tar = TarWriter(RawSink(descriptors[0]))
    for name in ("blobs", "blobs/sha256", "blobs/sha512"):
        if name != "blobs/sha512" or any(blob.startswith("sha512:") for blob in job["blobs"]):
            tar.add(Member(name.encode(), stat.S_IFDIR | 0o755))
    for digest, mtime in job["blobs"].items():
        algorithm, _, value = digest.partition(":")
        source = os.open(f"{algorithm}/{value}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        member = Member(f"blobs/{algorithm}/{value}".encode(), stat.S_IFREG | 0o644, mtime=mtime)
        member.size = os.fstat(source).st_size
        tar.add(member, source)
        os.close(source)
    for name, text in job["documents"].items():
        tar.add_bytes(name, base64.b64decode(text))
    tar.close()
    return {"entries": tar.entries}


JOBS = {"layer": layer, "repack": repack, "save": save}
