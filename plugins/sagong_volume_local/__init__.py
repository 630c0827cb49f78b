"""Slot `volume` on directories and mounts of this machine.

The class is imported on demand: the deputy imports this package and little of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sagong_volume_local.plugin import VolumeLocal

__all__ = ["VolumeLocal"]


def __getattr__(name: str) -> Any:
    if name == "VolumeLocal":
        from sagong_volume_local.plugin import VolumeLocal

        return VolumeLocal
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
