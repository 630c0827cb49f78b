"""Marks of overlayfs on disk: whiteouts are 0/0 devices, opaque directories have an attribute.

Source: the kernel's Documentation/filesystems/overlayfs.rst (mount option `userxattr`).
"""

from __future__ import annotations

import os
import stat

__all__ = ["OPAQUE", "WHITEOUT_DEVICE", "is_directory", "is_whiteout", "set_opaque"]

WHITEOUT_DEVICE = os.makedev(0, 0)
OPAQUE = b"user.overlay.opaque"


def is_directory(path: bytes, directory: int | None) -> bool:
    """Whether it is a directory itself, not a link to one."""
    return stat.S_ISDIR(os.lstat(path, dir_fd=directory).st_mode)


def is_whiteout(facts: os.stat_result) -> bool:
    """Whether overlayfs takes it for a deletion."""
    return stat.S_ISCHR(facts.st_mode) and facts.st_rdev == WHITEOUT_DEVICE


def set_opaque(path: bytes, directory: int | None) -> None:
    """Let nothing of lower layers be seen in this directory."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    opened = os.open(path, flags, dir_fd=directory)
    try:
        os.setxattr(opened, OPAQUE, b"y")
    finally:
        os.close(opened)
