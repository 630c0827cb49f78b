"""Memory that forks share although Python counts references in it.

A forked process copies every page in which it touches an object, because touching counts a
reference. So `Pristine.make` is called once, before the first fork. It keeps a sealed copy of the
allocator's full pools and maps it privately in their place; every object there gets so large a count
that it is never freed. Then counts mean nothing any more: a page of a child that differs from the
copy in counts alone can be dropped at any time, and the next access reads the copy, which all share
(`settle`). Pages that differ in anything else stay as they are.

    pool     16 KiB of blocks of one size, with a header; full ones only, so that nothing new is
             ever put into them (Objects/obmalloc.c)
    object   begins with its count: a word at an address that `gc` can tell
    code     CPython 3.11 also counts its first calls, until it is specialised (`co_warmup`)

Only CPython with its own allocator has this form; elsewhere there is nothing to make, and nothing
is shared beyond what a fork shares. Standard library only.
"""

from __future__ import annotations

import array
import bisect
import contextlib
import ctypes
import fcntl
import gc
import itertools
import mmap
import operator
import os
import struct
import sys
import time
import types
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

__all__ = ["Pristine"]

_PAGE = 4096
_POOL = 16384
_HEADER = struct.Struct("=IIQQQIIII")
_CLASSES = 32
_CHUNK_HEADER = 16
# The collector's header and the pointers to attributes, before the object itself.
_OBJECT_HEADER = 32
_MOST_FILLERS = 1 << 16
# Above what a process can ever count down, below what would overflow.
_FOREVER = 1 << 40
# Where CPython 3.11 has a function's version, and a code object's flags with the count of calls
# above them, which is negative until the code is specialised.
_VERSION, _CALLS = (128, 48) if sys.version_info[:2] == (3, 11) else (0, 0)
_CODE_PARTS = operator.attrgetter(
    "co_consts", "co_names", "co_name", "co_qualname", "co_filename", "co_linetable",
    "co_exceptiontable",
)  # fmt: skip
_MAP_FIXED = 0x10
# The upper three bits of a page's entry: present, swapped, of a file. Neither a file's nor absent.
_OWN = (0b100, 0b010)
_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
_PAGE_WORDS = struct.Struct(f"={_PAGE // 8}Q")
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

# Between a comparison and its consequence nothing may happen to the pages but counting of objects
# that live for ever. So the interpreter's lock is kept (PyDLL), and errno is not asked for: ctypes
# keeps it in an object that `gc` does not know, whose count would be set back while it is held.
_libc = ctypes.PyDLL(None)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class _Run(NamedTuple):
    """Adjacent pages: where they are, how many bytes, and where the copy has them."""

    address: int
    length: int
    offset: int


class _Objects(NamedTuple):
    """Addresses of objects that live for ever, in order, and of numbers that may be set back.

    `versions` are those of functions, 0 until specialised code asks; `calls` those of code's calls.
    """

    counts: array.array[int]
    versions: array.array[int]
    calls: array.array[int]


class Pristine:
    """The copy, and which parts of memory it lies under."""

    def __init__(self, runs: list[_Run], objects: _Objects, keep: object = None) -> None:
        """Copy the runs and map the copy in their place."""
        self._objects = objects
        self._keep = keep
        fd = os.memfd_create("sagong-pristine", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        for run in runs:
            os.pwrite(fd, _memory(run.address, run.length), run.offset)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        size = sum(run.length for run in runs)
        place = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_PRIVATE, fd, 0)
        self._copy = _memory(place, size)
        flags = mmap.MAP_PRIVATE | _MAP_FIXED

        def lay_under(run: _Run) -> bool:
            found = _libc.mmap(run.address, run.length, _READ_WRITE, flags, fd, run.offset)
            return bool(found == run.address)

        self._runs = self._apply(lay_under, runs)
        os.close(fd)

    @classmethod
    def make(cls) -> Pristine | None:
        """Freeze what is in memory now; None where this Python's memory has another form."""
        if not _is_known():
            return None
        _warm_up()
        gc.collect()
        _libc.malloc_trim(0)
        with _undisturbed():
            fillers = _fill()
            addresses = _addresses()
            # Numbers in arrays, since objects made here would fill the very pools that are judged.
            spans = array.array("Q")
            for pages in (_full_pools(addresses), _settled_heap(addresses)):
                for span in pages:
                    spans.extend(span)
            if not spans:
                return None
            runs = list(_joined(spans))
            objects = _make_immortal(runs, addresses)
            del addresses
            _libc.malloc_trim(0)
            gc.freeze()
            return cls(runs, objects, fillers)

    def settle(self) -> int:
        """Drop this process's own copies of pages that differ in counts only; their size at most."""
        return sum(run.length for run in self._apply(_drop, self._runs))

    def _apply(self, change: Callable[[_Run], bool], runs: list[_Run]) -> list[_Run]:
        """Change what is as the copy has it but for counts, each part at once when that is known."""
        pages = _open_pagemap()
        try:
            with _undisturbed():
                return [part for run in runs for part in self._parts(run, pages) if change(part)]
        finally:
            if pages >= 0:
                os.close(pages)

    def _parts(self, run: _Run, pages: int) -> Iterator[_Run]:
        length = 0
        for place, own in zip(range(0, run.length, _PAGE), _are_own(run, pages)):
            if own and self._same(run.address + place, run.offset + place):
                length += _PAGE
                continue
            if length:
                yield _Run(run.address + place - length, length, run.offset + place - length)
            length = 0
        if length:
            place = run.length - length
            yield _Run(run.address + place, length, run.offset + place)

    def _same(self, address: int, offset: int) -> bool:
        now = ctypes.string_at(address, _PAGE)
        then = self._copy[offset : offset + _PAGE].tobytes()
        if now == then:
            return True
        pairs = zip(_PAGE_WORDS.unpack(now), _PAGE_WORDS.unpack(then))
        changed = ((address + 8 * word, a) for word, (a, b) in enumerate(pairs) if a != b)
        return all(self._may_be_set_back(place, a) for place, a in changed)

    def _may_be_set_back(self, address: int, now: int) -> bool:
        """A count of calls only as long as it is negative: the code itself is unchanged then."""
        counts, versions, calls = self._objects
        return (
            _has(counts, address)
            or _has(versions, address)
            or (now >> 47 == 1 and _has(calls, address))
        )


