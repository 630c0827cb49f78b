"""Images whose own layers are written anew: none of their files is younger than the build is dated.

Source: `rewrite-timestamp` of BuildKit's exporters.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from sagong.contracts.image import Image, ImageRef
from sagong.model import oci
from sagong_builder.buildkit.layouts import blob_path
from sagong_builder.context import Archive
from sagong_builder.copying import Item, Landing, Member, Owner, members, written
from sagong_builder.shop import Shop

__all__ = ["Dating", "rewritten"]


@dataclass(frozen=True)
class Dating:
    """To when an image is dated (seconds since 1970); its lowest `inherited` layers are the base's."""

    epoch: int
    inherited: int


async def rewritten(shop: Shop, image: str, dating: Dating) -> str:
    """The id of an image like this one, with layers of the build's as old as that at most."""
    found = await shop.images.inspect(ImageRef(reference=image))
    async with contextlib.AsyncExitStack() as stack:
        saved = await shop.saved([image])
        stack.callback(saved.close)
        raw = b"".join(_blob(saved, found.manifest_digest))
        layers: list[Archive] = []
        for own in oci.decode(raw, oci.Manifest, "manifest").layers[dating.inherited :]:
            layers.append(await _opened(shop, _blob(saved, own.digest)))
            stack.callback(layers[-1].close)
        path = stack.enter_context(shop.spool.file())
        made = await asyncio.to_thread(_write, path, found, layers, dating)
        await shop.load(path)
    return made


def _blob(saved: Archive, digest: str) -> Iterator[bytes]:
    return saved.content(saved.tree.resolve(blob_path(digest))[1])


async def _opened(shop: Shop, content: Iterator[bytes]) -> Archive:
    with shop.spool.file() as path:
        with path.open("wb") as file:
            for piece in content:
                file.write(piece)
        return await shop.opened(path)


def _write(path: Path, image: Image, layers: Sequence[Archive], dating: Dating) -> str:
    """An archive for the image store, which has the base's layers; the id of its image."""
    below = [layer.diff_id for layer in image.layers[: dating.inherited]]
    found: list[Member] = []
    for layer in layers:
        for _, entry in layer.tree.walk():
            entry.mtime = min(entry.mtime, dating.epoch)
        digest, size = _measured(_layer(layer))
        below.append(digest)
        found.append((_file(digest, size), _layer(layer)))
    document = msgspec.json.decode(image.raw, type=dict[str, Any])
    document["rootfs"] = {**document["rootfs"], "diff_ids": below}
    config = msgspec.json.encode(document)
    made = oci.digest_of(config)
    listed = [oci.SavedImage(config=made, repo_tags=None, layers=tuple(below))]
    for name, raw in ((made, config), ("manifest.json", oci.encode(listed))):
        found.append((_file(name, len(raw)), iter((raw,))))
    with path.open("wb") as file:
        file.writelines(written(found))
    return made


def _layer(archive: Archive) -> Iterator[bytes]:
    """The layer's tar: directories that it does not name are left to what is below."""
    whole = Item(archive, archive.tree.root, "", unpacked=archive)
    return written(members([whole], Landing("/"), Owner(kept=True)))


def _measured(pieces: Iterator[bytes]) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
    return f"sha256:{digest.hexdigest()}", size


def _file(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member
