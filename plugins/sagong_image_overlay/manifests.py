"""Manifests that this plugin writes: of grown images, and with packed layers for registries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from sagong.errors import InvalidArgument
from sagong.model import oci
from sagong.model.oci import MediaType
from sagong_image_overlay.compression import compression_of

__all__ = [
    "as_format",
    "is_foreign_compression",
    "is_packed",
    "layer_type",
    "new_manifest",
    "with_layer",
    "with_lowest",
    "with_packed",
]

_LAYERS = {
    "": MediaType.OCI_LAYER,
    "gzip": MediaType.OCI_LAYER_GZIP,
    "zstd": MediaType.OCI_LAYER_ZSTD,
}
_PACKED = ("gzip", "zstd")
# Docker's types in a manifest of OCI's are refused by strict registries.
_AS_OCI = {
    MediaType.DOCKER_LAYER: MediaType.OCI_LAYER,
    MediaType.DOCKER_LAYER_GZIP: MediaType.OCI_LAYER_GZIP,
    MediaType.DOCKER_LAYER_ZSTD: MediaType.OCI_LAYER_ZSTD,
    MediaType.DOCKER_FOREIGN: MediaType.OCI_FOREIGN_GZIP,
}
_AS_DOCKER = {
    MediaType.OCI_LAYER: MediaType.DOCKER_LAYER,
    MediaType.OCI_LAYER_GZIP: MediaType.DOCKER_LAYER_GZIP,
    MediaType.OCI_LAYER_ZSTD: MediaType.DOCKER_LAYER_ZSTD,
    MediaType.OCI_FOREIGN_GZIP: MediaType.DOCKER_FOREIGN,
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
    return layer.media_type.endswith(_PACKED)


def with_packed(raw: bytes, packed: Mapping[str, oci.Descriptor]) -> bytes:
    """The manifest with compressed layers instead of plain ones, by their digests."""
    manifest = oci.decode(raw, oci.Manifest, "manifest")
    layers = [packed.get(layer.digest, _as_oci(layer)) for layer in manifest.layers]
    return new_manifest(manifest.config.digest, manifest.config.size, layers)


def is_foreign_compression(path: Path) -> bool:
    """Whether a layer file is compressed in a way that images have no media type for."""
    with path.open("rb") as file:
        return compression_of(file.read(8)) not in _LAYERS


def layer_type(path: Path) -> str:
    """The media type of a layer file by its first bytes."""
    with path.open("rb") as file:
        name = compression_of(file.read(8))
    if name not in _LAYERS:
        raise InvalidArgument(f"layers compressed with {name} can't be kept; use gzip or zstd")
    return _LAYERS[name]
