"""Paths inside a root that strangers filled, walked so that no link of theirs leads out of it.

Who builds a container stands in its root (by chroot or pivot_root): ordinary links stay inside by
themselves. A link to `/proc/self/fd/N` does not: the kernel goes to what the builder has open, the
host's root among it (CVE-2024-21626). Such links of proc ("magic links" in openat2(2)) are never
followed here; where one is met, its text is what counts, as if it were an ordinary link.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from typing import Literal

from sagong.linux import syscalls

__all__ = ["open_file", "open_in_proc", "open_place", "standing_at"]

_HOW = struct.Struct("=QQQ")
_NO_MOUNTS, _NO_MAGIC, _BENEATH = 0x01, 0x02, 0x08
_AT_FDCWD = -100
_PLACE = os.O_PATH | os.O_CLOEXEC
_STATFS_SIZE = 128
_PROC_SUPER_MAGIC = 0x9FA0


def _open(path: str, flags: int, resolve: int = _NO_MAGIC, directory: int = _AT_FDCWD) -> int:
    how = ctypes.create_string_buffer(_HOW.pack(flags | os.O_CLOEXEC, 0, resolve), _HOW.size)
    return syscalls.call("openat2", directory, os.fsencode(path), how, _HOW.size, path=path)


def open_file(path: str, flags: int) -> int:
    """Open what is there; OSError ELOOP if only a link of proc leads to it."""
    return _open(path, flags)


def open_place(path: str, make: Literal["", "directory", "file"] = "") -> tuple[int, bool]:
    """A descriptor (O_PATH) of an absolute path, and whether it was missing and has been made.

    Missing parents are made, too, also where a dangling link leads. OSError otherwise.
    """
    try:
        return _open(path, _PLACE), False
    except OSError as error:
        if error.errno != errno.ELOOP and (error.errno != errno.ENOENT or not make):
            raise
    return _walk(os.path.realpath(path), make)


def _walk(path: str, make: str) -> tuple[int, bool]:
    """Along a path without links; one that somebody puts there meanwhile is not followed."""
    current, made = os.open("/", _PLACE), False
    *parents, last = path.split("/")[1:] or [""]
    try:
        for name in parents:
            current = _step(current, name, "directory" if make else "")[0]
        if last:
            current, made = _step(current, last, make)
    except BaseException:
        os.close(current)
        raise
    return current, made


def _step(current: int, name: str, make: str) -> tuple[int, bool]:
    """From a directory, which is closed, to what is in it."""
    made = False
    flags = _PLACE | os.O_NOFOLLOW
    try:
        found = os.open(name, flags, dir_fd=current)
    except FileNotFoundError:
        if not make:
            raise
        _make(current, name, make)
        found, made = os.open(name, flags, dir_fd=current), True
    os.close(current)
    return found, made


def _make(directory: int, name: str, kind: str) -> None:
    with contextlib.suppress(FileExistsError):
        if kind == "directory":
            os.mkdir(name, dir_fd=directory)
        else:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            os.close(os.open(name, flags, 0o644, dir_fd=directory))


@contextlib.contextmanager
def standing_at(path: str, *, make: bool = True) -> Iterator[bool]:
    """With a directory of the root as the working directory; whether it had to be made.

    For calls that take no descriptor. Afterwards the root is the working directory again.
    """
    descriptor, made = open_place(path, "directory" if make else "")
    try:
        os.fchdir(descriptor)
    finally:
        os.close(descriptor)
    try:
        yield made
    finally:
        os.chdir("/")


def open_in_proc(path: str, flags: int) -> int:
    """A file of the root's own proc, by its path below /proc.

    OSError if /proc is no proc, or something else is mounted on the way: who writes there means the
    kernel (CVE-2025-52881).
    """
    proc = os.open("/proc", _PLACE | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if _magic(proc) != _PROC_SUPER_MAGIC:
            raise OSError(errno.EXDEV, "open: it is no proc filesystem", "/proc")
        return _open(path, flags, _NO_MOUNTS | _NO_MAGIC | _BENEATH, proc)
    finally:
        os.close(proc)


def _magic(descriptor: int) -> int:
    buffer = ctypes.create_string_buffer(_STATFS_SIZE)
    syscalls.call("fstatfs", descriptor, buffer)
    return int(struct.unpack_from("=q", buffer)[0])
