"""Images for clients: an OCI layout as an archive or as blobs, and `docker load`'s documents. Pure.

Source: the OCI image specification, "Image Layout"; `docker save`'s manifest.json.
"""

from __future__ import annotations

import functools
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from sagong.contracts.image import Image
from sagong.model import oci, references
from sagong.model.oci import MediaType
from sagong_builder.context import Archive, Entry
from sagong_builder.copying import Member

__all__ = ["Layout"]

_MODE = 0o644


@dataclass(frozen=True)
class Layout:
    """Of images whose blobs `saved` has as `blobs/sha256/…`; with `several` one index holds them.

    `names` are what the result is called.
    """

    saved: Archive
    images: Sequence[Image]
    names: Sequence[references.Reference] = ()
    several: bool = False
    docker: bool = False

    @functools.cached_property
    def descriptor(self) -> oci.Descriptor:
        """What the names mean: the image's manifest, or the index."""
        if not self.several:
            return self._entries[0]
        raw = self._index
        return oci.Descriptor(
            media_type=MediaType.OCI_INDEX, digest=oci.digest_of(raw), size=len(raw)
        )

    @functools.cached_property
    def _entries(self) -> list[oci.Descriptor]:
        return [self._described(image) for image in self.images]

    def _described(self, image: Image) -> oci.Descriptor:
        raw = self._blob(image.manifest_digest)
        manifest = oci.decode(raw, oci.Manifest, f"manifest {image.manifest_digest}")
        return oci.Descriptor(
            media_type=manifest.media_type or MediaType.OCI_MANIFEST,
            digest=image.manifest_digest,
            size=len(raw),
            platform=oci.Platform(
                architecture=image.architecture, os=image.os, variant=image.variant
            ),
        )

    def _blob(self, digest: str) -> bytes:
        return b"".join(self.saved.content(self.saved.tree.resolve(_path(digest))[1]))

    @functools.cached_property
    def _index(self) -> bytes:
        """The index of several."""
        return oci.encode(
            oci.Index(
                schema_version=2, media_type=MediaType.OCI_INDEX, manifests=tuple(self._entries)
            )
        )

    def blobs(self) -> Iterator[tuple[str, int, Iterator[bytes]]]:
        """All by their digests, with size and content: what others need comes before them."""
        saved = self._saved_blobs()
        manifests = {entry.digest for entry in self._entries}
        for digest in sorted(saved, key=lambda one: (one in manifests, one)):
            yield digest, saved[digest].size, self.saved.content(saved[digest])
        if self.several:
            yield self.descriptor.digest, self.descriptor.size, iter((self._index,))

    def _saved_blobs(self) -> dict[str, Entry]:
        names = self.saved.tree.resolve("blobs/sha256")[1].names or {}
        return {f"sha256:{name}": entry for name, entry in names.items()}

    def members(self) -> Iterator[Member]:
        """The archive's members; blobs of layers come from where they are saved."""
        for digest, size, content in self.blobs():
            yield _member(_path(digest), size), content
        for name, raw in self._documents().items():
            yield _member(name, len(raw)), iter((raw,))

    def _documents(self) -> dict[str, bytes]:
        notes = [
            {
                "io.containerd.image.name": name.canonical,
                "org.opencontainers.image.ref.name": name.tag,
            }
            for name in self.names
        ]
        top = self.descriptor
        manifests = [msgspec.structs.replace(top, annotations=n) for n in notes] or [top]
        index = oci.Index(
            schema_version=2, media_type=MediaType.OCI_INDEX, manifests=tuple(manifests)
        )
        found = {
            "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
            "index.json": oci.encode(index),
        }
        if self.docker:
            found["manifest.json"] = oci.encode([self._listed(image) for image in self.images])
        return found

    def _listed(self, image: Image) -> oci.SavedImage:
        layers = oci.decode(self._blob(image.manifest_digest), oci.Manifest, "manifest").layers
        return oci.SavedImage(
            config=_path(image.id),
            repo_tags=tuple(name.familiar for name in self.names) or None,
            layers=tuple(_path(layer.digest) for layer in layers),
        )


def _member(path: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.size, member.mode = size, _MODE
    return member


def _path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")
