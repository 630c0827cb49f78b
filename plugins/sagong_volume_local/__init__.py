"""Plugin `volume_local`: volumes as directories of this machine."""

from sagong_volume_local.plugin import VolumeLocal

__all__ = ["VolumeLocal"]
