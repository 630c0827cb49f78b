"""Images from files: archives of a directory are loaded where their images are missing."""

from __future__ import annotations

import asyncio
import json
import logging
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sagong.contracts.image import Image, ImageRef, Images, LoadRequest
from sagong.errors import InvalidArgument, NotFound, SagongError, Unavailable
from sagong.uploading import send_file

__all__ = ["Archives", "Packed", "packed_images"]

_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
_LARGEST = 4 << 20
_REFERENCE = "org.opencontainers.image.ref.name"
_FULL_NAME = "io.containerd.image.name"


class Packed(NamedTuple):
    """An image of an archive: its names, and the digest of its config or manifest."""

    names: tuple[str, ...]
    digest: str


class Archives:
    """Of one directory. An archive is looked into once, and again when it is another file."""

    def __init__(self, images: Images, directory: Path, log: logging.Logger) -> None:
        self._images = images
        self._directory = directory
        self._log = log
        self._done: set[tuple[Path, int, int]] = set()

    async def load_missing(self) -> None:
        """Load every archive that has an image which is not here; what can't be is told, and left."""
        for path in sorted(self._directory.iterdir()):
            if path.name.startswith(".") or not path.name.endswith(_SUFFIXES):
                continue
            found = path.stat()
            version = (path, found.st_ino, found.st_mtime_ns)
            if version not in self._done and await self._load(path):
                self._done.add(version)

    async def _load(self, path: Path) -> bool:
        """Whether all has been done that this file allows."""
        try:
            packed = await asyncio.to_thread(packed_images, path)
            if not await _complete(self._images, packed):
                await self._send(path)
        except Unavailable as error:
            self._log.warning("%s: the image store does not answer: %s", path, error.message)
            return False
        except (SagongError, OSError, tarfile.TarError, ValueError, KeyError) as error:
            self._log.error("%s: its images can't be loaded: %s", path, error)
        return True

    async def _send(self, path: Path) -> None:
        address = await self._images.upload()
        with open(path, "rb") as file:
            await send_file(address, file)
        async for progress in self._images.load(LoadRequest(upload=address.token)):
            if progress.image:
                self._log.info("%s: loaded image %s", path, progress.reference or progress.image)


async def _complete(images: Images, packed: list[Packed]) -> bool:
    for image in packed:
        for name in image.names or (image.digest,):
            try:
                found = await images.inspect(ImageRef(reference=name))
            except (NotFound, InvalidArgument):
                return False
            if image.digest not in _digests(found):
                return False
    return bool(packed)


def _digests(image: Image) -> set[str]:
    return {image.id, image.manifest_digest, *(d.rpartition("@")[2] for d in image.digests)}


def packed_images(path: Path) -> list[Packed]:
    """What images an archive has, without unpacking it: of `docker save` or an OCI layout."""
    with tarfile.open(path) as tar:
        heads = dict(_heads(tar))
        if "manifest.json" in heads:
            return [_of_docker(entry) for entry in json.loads(heads["manifest.json"])]
        if "index.json" in heads:
            return list(_of_layout(json.loads(heads["index.json"])))
    raise ValueError("neither an archive of docker save nor an OCI layout")


def _heads(tar: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    for member in tar:
        name = member.name.removeprefix("./")
        if name in ("manifest.json", "index.json") and member.isfile():
            file = tar.extractfile(member)
            if file is None or member.size > _LARGEST:
                raise ValueError(f"{name} is of no use: {member.size} bytes")
            yield name, file.read()


def _of_docker(entry: dict[str, Any]) -> Packed:
    digest = Path(entry["Config"]).name.removesuffix(".json")
    return Packed(tuple(entry.get("RepoTags") or ()), f"sha256:{digest}")


def _of_layout(index: dict[str, Any]) -> Iterator[Packed]:
    for entry in index["manifests"]:
        marks = entry.get("annotations") or {}
        name = marks.get(_FULL_NAME) or marks.get(_REFERENCE) or ""
        yield Packed((name,) if name else (), entry["digest"])
