"""Saving images: docker save's layout, which is an OCI layout as well."""

from __future__ import annotations

import base64
import socket
from dataclasses import dataclass, field

import msgspec

from sagong.contracts.image import SaveRequest
from sagong.contracts.streams import Address
from sagong.errors import InvalidArgument
from sagong.model import oci, references
from sagong.model.oci import MediaType
from sagong.model.times import parse_time
from sagong_image_overlay import naming
from sagong_image_overlay.index import Record
from sagong_image_overlay.platforms import check_platform
from sagong_image_overlay.store import Store
from sagong_image_overlay.streams import Streams

__all__ = ["Saving"]


@dataclass
class Chosen:
    """An image to save, with the names that were asked for."""

    record: Record
    names: list[references.Reference] = field(default_factory=list)


class Saving:
    """Writes archives of images to streams."""

    def __init__(self, store: Store, streams: Streams) -> None:
        self._store = store
        self._streams = streams

    def save(self, request: SaveRequest) -> Address:
        """A stream of the archive; NotFound for an unknown name is told now."""
        chosen = self._chosen(request)
        blobs = dict.fromkeys(sorted({b for image in chosen for b in image.record.content}), 0)
        # An image's own document is as old as the image.
        blobs |= {image.record.id: self._age(image) for image in chosen}
        documents = self._documents(chosen)

        async def serve(peer: socket.socket) -> None:
            peer.setblocking(True)
            arguments = {
                "root": str(self._store.content.root),
                "blobs": blobs,
                "documents": {
                    name: base64.b64encode(data).decode() for name, data in documents.items()
                },
            }
            with self._store.content.pinned(*blobs):
                await self._store.workshop.run("save", arguments, [peer.fileno()])

        return self._streams.offer(serve, "whole")

    def _age(self, image: Chosen) -> int:
        try:
            return int(parse_time(self._store.describe(image.record).created))
        except InvalidArgument:
            return 0

    def _chosen(self, request: SaveRequest) -> list[Chosen]:
        index = self._store.index
        chosen: dict[str, Chosen] = {}
        for text in request.references:
            for name in self._meant(text):
                record = index.find(name.canonical if name else text)
                check_platform(self._store.describe(record), text, request.platform)
                image = chosen.setdefault(record.id, Chosen(record))
                if name and name not in image.names:
                    image.names.append(name)
        return list(chosen.values())

    def _meant(self, text: str) -> list[references.Reference | None]:
        """The names that a text means: all tags of a bare repository; None for an image as such."""
        index = self._store.index
        if index.is_by_id(text) or not naming.is_name(text):
            return [None]
        reference = references.parse(text)
        if reference.digest:
            return [None]
        if reference.tag:
            return [reference]
        names = [references.parse(name) for name in sorted(index.names)]
        tagged = [name for name in names if name.name == reference.name]
        return [*tagged] or [reference.tagged]

    def _documents(self, chosen: list[Chosen]) -> dict[str, bytes]:
        saved = []
        manifests: list[oci.Descriptor] = []
        repositories: dict[str, dict[str, str]] = {}
        for image in chosen:
            record = image.record
            saved.append(
                oci.SavedImage(
                    config=_path(record.id),
                    repo_tags=tuple(name.familiar for name in image.names) or None,
                    layers=tuple(_path(blob) for blob in record.blobs),
                )
            )
            manifests += self._descriptors(image)
            for name in image.names:
                tags = repositories.setdefault(name.familiar_name, {})
                tags[name.tag] = record.id.removeprefix("sha256:")
        index = oci.Index(
            schema_version=2, media_type=MediaType.OCI_INDEX, manifests=tuple(manifests)
        )
        return {
            "index.json": oci.encode(index),
            "manifest.json": oci.encode(saved),
            "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
            "repositories": oci.encode(repositories),
        }

    def _descriptors(self, image: Chosen) -> list[oci.Descriptor]:
        """An index entry for each name, or one without."""
        record = image.record
        plain = oci.Descriptor(
            media_type=record.media_type,
            digest=record.manifest,
            size=self._store.content.size(record.manifest),
        )
        found = []
        for name in image.names:
            notes = {
                "io.containerd.image.name": name.canonical,
                "org.opencontainers.image.ref.name": name.tag,
            }
            found.append(msgspec.structs.replace(plain, annotations=notes))
        return found or [plain]


def _path(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    return f"blobs/{algorithm}/{value}"