def _is_known() -> bool:
    """Whether this Python counts and allocates as said above."""
    known = sys.implementation.name == "cpython" and (3, 11) <= sys.version_info < (3, 14)
    return known and "t" not in sys.abiflags and sys.getallocatedblocks() > 0


def _open_pagemap() -> int:
    """What tells which pages are this process's own; -1 where there is no /proc to tell."""
    try:
        return os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def _are_own(run: _Run, pages: int) -> Iterable[bool]:
    """For each page whether it may be other than the copy (admin-guide/mm/pagemap.rst)."""
    number = run.length // _PAGE
    if pages < 0:
        return itertools.repeat(True, number)
    raw = os.pread(pages, number * 8, run.address // _PAGE * 8)
    return [entry >> 61 in _OWN for entry in struct.unpack(f"={len(raw) // 8}Q", raw)]


def _drop(run: _Run) -> bool:
    done: int = _libc.madvise(run.address, run.length, mmap.MADV_DONTNEED)
    return done == 0


def _has(numbers: array.array[int], number: int) -> bool:
    place = bisect.bisect_left(numbers, number)
    return place < len(numbers) and numbers[place] == number


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """No collection, which may change any object, and no other thread of this interpreter."""
    enabled, interval = gc.isenabled(), sys.getswitchinterval()
    gc.disable()
    sys.setswitchinterval(1000.0)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        time.sleep(0)  # a thread that began to wait meanwhile would do so for the long interval
        if enabled:
            gc.enable()


def _warm_up() -> None:
    """Use all of this module on pages of its own: the code that settles must not change any more."""
    pages = mmap.mmap(-1, 16 * _PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    counts = array.array("Q", range(address, address + len(pages), 128))
    other = array.array("Q", range(address + 64, address + len(pages), 128))
    trial = Pristine([_Run(address, len(pages), 0)], _Objects(counts, other, other))
    for number in range(32):
        for place in range(0, len(pages), 2 * _PAGE):
            pages[place] = number + 1
            pages[place + 64] = number + 1
        trial.settle()


def _memory(address: int, length: int) -> memoryview:
    return memoryview((ctypes.c_char * length).from_address(address)).cast("B")


def _fill() -> list[object]:
    """Objects of every size, until the next of each comes from a new pool: older ones are full."""
    kept: list[object] = []
    for size in range(16, _CLASSES * 16 + 1, 16):
        for _ in range(_MOST_FILLERS):
            kept.append(_object(size, len(kept)))
            if ctypes.c_uint.from_address(id(kept[-1]) & -_POOL).value <= 2:
                break
    return kept


def _object(size: int, number: int) -> object:
    """An object of just this size, a multiple of 16."""
    if size == 16:
        return object()
    return (1 << 40) + number if size == 32 else bytes(size - 33)


def _addresses() -> array.array[int]:
    """Of all objects that the collector knows or that these refer to, in order."""
    level: list[object] = gc.get_objects()
    seen = set(map(id, level))
    while level:
        referents = gc.get_referents(*level)
        for item in level:
            if type(item) is types.CodeType:  # the collector does not look into code
                referents += _CODE_PARTS(item)
            elif type(item) is str:
                hash(item)
        new = _unseen(referents, seen)
        seen.update(new)
        level = list(new.values())
    return array.array("Q", sorted(seen))


def _unseen(items: list[object], seen: set[int]) -> dict[int, object]:
    return {id(item): item for item in items if id(item) not in seen}


def _types() -> list[type]:
    """All types. Each gets the version that it gets anyway when it is first asked for something."""
    found = [item for item in gc.get_objects() if issubclass(type(item), type)]
    for kind in found:
        with contextlib.suppress(AttributeError):
            type.__getattribute__(kind, "_sagong_pristine")
    return found


def _full_pools(addresses: array.array[int]) -> Iterator[tuple[int, int]]:
    """Pools of the allocator that hold these and have no free block."""
    regions = list(_regions(""))
    last = begin = end = 0
    for address in addresses:
        pool = address & -_POOL
        if pool == last:
            continue
        last = pool
        while regions and pool >= end:
            begin, end = regions.pop(0)
        if begin <= pool and pool + _POOL <= end and _is_full(pool):
            yield pool, pool + _POOL


def _settled_heap(addresses: array.array[int]) -> Iterator[tuple[int, int]]:
    """Pages of the C library's heap that hold nothing but objects and containers' tables.

    What else is there, a library's own state, may be changed at any time by any thread.
    """
    for begin, end in _regions("[heap]"):
        chunks = _chunks(begin, end)
        known = _python_chunks(chunks, addresses) if chunks else set()
        page = begin
        for start, stop in zip(chunks, [*chunks[1:], end]):
            if start in known:
                continue
            if page < start & -_PAGE:
                yield page, start & -_PAGE
            page = -(-stop // _PAGE) * _PAGE


def _chunks(begin: int, end: int) -> list[int]:
    """Starts of the heap's chunks, as glibc has them (malloc/malloc.c); none if it is another."""
    words = _memory(begin, end - begin).cast("Q")
    chunks, place = [], 0
    while place < len(words):
        chunks.append(begin + place * 8)
        size = (words[place + 1] & ~7) // 8
        if size < 4 or place + size > len(words):
            return []
        place += size
    return chunks


def _python_chunks(chunks: list[int], addresses: array.array[int]) -> set[int]:
    """Chunks that are objects, or tables to which a container points."""
    room = {start + _CHUNK_HEADER: start for start in chunks}
    known = set()
    first, last = (bisect.bisect_left(addresses, end) for end in (chunks[0], chunks[-1]))
    for address in addresses[first:last]:
        start = chunks[bisect.bisect_right(chunks, address) - 1]
        if address - start <= _CHUNK_HEADER + _OBJECT_HEADER:
            known.add(start)
    kinds = {dict, list, set, frozenset, *map(type, _types())}
    for item in gc.get_objects():
        if type(item) in kinds:
            size = type(item).__basicsize__
            words = memoryview(ctypes.string_at(id(item), size)).cast("Q")
            known.update(room[word] for word in words[2:] if word in room)
    return known


def _regions(name: str) -> Iterator[tuple[int, int]]:
    """Writable memory of this name; pools are where there is none."""
    with open("/proc/self/maps") as lines:
        for line in lines:
            fields = line.split()
            if fields[1] == "rw-p" and fields[5:] == ([name] if name else []):
                begin, _, end = fields[0].partition("-")
                yield int(begin, 16), int(end, 16)


def _is_full(pool: int) -> bool:
    header = ctypes.string_at(pool, _HEADER.size)
    blocks, _, free, _, _, _, size_class, _, most = _HEADER.unpack(header)
    size = (size_class + 1) * 16
    whole = size_class < _CLASSES and blocks == (_POOL - _HEADER.size) // size
    return bool(whole and free == 0 and most == _POOL - size)


def _joined(spans: array.array[int]) -> Iterator[_Run]:
    address = length = offset = 0
    for begin, end in zip(spans[::2], spans[1::2]):
        if length and begin != address + length:
            yield _Run(address, length, offset)
            offset += length
            length = 0
        address = address if length else begin
        length += end - begin
    if length:
        yield _Run(address, length, offset)


def _make_immortal(runs: list[_Run], addresses: array.array[int]) -> _Objects:
    """Raise the counts of all objects in the runs."""
    counts, versions, calls = array.array("Q"), array.array("Q"), array.array("Q")
    function, code = id(types.FunctionType), id(types.CodeType)
    for run in runs:
        words = _memory(run.address, run.length).cast("Q")
        first = bisect.bisect_left(addresses, run.address)
        inside = addresses[first : bisect.bisect_left(addresses, run.address + run.length)]
        for address in inside:
            word = (address - run.address) >> 3
            words[word] += _FOREVER
            kind = words[word + 1]
            if kind == function and _VERSION:
                versions.append(address + _VERSION)
            elif kind == code and _CALLS:
                calls.append(address + _CALLS)
        counts.extend(inside)
    return _Objects(counts, versions, calls)
