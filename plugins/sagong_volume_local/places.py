"""Directories opened without being led astray: no link out of a volume, none into the host."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from sagong.errors import FailedPrecondition, InvalidArgument
from sagong.linux import syscalls

__all__ = ["open_inside", "open_plain", "plain_subpath"]

_HOW = struct.Struct("=QQQ")
_NO_MAGIC, _NO_LINKS, _BENEATH = 0x02, 0x04, 0x08
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_ANYTHING = os.O_PATH | os.O_CLOEXEC


def _open(directory: int, path: str, resolve: int, flags: int = _DIRECTORY) -> int:
    how = ctypes.create_string_buffer(_HOW.pack(flags, 0, resolve | _NO_MAGIC), _HOW.size)
    return syscalls.call("openat2", directory, os.fsencode(path), how, _HOW.size, path=path)


def plain_subpath(subpath: str) -> tuple[str, ...]:
    """The parts of a path inside a volume; InvalidArgument for one that would lead out."""
    parts = tuple(part for part in subpath.split("/") if part not in ("", "."))
    if subpath.startswith("/") or ".." in parts or "\0" in subpath:
        raise InvalidArgument(f"subpath {subpath!r} must be relative and stay in its volume")
    return parts


def open_inside(root: int, parts: tuple[str, ...], shown: str, *, make: bool) -> int:
    """A directory or file below `root`; no link leads out of it. Missing directories are made."""
    try:
        return _open(root, "/".join(parts), _BENEATH, _ANYTHING)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise FailedPrecondition(
                f"subpath {shown}: path concatenation escapes the base directory: a link leads out"
            ) from None
        if error.errno == errno.ENOENT and not make:
            text = f"cannot access path {shown}: no such file or directory"
            raise FailedPrecondition(text) from None
    current = os.dup(root)
    try:
        for position in range(len(parts)):
            path = "/".join(parts[: position + 1])
            following = _open_or_make(root, current, path, parts[position], shown)
            os.close(current)
            current = following
    except BaseException:
        os.close(current)
        raise
    return current


def _open_or_make(root: int, current: int, path: str, name: str, shown: str) -> int:
    try:
        return _open(root, path, _BENEATH)
    except OSError as error:
        if error.errno == errno.ENOTDIR:
            raise FailedPrecondition(f"subpath {shown}: {path} is not a directory") from None
        if error.errno not in (errno.ENOENT,):
            raise FailedPrecondition(f"subpath {shown}: {error}") from None
    try:
        os.mkdir(name, 0o755, dir_fd=current)
        if os.geteuid() != 0:
            os.chown(name, 0, 0, dir_fd=current, follow_symlinks=False)
    except FileExistsError:
        # A link that leads nowhere: following it by hand would be the very escape.
        raise FailedPrecondition(f"subpath {shown}: {path} is a link to nothing") from None
    return _open(root, path, _BENEATH)


def open_plain(path: str, base: str) -> int:
    """A directory by its path without following any link: below `base` at least, or at all."""
    if base and path.startswith(f"{base}/"):
        root = os.open(base, _DIRECTORY)
        try:
            return _open(root, path[len(base) + 1 :], _BENEATH | _NO_LINKS)
        finally:
            os.close(root)
    return _open(-100, path, _NO_LINKS)
