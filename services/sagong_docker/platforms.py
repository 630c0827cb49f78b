"""The platform that a client asks for, as a JSON object of the OCI, held against an image's. Pure.

An image here has one platform: another one is not found, as with any Docker Engine that keeps one.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sagong.contracts.image import Image
from sagong.errors import InvalidArgument, NotFound
from sagong.model.oci import Platform, normal_platform, platform_text

__all__ = ["check_platforms", "wanted_platform"]


class _Given(msgspec.Struct, frozen=True, kw_only=True):
    """https://github.com/opencontainers/image-spec/blob/main/image-index.md, `platform`."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: tuple[str, ...] | None = msgspec.field(default=None, name="os.features")


def wanted_platform(text: str) -> Platform | None:
    """What a parameter names; None for an empty one. InvalidArgument in Docker's words."""
    if not text:
        return None
    try:
        given = msgspec.json.decode(text, type=_Given)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidArgument(f"failed to parse platform: {error}") from None
    optional = given.variant or given.os_version or given.os_features
    if optional and not given.os and not given.architecture:
        raise InvalidArgument(
            "optional platform fields provided, but OS and Architecture are missing"
        )
    if not given.os or not given.architecture:
        raise InvalidArgument("both OS and Architecture must be provided")
    return normal_platform(
        Platform(architecture=given.architecture, os=given.os, variant=given.variant)
    )


def check_platforms(image: Image, name: str, wanted: Sequence[Platform | None]) -> None:
    """NotFound, in Docker's words, if the image is for another platform than the one wanted."""
    asked = [platform for platform in wanted if platform is not None]
    if len(asked) > 1:
        raise InvalidArgument("multiple platforms are not supported")
    has = normal_platform(
        Platform(architecture=image.architecture, os=image.os, variant=image.variant)
    )
    for want in asked:
        other = want.variant and has.variant and want.variant != has.variant
        if (has.os, has.architecture) != (want.os, want.architecture) or other:
            raise NotFound(
                f"image with reference {name} was found but its platform ({platform_text(has)}) "
                f"does not match the specified platform ({platform_text(want)})"
            )
