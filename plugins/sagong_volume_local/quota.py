"""Project quotas: a limit for all that is below a directory, kept by the filesystem itself."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from pathlib import Path

from sagong.linux import syscalls

__all__ = ["FIRST_PROJECT", "clear_limit", "has_quotas", "set_limit"]

# Numbers below are the administrator's.
FIRST_PROJECT = 0x5A000000
_PROJECT = 2
_GET_INFO, _SET_QUOTA = 0x800005, 0x800008
_BLOCK = 1024
_BLOCK_LIMITS = 1
# struct if_dqblk: limits and use of blocks and inodes, times, and which of them are valid.
_LIMITS = struct.Struct("=8QI4x")
_INFO = struct.Struct("=QQII")
# struct fsxattr, FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR, FS_XFLAG_PROJINHERIT
_ATTRIBUTES = struct.Struct("=IIIII8x")
_GET, _SET, _INHERIT = 0x801C581F, 0x401C5820, 0x200


def _quota(
    directory: int, command: int, identity: int, buffer: ctypes.Array[ctypes.c_char]
) -> None:
    syscalls.call("quotactl_fd", directory, command << 8 | _PROJECT, identity, buffer)


def has_quotas(path: Path) -> bool:
    """Whether the filesystem keeps project quotas and they are on."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _quota(directory, _GET_INFO, 0, ctypes.create_string_buffer(_INFO.size))
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):
            return False
        raise
    finally:
        os.close(directory)
    return True


def set_limit(path: Path, project: int, size: int) -> None:
    """Count what is below the directory as this project, and limit it to `size` bytes."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        raw = bytearray(_ATTRIBUTES.size)
        fcntl.ioctl(directory, _GET, raw)
        flags, extent, count, _, cow = _ATTRIBUTES.unpack(raw)
        marked = _ATTRIBUTES.pack(flags | _INHERIT, extent, count, project, cow)
        fcntl.ioctl(directory, _SET, marked)
        _limit(directory, project, size)
    finally:
        os.close(directory)


def clear_limit(path: Path, project: int) -> None:
    """Lift a project's limit, so that its number can be used again."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _limit(directory, project, 0)
    finally:
        os.close(directory)


def _limit(directory: int, project: int, size: int) -> None:
    blocks = (size + _BLOCK - 1) // _BLOCK
    limits = _LIMITS.pack(blocks, blocks, 0, 0, 0, 0, 0, 0, _BLOCK_LIMITS)
    _quota(directory, _SET_QUOTA, project, ctypes.create_string_buffer(limits, len(limits)))
