"""Slot `volume` on this machine: directories, and mounts of tmpfs, NFS and the like."""

from sagong_volume_local.plugin import VolumeLocal

__all__ = ["VolumeLocal"]
