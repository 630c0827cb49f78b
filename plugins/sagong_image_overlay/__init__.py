"""`image_overlay`: the slot `image` by overlayfs, an OCI content store and a registry client."""

from __future__ import annotations

from sagong_image_overlay.images import ImageOverlay

__all__ = ["ImageOverlay"]
