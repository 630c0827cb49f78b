"""Who calls: root of the machine, or somebody who is root of a user namespace at most."""

from __future__ import annotations

import os

__all__ = ["has_machine", "owner", "run_directory"]

_EVERYBODY = (1 << 32) - 1


def _maps() -> list[tuple[int, int, int]]:
    """Ids in here, their ids outside, and how many."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return [tuple(map(int, line.split())) for line in file]  # type: ignore[misc]


def owner() -> int:
    """Our user as the user namespace above knows him; in the machine's own it is the same."""
    uid = os.geteuid()
    for inside, outside, count in _maps():
        if inside <= uid < inside + count:
            return outside + uid - inside
    return uid


def has_machine() -> bool:
    """Whether we are root, and not of a user namespace alone."""
    return os.geteuid() == 0 and (0, 0, _EVERYBODY) in _maps()


def run_directory() -> str:
    """Where the caller keeps what a boot ends: root of the machine in /run."""
    uid = owner()
    if uid == 0:
        return "/run"
    return os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
