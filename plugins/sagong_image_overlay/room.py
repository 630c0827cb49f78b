"""Room on the disk: some has to stay free, whoever writes, for what the platform itself must write."""

from __future__ import annotations

import os
from pathlib import Path

from sagong.errors import ResourceExhausted

__all__ = ["CHECK_EVERY", "check_room", "room"]

# Bytes that are written between two looks: several may write at once, and the reserve bears them all.
CHECK_EVERY = 8 << 20


def room(place: int | Path, reserve: int) -> int:
    """Bytes that may still be written so that `reserve` stay free, or a quarter of a small filesystem.

    Below zero if there are fewer than that already.
    """
    facts = os.statvfs(place)
    return facts.f_frsize * facts.f_bavail - min(reserve, facts.f_frsize * facts.f_blocks // 4)


def check_room(place: int | Path, reserve: int, wanted: int = 0) -> None:
    """ResourceExhausted if there is no `room` for `wanted` bytes more."""
    left = room(place, reserve)
    if left < wanted:
        raise ResourceExhausted(f"no space left on device: {max(left, 0)} bytes may be written")
