"""Checksums of what is copied: names, kinds, modes, owners, links and contents; times don't count."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from sagong_builder.context.archive import Archive
from sagong_builder.context.tree import Entry, Kind, Tree

__all__ = ["checksum"]


def _facts(path: str, entry: Entry) -> bytes:
    fields = (
        path,
        entry.kind.value,
        f"{entry.mode:o}",
        str(entry.uid),
        str(entry.gid),
        str(entry.size),
        entry.link,
        f"{entry.device[0]}:{entry.device[1]}" if entry.kind in _DEVICES else "",
        *(f"{key}={value}" for key, value in entry.xattrs),
    )
    return "\0".join(fields).encode("utf-8", "surrogateescape") + b"\0\0"


_DEVICES = (Kind.CHARACTER, Kind.BLOCK)


def _entries(entry: Entry) -> Iterator[tuple[str, Entry]]:
    yield "", entry
    if entry.is_directory:
        yield from Tree(root=entry).walk()


def checksum(archive: Archive, entry: Entry, name: str = "") -> str:
    """Of a file, or of a directory with all below; 64 hexadecimal digits. `name` is its own."""
    total = hashlib.sha256()
    for path, found in _entries(entry):
        total.update(_facts(path or name, found))
        if found.kind is Kind.FILE:
            content = hashlib.sha256()
            for piece in archive.content(found):
                content.update(piece)
            total.update(content.digest())
    return total.hexdigest()
