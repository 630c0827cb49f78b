"""Images in a content store of the client's: bases (`oci-layout://`), caches that builds have left.

What they are is read from small documents; the image itself comes when it is wanted, as an archive
for the image store.
"""

from __future__ import annotations

import functools
import os
import tarfile
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgspec

from sagong.contracts.image import ImageRef
from sagong.errors import NotFound, ResourceExhausted
from sagong.model import oci
from sagong.model.oci import MediaType
from sagong_builder.buildkit.content import ContentStore
from sagong_builder.buildkit.layouts import blob_path
from sagong_builder.cache import Offer
from sagong_builder.foreign import check_made_here
from sagong_builder.shop import Shop

__all__ = ["StoredImage", "StoredImages"]

# Images of one index; an archive of several platforms is an index in an index.
_PARTS, _DEPTH = 64, 2


class _Config(msgspec.Struct):
    """Of a config what says how the image was made; its history as it stands."""

    rootfs: oci.RootFs
    history: list[Any] | None = None


@dataclass(frozen=True)
class StoredImage:
    """An image: its manifest with the digest, as bytes and as read, and its config."""

    digest: str
    raw: bytes
    manifest: oci.Manifest
    config: bytes

    @property
    def id(self) -> str:
        """Its id in the image store."""
        return self.manifest.config.digest


class StoredImages:
    """Of one store."""

    def __init__(self, shop: Shop, store: ContentStore) -> None:
        self._shop = shop
        self._store = store

    async def all(self, digest: str, depth: int = _DEPTH) -> list[StoredImage]:
        """The images of an index, or the one of a manifest."""
        raw = await self._store.document(digest)
        index = oci.decode(raw, oci.Index, f"index {digest}")
        if not index.manifests:
            return [await self._image(digest, raw)]
        check_made_here([entry.media_type for entry in index.manifests])
        found: list[StoredImage] = []
        for entry in index.manifests[:_PARTS] if depth else ():
            if not oci.is_attestation(entry):
                found += await self.all(entry.digest, depth - 1)
        return found

    async def _image(self, digest: str, raw: bytes) -> StoredImage:
        manifest = oci.decode(raw, oci.Manifest, f"manifest {digest}")
        check_made_here([manifest.config.media_type])
        config = await self._store.document(manifest.config.digest)
        return StoredImage(digest, raw, manifest, config)

    async def one(self, digest: str, platform: str) -> StoredImage:
        """The image of an index for a platform, "": for this machine."""
        wanted = oci.parse_platform(platform, os.uname().machine)
        images = await self.all(digest)
        for image in images:
            if _platform(image) == wanted:
                return image
        if len(images) == 1 and not platform:
            return images[0]
        raise NotFound(f"no image of {digest} is for {oci.platform_text(wanted)}")

    def offer(self, image: StoredImage) -> Offer:
        """The image as cache: it comes when one of its layers is wanted."""
        check_made_here((), image.config)
        config = oci.decode(image.config, _Config, f"config {image.id}")
        have = functools.partial(self.have, image)
        return Offer(image.id, config.history or [], config.rootfs.diff_ids, have)

    async def have(self, image: StoredImage) -> str:
        """The image's id, once it is in the image store."""
        try:
            return (await self._shop.images.inspect(ImageRef(reference=image.id))).id
        except NotFound:
            pass
        size = sum(layer.size for layer in image.manifest.layers)
        if size > self._shop.settings.context_limit:
            raise ResourceExhausted(f"the image {image.id} has {size} bytes of layers")
        with self._shop.spool.file() as path:
            with path.open("wb") as file:
                await self._archived(image, file)
            await self._shop.load(path)
        return image.id

    async def _archived(self, image: StoredImage, file: BinaryIO) -> None:
        """An OCI layout as a tar."""
        for name, raw in _documents(image).items():
            file.write(_header(name, len(raw)) + raw + _padding(len(raw)))
        for layer in {layer.digest: layer for layer in image.manifest.layers}.values():
            file.write(_header(blob_path(layer.digest), layer.size))
            await self._store.fetch(layer, file)
            file.write(_padding(layer.size))
        file.write(bytes(2 * tarfile.BLOCKSIZE))


def _platform(image: StoredImage) -> oci.Platform:
    config = oci.decode(image.config, oci.Config, f"config {image.id}")
    return oci.normal_platform(
        oci.Platform(architecture=config.architecture, os=config.os, variant=config.variant)
    )


def _documents(image: StoredImage) -> dict[str, bytes]:
    kind = image.manifest.media_type or MediaType.OCI_MANIFEST
    top = oci.Descriptor(media_type=kind, digest=image.digest, size=len(image.raw))
    index = oci.Index(schema_version=2, media_type=MediaType.OCI_INDEX, manifests=(top,))
    return {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": oci.encode(index),
        blob_path(image.digest): image.raw,
        blob_path(image.id): image.config,
    }


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)
