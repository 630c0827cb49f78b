"""What goes out with images: annotations of manifests, and statements of how they were made. Pure.

Both are of what is sent; the image store keeps neither.
Source: the package exporter/containerimage/exptypes of BuildKit (`annotation-index.KEY` and others).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sagong.contracts.image import Artifact, Image
from sagong.errors import InvalidArgument, Unimplemented
from sagong.model import oci, references
from sagong_builder.buildkit.provenance import artifact

__all__ = ["NO_NOTES", "Notes", "read_notes"]

_ANNOTATION = re.compile(r"annotation(?:-([a-z-]+))?(\[[^\]]*\])?\.(.+)\Z", re.DOTALL)
_MANIFEST, _INDEX = ("", "manifest"), ("index",)

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Notes:
    """Annotations of each manifest and of the index, and what is `said` of images by their ids."""

    manifest: Pairs = ()
    index: Pairs = ()
    said: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.manifest or self.index or self.said)

    def about(self, said: Mapping[str, Mapping[str, Any]]) -> Notes:
        """The same with statements."""
        return replace(self, said=said)

    def artifacts(
        self,
        images: Iterable[Image],
        digests: Iterable[str],
        names: Sequence[references.Reference],
    ) -> list[Artifact]:
        """Statements about images, whose manifests have these digests where they go."""
        return [
            artifact(self.said[image.id], digest, oci.platform_text(_platform(image)), names)
            for image, digest in zip(images, digests, strict=True)
            if image.id in self.said
        ]


NO_NOTES = Notes()


def _platform(image: Image) -> oci.Platform:
    return oci.Platform(architecture=image.architecture, os=image.os, variant=image.variant)


def read_notes(attributes: Mapping[str, str]) -> Notes:
    """The annotations that an exporter is given; Unimplemented for places that have none here."""
    found: dict[tuple[str, ...], list[tuple[str, str]]] = {_MANIFEST: [], _INDEX: []}
    for name, value in sorted(attributes.items()):
        parts = _ANNOTATION.match(name)
        if parts is None:
            if name.startswith("annotation"):
                raise InvalidArgument(f"invalid annotation {name[:100]!r}")
            continue
        place = next((places for places in found if (parts[1] or "") in places), None)
        if place is None or parts[2]:
            raise Unimplemented(
                f"{name[:100]}: annotations are of manifests or of the index, for all platforms"
            )
        found[place].append((parts[3], value))
    return Notes(tuple(found[_MANIFEST]), tuple(found[_INDEX]))
