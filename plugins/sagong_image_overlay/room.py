"""Room on the disk: some has to stay free, whoever writes, for what the platform itself must write."""

from __future__ import annotations

import os
from pathlib import Path

from sagong.errors import ResourceExhausted

__all__ = ["CHECK_EVERY", "check_room"]

# Bytes that are written between two looks.
CHECK_EVERY = 64 << 20


def check_room(place: int | Path, reserve: int, wanted: int = 0) -> None:
    """ResourceExhausted if `wanted` bytes more would leave less than `reserve` on its filesystem."""
    facts = os.statvfs(place)
    if facts.f_bavail * facts.f_frsize < reserve + wanted:
        raise ResourceExhausted(f"no space left on device: under {reserve} bytes would stay free")
