"""A thread whose programs wait for no disk: for what is thrown away if the machine goes down meanwhile.

dpkg synchronizes its own files even with `force-unsafe-io`: ten thousand times for one Debian.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

__all__ = ["run"]

# prctl(2), linux/seccomp.h, linux/audit.h
_SET_SECCOMP, _MODE_FILTER = 22, 2
_X86_64 = 0xC000003E
# linux/bpf_common.h
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ARCHITECTURE, _NUMBER = 4, 0
_ALLOW, _SUCCEED = 0x7FFF0000, 0x00050000
# fsync, fdatasync, sync, sync_file_range, syncfs
_CALLS = (74, 75, 162, 277, 306)


def run(work: Callable[[], None]) -> None:
    """Do it in a thread that ends with it; what it starts, threads and programs, is as it is."""
    with ThreadPoolExecutor(1, initializer=_succeed_at_once) as thread:
        thread.submit(work).result()


def _succeed_at_once() -> None:
    """Let this thread's synchronizing calls do nothing; where that is refused, all is as ever."""
    code = _filter()
    kept = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(kept))
    ctypes.CDLL(None).prctl(_SET_SECCOMP, _MODE_FILTER, program, 0, 0)


def _filter() -> bytes:
    """As seccomp(2) shows it: another architecture's numbers are other calls'."""
    count = len(_CALLS)
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 0, count + 1, _X86_64),
        (_LOAD, 0, 0, _NUMBER),
    ]
    lines += [(_IF_EQUAL, count - position, 0, call) for position, call in enumerate(_CALLS)]
    lines += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _SUCCEED)]
    return b"".join(struct.pack("HBBI", *line) for line in lines)
