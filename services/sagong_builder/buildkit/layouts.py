"""Archives of images for clients: an OCI layout, and `docker load`'s documents beside it. Pure.

Source: the OCI image specification, "Image Layout"; `docker save`'s manifest.json.
"""

from __future__ import annotations

import functools
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from sagong.model import oci, references
from sagong.model.oci import MediaType
from sagong_builder.context import Archive, Entry, Kind
from sagong_builder.copying import Member

__all__ = ["Layout"]

_MODE = 0o644


@dataclass(frozen=True)
class Layout:
    """Of images by platform (id, digest of the manifest), whose blobs `saved` has as `blobs/sha256/…`.

    With `several` one index holds them; `names` are what the result is called.
    """

    saved: Archive
    images: Mapping[str, tuple[str, str]]
    names: Sequence[references.Reference]
    several: bool
    docker: bool

    @property
    def digest(self) -> str:
        """Of what the names mean: the image's manifest, or the index."""
        return self._top.digest

    @functools.cached_property
    def _entries(self) -> list[oci.Descriptor]:
        return [
            self._descriptor(manifest, platform) for platform, (_, manifest) in self.images.items()
        ]

    def _descriptor(self, digest: str, platform: str) -> oci.Descriptor:
        raw = self._blob(digest)
        manifest = oci.decode(raw, oci.Manifest, f"manifest {digest}")
        return oci.Descriptor(
            media_type=manifest.media_type or MediaType.OCI_MANIFEST,
            digest=digest,
            size=len(raw),
            platform=oci.parse_platform(platform, "") if platform else None,
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

    @functools.cached_property
    def _top(self) -> oci.Descriptor:
        if not self.several:
            return self._entries[0]
        raw = self._index
        return oci.Descriptor(
            media_type=MediaType.OCI_INDEX, digest=oci.digest_of(raw), size=len(raw)
        )

    def members(self) -> Iterator[Member]:
        """The archive's members; blobs of layers come from where they are saved."""
        blobs = self.saved.tree.resolve("blobs/sha256")[1].names or {}
        for name, entry in sorted(blobs.items()):
            yield self._member(f"blobs/sha256/{name}", entry)
        for name, raw in self._documents().items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(raw), _MODE
            yield member, iter((raw,))

    def _member(self, path: str, entry: Entry) -> Member:
        assert entry.kind is Kind.FILE
        member = tarfile.TarInfo(path)
        member.size, member.mode = entry.size, _MODE
        return member, self.saved.content(entry)

    def _documents(self) -> dict[str, bytes]:
        top = self._top
        notes = [
            {
                "io.containerd.image.name": name.canonical,
                "org.opencontainers.image.ref.name": name.tag,
            }
            for name in self.names
        ]
        manifests = [msgspec.structs.replace(top, annotations=n) for n in notes] or [top]
        index = oci.Index(
            schema_version=2, media_type=MediaType.OCI_INDEX, manifests=tuple(manifests)
        )
        found = {
            "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
            "index.json": oci.encode(index),
        }
        if self.several:
            found[_path(top.digest)] = self._index
        if self.docker:
            found["manifest.json"] = oci.encode([self._saved(*one) for one in self.images.values()])
        return found

    def _saved(self, image: str, manifest: str) -> oci.SavedImage:
        layers = oci.decode(self._blob(manifest), oci.Manifest, "manifest").layers
        return oci.SavedImage(
            config=_path(image),
            repo_tags=tuple(name.familiar for name in self.names) or None,
            layers=tuple(_path(layer.digest) for layer in layers),
        )


def _path(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    return f"blobs/{algorithm}/{value}"
