"""Images for clients: an OCI layout as an archive or as blobs, and `docker load`'s documents. Pure.

Source: the OCI image specification, "Image Layout"; `docker save`'s manifest.json.
"""

from __future__ import annotations

import functools
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from sagong.contracts.image import Artifact, Image
from sagong.model import oci, references
from sagong.model.oci import MediaType
from sagong_builder.buildkit.notes import NO_NOTES, Notes
from sagong_builder.context import Archive
from sagong_builder.copying import Member

__all__ = ["Layout", "blob_path"]

_MODE = 0o644


@dataclass(frozen=True)
class Layout:
    """Of images whose blobs `saved` has as `blobs/sha256/…`; with `several`, or where something is said
    of them, one index holds them.

    `names` are what the result is called, `notes` what goes along.
    """

    saved: Archive
    images: Sequence[Image]
    names: Sequence[references.Reference] = ()
    several: bool = False
    docker: bool = False
    notes: Notes = NO_NOTES

    @property
    def _indexed(self) -> bool:
        return self.several or bool(self.notes.said)

    @functools.cached_property
    def descriptor(self) -> oci.Descriptor:
        """What the names mean: the image's manifest, or the index."""
        if not self._indexed:
            return self._entries[0]
        raw = self._index
        return oci.Descriptor(
            media_type=MediaType.OCI_INDEX, digest=oci.digest_of(raw), size=len(raw)
        )

    @functools.cached_property
    def _entries(self) -> list[oci.Descriptor]:
        return [self._described(image) for image in self.images]

    def _described(self, image: Image) -> oci.Descriptor:
        raw = self._annotated(image)
        manifest = oci.decode(raw, oci.Manifest, f"manifest {image.manifest_digest}")
        return oci.Descriptor(
            media_type=manifest.media_type or MediaType.OCI_MANIFEST,
            digest=oci.digest_of(raw),
            size=len(raw),
            platform=oci.Platform(
                architecture=image.architecture, os=image.os, variant=image.variant
            ),
        )

    def _annotated(self, image: Image) -> bytes:
        """The image's manifest as it goes out."""
        return oci.annotated(self._blob(image.manifest_digest), self.notes.manifest)

    @property
    def _told(self) -> list[oci.Descriptor]:
        return [oci.attestation_entry(one.manifest, one.annotations) for one in self._artifacts]

    @functools.cached_property
    def _artifacts(self) -> list[Artifact]:
        digests = [entry.digest for entry in self._entries]
        return self.notes.artifacts(self.images, digests, self.names)

    def _blob(self, digest: str) -> bytes:
        return b"".join(self.saved.content(self.saved.tree.resolve(blob_path(digest))[1]))

    @functools.cached_property
    def _index(self) -> bytes:
        """The index of several."""
        return oci.encode(
            oci.Index(
                schema_version=2,
                media_type=MediaType.OCI_INDEX,
                manifests=(*self._entries, *self._told),
                annotations=dict(self.notes.index) or None,
            )
        )

    def blobs(self) -> Iterator[tuple[str, int, Iterator[bytes]]]:
        """All by their digests, with size and content: what others need comes before them."""
        names = self.saved.tree.resolve("blobs/sha256")[1].names or {}
        manifests = {image.manifest_digest for image in self.images}
        for name, entry in sorted(names.items()):
            if f"sha256:{name}" not in manifests:
                yield f"sha256:{name}", entry.size, self.saved.content(entry)
        documents = [self._annotated(image) for image in self.images]
        for artifact in self._artifacts:
            documents += [*artifact.blobs, artifact.manifest]
        # Images of several platforms may be the same, and blobs of what is told: each is there once.
        told = {f"sha256:{name}" for name in names} - manifests
        for raw in (*documents, *((self._index,) if self._indexed else ())):
            digest = oci.digest_of(raw)
            if digest not in told:
                told.add(digest)
                yield digest, len(raw), iter((raw,))

    def members(self) -> Iterator[Member]:
        """The archive's members; blobs of layers come from where they are saved."""
        for digest, size, content in self.blobs():
            yield _member(blob_path(digest), size), content
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
            config=blob_path(image.id),
            repo_tags=tuple(name.familiar for name in self.names) or None,
            layers=tuple(blob_path(layer.digest) for layer in layers),
        )


def _member(path: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.size, member.mode = size, _MODE
    return member


def blob_path(digest: str) -> str:
    """Where a layout has a blob (OCI image layout specification)."""
    return "blobs/" + digest.replace(":", "/")
