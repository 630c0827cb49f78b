"""What a solve made: an image, or one for each platform that was asked for. Pure.

Source: the package exporter/containerimage/exptypes of BuildKit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from sagong.model import oci
from sagong_builder.buildkit import messages as m
from sagong_builder.buildkit.graphs import naming

__all__ = ["Made"]

_PLATFORMS = "refs.platforms"


@dataclass(frozen=True)
class Made:
    """Images by their platforms; with `several` they belong together, though it may be one alone."""

    images: Mapping[str, str]
    several: bool = False

    def mine(self, native: oci.Platform) -> str:
        """The image for this machine, else the first."""
        for text, image in self.images.items():
            if text and oci.parse_platform(text, native.architecture) == native:
                return image
        return next(iter(self.images.values()), "")

    def result(self, references: Mapping[str, str]) -> m.Result:
        """As clients get it; `references` name the images for them."""
        refs = {p: m.Ref(references[p], naming(image)) for p, image in self.images.items()}
        if not self.several:
            return m.Result(ref=next(iter(refs.values()), None))
        platforms = [{"ID": text, "Platform": _described(text)} for text in refs]
        raw = msgspec.json.encode({"Platforms": platforms})
        return m.Result(refs=m.RefMap(refs), metadata={_PLATFORMS: raw})

    @classmethod
    def of(cls, result: m.Result | None, images: Mapping[str, str]) -> Made:
        """What a client hands back; `images` are those that its references name."""
        if result is not None and result.refs is not None:
            # Clients keep them without an order; it is told beside.
            refs = result.refs.refs
            order = [name for name in _told(result.metadata) if name in refs]
            found = {p: images.get(refs[p].id, "") for p in (*order, *sorted(set(refs) - {*order}))}
            return cls({p: image for p, image in found.items() if image}, several=True)
        image = images.get(result.ref.id, "") if result is not None and result.ref else ""
        return cls({"": image} if image else {})


class _Told(msgspec.Struct, rename="pascal"):
    platforms: list[dict[str, Any]] = []


def _told(metadata: Mapping[str, bytes]) -> list[str]:
    """The platforms in the order in which they were asked for."""
    try:
        told = msgspec.json.decode(metadata.get(_PLATFORMS, b"{}"), type=_Told)
    except msgspec.DecodeError:
        return []
    return [str(platform.get("ID", "")) for platform in told.platforms]


def _described(text: str) -> oci.Platform:
    return oci.parse_platform(text, "")
