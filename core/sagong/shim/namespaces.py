"""Namespaces by the contract's names: their flags, and their files in /proc/PID/ns."""

from __future__ import annotations

from collections.abc import Sequence

from sagong.linux import syscalls

__all__ = ["FILES", "KINDS", "namespace_flags"]

KINDS = {
    "network": syscalls.Namespace.NET,
    "ipc": syscalls.Namespace.IPC,
    "uts": syscalls.Namespace.UTS,
    "cgroup": syscalls.Namespace.CGROUP,
    "mount": syscalls.Namespace.MNT,
    "user": syscalls.Namespace.USER,
    "pid": syscalls.Namespace.PID,
    "time": syscalls.Namespace.TIME,
}
FILES = {
    "network": "net",
    "mount": "mnt",
    "pid": "pid",
    "ipc": "ipc",
    "uts": "uts",
    "cgroup": "cgroup",
    "user": "user",
}


def namespace_flags(kinds: Sequence[str]) -> int:
    """CLONE_NEW flags of namespaces by the contract's names."""
    return sum(KINDS[kind] for kind in kinds)
