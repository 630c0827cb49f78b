"""`image_overlay`: the slot `image` by overlayfs, an OCI content store and a registry client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sagong_image_overlay.images import ImageOverlay

__all__ = ["ImageOverlay"]


def __getattr__(name: str) -> Any:
    """The class, imported when it is asked for: the lean child processes live in this package."""
    if name == "ImageOverlay":
        from sagong_image_overlay.images import ImageOverlay

        return ImageOverlay
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
