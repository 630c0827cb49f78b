"""Forking into a pid namespace without leaving one's own."""

from __future__ import annotations

import os

from sagong.shim import lean

__all__ = ["fork_into", "sibling_in"]

_CLONE_NEWPID = 0x20000000


def fork_into(wanted: str | int) -> int:
    """Fork; the child is in a new pid namespace ("new"), in one by descriptor, or in ours ("")."""
    if wanted == "":
        return lean.fork()
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    pid = -1
    try:
        if isinstance(wanted, int):
            lean.set_namespace(wanted, _CLONE_NEWPID)
        else:
            lean.unshare(_CLONE_NEWPID)
        pid = lean.fork()
    finally:
        # Told by the fork alone: the child's number in its namespace may be ours in our own.
        if pid != 0:
            lean.set_namespace(own, _CLONE_NEWPID)
        os.close(own)
    return pid


def sibling_in(space: int) -> int:
    """A child of one's parent in the pid namespace of a descriptor, of itself or of who lives in it."""
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    pid = -1
    try:
        lean.set_namespace(space, _CLONE_NEWPID)
        pid = lean.fork_sibling()
    finally:
        if pid != 0:
            lean.set_namespace(own, _CLONE_NEWPID)
        os.close(own)
    return pid
