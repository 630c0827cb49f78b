"""Project quotas: a limit for all that is below a directory, kept by the filesystem itself."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

from sagong.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

__all__ = ["FIRST_LAYER", "FIRST_VOLUME", "free_project", "has_quotas", "mark", "set_blocks"]

# Numbers below are the administrator's; each plugin has its own.
FIRST_VOLUME, FIRST_LAYER = 0x5A000000, 0x5B000000
_PROJECTS = 1 << 20
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


def free_project(first: int, taken: Collection[int]) -> int:
    """The first number from `first` on that nobody has."""
    return next(n for n in range(first, first + _PROJECTS) if n not in taken)


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


def mark(directory: int, project: int) -> None:
    """Count what is and will be below the directory as this project."""
    raw = bytearray(_ATTRIBUTES.size)
    fcntl.ioctl(directory, _GET, raw)
    flags, extent, count, _, cow = _ATTRIBUTES.unpack(raw)
    fcntl.ioctl(directory, _SET, _ATTRIBUTES.pack(flags | _INHERIT, extent, count, project, cow))


def set_blocks(directory: int, project: int, size: int) -> None:
    """Limit a project on the directory's filesystem to `size` bytes, 0 for none; CAP_SYS_ADMIN."""
    blocks = (size + _BLOCK - 1) // _BLOCK
    limits = _LIMITS.pack(blocks, blocks, 0, 0, 0, 0, 0, 0, _BLOCK_LIMITS)
    _quota(directory, _SET_QUOTA, project, ctypes.create_string_buffer(limits, len(limits)))
