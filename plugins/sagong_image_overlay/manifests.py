"""Manifests that this plugin writes: of grown images, and with packed layers for registries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from sagong.model import oci
from sagong.model.oci import MediaType

__all__ = ["as_format", "is_packed", "new_manifest", "with_layer", "with_lowest", "with_packed"]

_PACKED = {
    MediaType.OCI_LAYER_GZIP,
    MediaType.OCI_LAYER_ZSTD,
    MediaType.DOCKER_LAYER_GZIP,
    MediaType.DOCKER_LAYER_ZSTD,
    MediaType.DOCKER_FOREIGN,
}
# Docker's types in a manifest of OCI's are refused by strict registries.
_AS_OCI = {
    MediaType.DOCKER_LAYER: MediaType.OCI_LAYER,
    MediaType.DOCKER_LAYER_GZIP: MediaType.OCI_LAYER_GZIP,
    MediaType.DOCKER_LAYER_ZSTD: MediaType.OCI_LAYER_ZSTD,
    MediaType.DOCKER_FOREIGN: MediaType.OCI_LAYER_GZIP,
}
_AS_DOCKER = {
    MediaType.OCI_LAYER: MediaType.DOCKER_LAYER,
    MediaType.OCI_LAYER_GZIP: MediaType.DOCKER_LAYER_GZIP,
    MediaType.OCI_LAYER_ZSTD: MediaType.DOCKER_LAYER_ZSTD,
}
_MANIFESTS = {"oci": MediaType.OCI_MANIFEST, "docker": MediaType.DOCKER_MANIFEST}


def new_manifest(config: str, size: int, layers: Sequence[oci.Descriptor]) -> bytes:
    """An OCI manifest."""
    descriptor = oci.Descriptor(media_type=MediaType.OCI_CONFIG, digest=config, size=size)
    manifest = oci.Manifest(
        schema_version=2,
        media_type=MediaType.OCI_MANIFEST,
        config=descriptor,
        layers=tuple(layers),
    )
    return oci.encode(manifest)


def with_layer(raw: bytes, config: str, size: int, added: oci.Descriptor | None) -> bytes:
    """The manifest of an image made from that of `raw`: a new config, perhaps one layer more."""
    parent = oci.decode(raw, oci.Manifest, "the parent's manifest")
    layers = [_as_oci(layer) for layer in parent.layers]
    return new_manifest(config, size, layers if added is None else [*layers, added])


def with_lowest(raw: bytes, count: int) -> bytes:
    """The manifest with its lowest layers only."""
    manifest = oci.decode(raw, oci.Manifest, "manifest")
    return oci.encode(msgspec.structs.replace(manifest, layers=manifest.layers[:count]))


def _as_oci(layer: oci.Descriptor) -> oci.Descriptor:
    media_type = _AS_OCI.get(layer.media_type, layer.media_type)
    return msgspec.structs.replace(layer, media_type=media_type, annotations=None)


def as_format(raw: bytes, wanted: str) -> bytes:
    """The manifest in the types of "oci" or "docker"; "same" leaves it as it is."""
    manifest = oci.decode(raw, oci.Manifest, "manifest")
    if wanted == "same" or manifest.media_type == _MANIFESTS[wanted]:
        return raw
    if wanted == "oci":
        return new_manifest(
            manifest.config.digest, manifest.config.size, list(map(_as_oci, manifest.layers))
        )
    config = msgspec.structs.replace(
        manifest.config, media_type=MediaType.DOCKER_CONFIG, annotations=None
    )
    layers = [
        msgspec.structs.replace(
            layer,
            media_type=_AS_DOCKER.get(layer.media_type, layer.media_type),
            annotations=None,
        )
        for layer in manifest.layers
    ]
    docker = oci.Manifest(
        schema_version=2,
        media_type=MediaType.DOCKER_MANIFEST,
        config=config,
        layers=tuple(layers),
    )
    return oci.encode(docker)


def is_packed(layer: oci.Descriptor) -> bool:
    """Whether a layer travels compressed."""
    return layer.media_type in _PACKED


def with_packed(raw: bytes, packed: Mapping[str, oci.Descriptor]) -> bytes:
    """The manifest with compressed layers instead of plain ones, by their digests."""
    manifest = oci.decode(raw, oci.Manifest, "manifest")
    layers = [packed.get(layer.digest, _as_oci(layer)) for layer in manifest.layers]
    return new_manifest(manifest.config.digest, manifest.config.size, layers)
