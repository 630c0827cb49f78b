"""Platforms of images held against the one that a caller wants."""

from __future__ import annotations

from sagong.contracts.image import Image
from sagong.errors import NotFound
from sagong.model import oci
from sagong_image_overlay.store import machine

__all__ = ["check_platform"]


def check_platform(image: Image, name: str, platform: str) -> None:
    """NotFound, in Docker's words, if the image is for another platform; "" is any."""
    if not platform:
        return
    has = oci.normal_platform(
        oci.Platform(architecture=image.architecture, os=image.os, variant=image.variant)
    )
    wanted = oci.parse_platform(platform, machine())
    if (has.os, has.architecture) != (wanted.os, wanted.architecture) or (
        wanted.variant and has.variant and wanted.variant != has.variant
    ):
        raise NotFound(
            f"image with reference {name} was found but does not match the specified "
            f"platform: wanted {oci.platform_text(wanted)}, actual: {oci.platform_text(has)}"
        )
