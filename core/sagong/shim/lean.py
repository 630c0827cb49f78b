"""What monitors do often or early, in ways that touch few pages of memory.

A page that a monitor touches (a reference count is enough) is no longer shared with the launcher.
Generic bindings build objects for each argument; these few calls go straight to the C library.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from sagong.linux.syscall_table import machine, numbers

__all__ = [
    "argument_area",
    "become_subreaper",
    "end_with",
    "fork",
    "fork_sibling",
    "reduce_bounding_set",
    "set_namespace",
    "show_title",
    "start_ticks",
    "unshare",
]

_LIBC = ctypes.CDLL(None, use_errno=True)
_PRCTL = _LIBC.prctl
_PRCTL.argtypes = (ctypes.c_int, ctypes.c_ulong)
_SETNS = _LIBC.setns
_SETNS.argtypes = (ctypes.c_int, ctypes.c_int)
_UNSHARE = _LIBC.unshare
_UNSHARE.argtypes = (ctypes.c_int,)
# With the interpreter's lock held: it is a property of the process, and the child goes on with it.
_HELD = ctypes.PyDLL(None, use_errno=True)
_FORK = _HELD.fork
_CALL = _HELD.syscall
_CALL.restype = ctypes.c_long
_CALL.argtypes = (ctypes.c_long,) * 6
_CLONE = numbers(machine())["clone"]
_CLONE_PARENT = 0x00008000
_PR_SET_CHILD_SUBREAPER = 36
_PR_CAPBSET_DROP = 24


def _checked(result: int, name: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def fork() -> int:
    """fork(2) without what `os.fork` does after it, which is only for threads and reseeding.

    There are no threads here, and those steps alone touch 0.6 MB in each child.
    """
    pid = int(_FORK())
    _checked(pid, "fork")
    return pid


def end_with(work: Callable[[], None]) -> NoReturn:
    """In a fork: do its work and end, and never go back to what it was forked from.

    A defect is told on standard error: nobody else would hear of it.
    """
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def fork_sibling() -> int:
    """clone(2): a child of one's parent.

    As in `fork` nothing is done after it; here not even by the C library, whose only memory of the
    process's number is for threads.
    """
    pid = int(_CALL(_CLONE, _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0))
    _checked(pid, "clone")
    return pid


def become_subreaper() -> None:
    """Orphaned descendants become this process's children."""
    _checked(_PRCTL(_PR_SET_CHILD_SUBREAPER, 1), "prctl")


def reduce_bounding_set(keep: int, last: int) -> None:
    """Drop what is not in `keep` without asking first: dropping what is not there is no error."""
    for number in range(last + 1):
        if not keep >> number & 1:
            _checked(_PRCTL(_PR_CAPBSET_DROP, number), "prctl")


def set_namespace(descriptor: int, kind: int) -> None:
    """setns(2)."""
    _checked(_SETNS(descriptor, kind), "setns")


def unshare(flags: int) -> None:
    """unshare(2)."""
    _checked(_UNSHARE(flags), "unshare")


def _stat_fields(path: str) -> list[bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # The second field is the command in parentheses and may itself hold spaces and ")".
        return os.read(descriptor, 4096).rpartition(b")")[2].split()
    finally:
        os.close(descriptor)


def start_ticks(pid: int) -> int:
    """When a process began, in clock ticks since boot."""
    return int(_stat_fields(f"/proc/{pid}/stat")[19])


def argument_area() -> tuple[int, int]:
    """Where the kernel put this program's arguments: the same in all forks."""
    fields = _stat_fields("/proc/self/stat")
    return int(fields[45]), int(fields[46])


def show_title(title: str, area: tuple[int, int]) -> None:
    """The command line and name that ps shows, written where the arguments were."""
    raw = title.encode()
    begin, end = area
    descriptor = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    os.write(descriptor, raw[:15])
    os.close(descriptor)
    room = end - begin
    # A last byte that isn't NUL tells the kernel to end the line at the first NUL.
    line = raw[: room - 2].ljust(room - 1, b"\0") + b"."
    descriptor = os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC)
    os.pwrite(descriptor, line, begin)
    os.close(descriptor)
