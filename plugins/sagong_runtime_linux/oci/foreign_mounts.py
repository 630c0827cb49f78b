"""Mounts that a container leaves in a namespace which is not its own alone: counted, and undone."""

from __future__ import annotations

import os
from collections.abc import Callable

from sagong.linux import mounts, syscalls
from sagong.shim import lean
from sagong.shim.failure import StartError

__all__ = ["mounts_at", "unmount_to"]

_MOST = 255


def mounts_at(path: str, space: str) -> int:
    """How many mounts lie on each other at a path, in the mount namespace `space` ("": ours)."""
    return _inside(space, lambda: _count(path))


def unmount_to(path: str, space: str, count: int) -> None:
    """Take away those above the first `count`, each with all below it; a namespace may be gone."""
    if space and not os.path.exists(space):
        return

    def work() -> int:
        for _ in range(_count(path) - count):
            syscalls.umount(path, mounts.MNT_DETACH | mounts.UMOUNT_NOFOLLOW)
        return 0

    _inside(space, work)


def _count(path: str) -> int:
    return min(sum(entry.target == path for entry in mounts.mount_table()), _MOST - 1)


def _inside(space: str, work: Callable[[], int]) -> int:
    """A fork enters the namespace: who entered one could not come back to its working directory."""
    if not space:
        return work()
    pid = lean.fork()
    if pid == 0:
        try:
            descriptor = os.open(space, os.O_RDONLY | os.O_CLOEXEC)
            syscalls.setns(descriptor, syscalls.Namespace.MNT, path=space)
            os._exit(work())
        finally:
            os._exit(_MOST)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code in (_MOST, -1):
        raise StartError("failed_precondition", f"linux.namespaces: {space} can't be entered")
    return code
