"""Jobs that pack: a writable layer as a blob, plain archives compressed, images for `docker save`."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import stat
from collections.abc import Callable
from typing import Any

from sagong_image_overlay.compression import Decompressor, compression_of
from sagong_image_overlay.confine import PARSER, READER, confine
from sagong_image_overlay.reading import member_of, read_xattrs
from sagong_image_overlay.tarout import Member, PackedSink, RawSink, TarWriter
from sagong_image_overlay.tree import open_directory
from sagong_image_overlay.writer import is_whiteout

__all__ = ["JOBS"]

Report = Callable[[dict[str, Any]], None]


class LayerArchive:
    """Puts the writable layer alone into a tar, deletions as OCI whiteouts."""

    def __init__(self, tar: TarWriter) -> None:
        self._tar = tar
        self._links: dict[tuple[int, int], bytes] = {}

    def put(self, directory: int, prefix: bytes) -> None:
        """All entries of a directory."""
        for name in sorted(os.fsencode(text) for text in os.listdir(directory)):
            with contextlib.suppress(FileNotFoundError):
                self._entry(directory, name, prefix)

    def _entry(self, directory: int, name: bytes, prefix: bytes) -> None:
        status = os.lstat(name, dir_fd=directory)
        member = member_of(prefix + name, status)
        if is_whiteout(status):
            hidden = Member(prefix + b".wh." + name, stat.S_IFREG, mtime=member.mtime)
            self._tar.add(hidden)
        elif stat.S_ISDIR(status.st_mode):
            self._directory(directory, name, member)
        elif not stat.S_ISSOCK(status.st_mode):
            self._file(directory, name, member, status)

    def _directory(self, directory: int, name: bytes, member: Member) -> None:
        opened = open_directory(name, directory)
        try:
            member.xattrs = read_xattrs(opened)
            self._tar.add(member)
            if _opaque(opened):
                self._tar.add(Member(member.name + b"/.wh..wh..opq", stat.S_IFREG))
            self.put(opened, member.name + b"/")
        finally:
            os.close(opened)

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
            finally:
                os.close(opened)
        else:
            self._tar.add(member)
        if status.st_nlink > 1:
            self._links[known] = member.name


def _opaque(opened: int) -> bool:
    with contextlib.suppress(OSError):
        return os.getxattr(opened, b"user.overlay.opaque") in (b"y", b"x")
    return False


def layer(job: dict[str, Any], descriptors: list[int], report: Report) -> dict[str, Any]:
    """Pack the directory `upper` as a layer into the first descriptor."""
    upper = open_directory(job["upper"])
    confine(READER, job["jail"])
    sink = PackedSink(descriptors[0])
    tar = TarWriter(sink)
    LayerArchive(tar).put(upper, b"")
    tar.close()
    return {
        "diff_id": sink.diff_id,
        "digest": sink.digest,
        "size": sink.size,
        "entries": tar.entries,
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
    """Archive `documents` (base64) and `blobs` of the content store `root`."""
    confine(READER, job["root"])
    tar = TarWriter(RawSink(descriptors[0]))
    for name in ("blobs", "blobs/sha256", "blobs/sha512"):
        if name != "blobs/sha512" or any(blob.startswith("sha512:") for blob in job["blobs"]):
            tar.add(Member(name.encode(), stat.S_IFDIR | 0o755))
    for digest in job["blobs"]:
        algorithm, _, value = digest.partition(":")
        source = os.open(f"{algorithm}/{value}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        member = Member(f"blobs/{algorithm}/{value}".encode(), stat.S_IFREG | 0o644)
        member.size = os.fstat(source).st_size
        tar.add(member, source)
        os.close(source)
    for name, text in job["documents"].items():
        tar.add_bytes(name, base64.b64decode(text))
    tar.close()
    return {"entries": tar.entries}


JOBS = {"layer": layer, "repack": repack, "save": save}
