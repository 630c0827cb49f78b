"""Pages that forks write to are found once and copied in one go."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import struct
from collections.abc import Callable

from sagong.shim import lean, pages

_PAGES = 64
_TOUCHED = (3, 4, 5, 40)


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _forked(work: Callable[[], int]) -> tuple[int, int, int]:
    """A child that has worked: its pid, what it tells, and what it waits for to end."""
    told, tell = os.pipe()
    waits, end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(end)
        os.write(tell, work().to_bytes(8, "little"))
        os.read(waits, 1)
        os._exit(0)
    result = int.from_bytes(os.read(told, 8), "little")
    for descriptor in (told, tell, waits):
        os.close(descriptor)
    return pid, result, end


def test_what_a_child_has_written_to_is_copied_ahead_by_the_next() -> None:
    area = mmap.mmap(-1, _PAGES * lean.PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.write(b"x" * len(area))
    begin = ctypes.addressof(ctypes.c_char.from_buffer(area))

    def touch() -> int:
        before = _faults()
        for number in _TOUCHED:
            area[number * lean.PAGE] = 1
        return _faults() - before

    def touch_after_copying() -> int:
        pages.copy(ranges)
        return touch()

    pid, faults, end = _forked(touch)
    ranges = pages.written(pid)
    os.close(end)
    os.waitpid(pid, 0)
    assert faults >= len(_TOUCHED)
    inside = [
        ((start - begin) // lean.PAGE, length // lean.PAGE)
        for start, length in struct.iter_unpack("=QQ", ranges)
        if begin <= start < begin + len(area)
    ]
    assert inside == [(3, 3), (40, 1)]
    pid, faults, end = _forked(touch_after_copying)
    os.close(end)
    os.waitpid(pid, 0)
    assert faults < len(_TOUCHED)
    assert pages.written(pid) == b"", "a child that has ended has no pages"
