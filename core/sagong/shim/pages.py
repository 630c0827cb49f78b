"""Pages that forks will write to: found out once, then copied ahead by who has time for it.

A fork shares its parent's pages until it writes to them, and each first write is a fault of its
own. What a child does before its program differs little from one to the next, so what one has
written to is what the next will. Nothing depends on that: pages are only copied sooner, or in vain.
A page costs the same in either way, three microseconds, so it is of use where somebody waits.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from itertools import chain

from sagong.shim import lean

__all__ = ["Pages", "copy", "written"]

_RANGE = struct.Struct("=QQ")
# As many as go in one message.
_MOST = 1000
# Documentation/admin-guide/mm/pagemap.rst: in memory, and mapped by nobody else.
_OWN = 1 << 63 | 1 << 56


class Pages:
    """What is known of the pages that first processes write to, as `written` told it."""

    def __init__(self) -> None:
        self.ranges: bytes | None = None


def written(pid: int) -> bytes:
    """Ranges of a child's private memory that are its own alone, for `copy`; none if it has ended."""
    found = []
    try:
        for first, own in _runs(pid):
            found.append(_RANGE.pack(first, own))
    except OSError:
        return b""
    return b"".join(found[:_MOST])


def copy(ranges: bytes) -> None:
    """Have these pages copied now; those that are not there are left out."""
    for start, length in _RANGE.iter_unpack(ranges):
        lean.populate(start, length)


def _runs(pid: int) -> Iterator[tuple[int, int]]:
    """Beginning and length of each run of pages that the process has for itself."""
    size = lean.PAGE
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as table:
        for begin, end in _writable(pid):
            table.seek(begin // size * 8)
            entries = array("Q", table.read((end - begin) // size * 8))
            first = -1
            for number, entry in enumerate(chain(entries, (0,))):
                own = entry & _OWN == _OWN
                if own and first < 0:
                    first = number
                elif not own and first >= 0:
                    yield begin + first * size, (number - first) * size
                    first = -1


def _writable(pid: int) -> Iterator[tuple[int, int]]:
    """Private mappings that may be written to."""
    with open(f"/proc/{pid}/maps", encoding="utf-8") as table:
        for line in table:
            place, rights, *_ = line.split()
            if rights == "rw-p":
                begin, _, end = place.partition("-")
                yield int(begin, 16), int(end, 16)
