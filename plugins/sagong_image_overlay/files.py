"""Files of lent root filesystems: changes, stat, archives in and out, export, commit, usage."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagong.contracts.image import (
    ArchiveRequest,
    Change,
    ChangeList,
    CommitRequest,
    Image,
    ImageChanged,
    ImageUsage,
    PathStat,
    RootRef,
)
from sagong.contracts.streams import Address
from sagong.model import oci, references
from sagong.model.oci import MediaType
from sagong_image_overlay.configuration import Step, grown_config
from sagong_image_overlay.manifests import with_layer
from sagong_image_overlay.roots import Lease
from sagong_image_overlay.store import NewImage, Store
from sagong_image_overlay.streams import Streams

__all__ = ["Files", "PackedLayer"]


@dataclass(frozen=True)
class PackedLayer:
    """A layer that was packed into the content store."""

    diff_id: str
    digest: str
    size: int


class Files:
    """What is asked of a container's files; nothing is mounted for it."""

    def __init__(self, store: Store, streams: Streams) -> None:
        self._store = store
        self._streams = streams

    async def _arguments(self, identity: str) -> dict[str, Any]:
        lease = await self._store.stand(self._store.roots.get(identity))
        return {
            "layers": self._store.roots.stack(lease),
            "writable": not lease.readonly,
            "jail": str(self._store.spot.jail),
        }

    async def _path_arguments(self, request: ArchiveRequest) -> dict[str, Any]:
        arguments = await self._arguments(request.id)
        return {**arguments, "path": request.path, "mounts": request.mounts}

    async def changes(self, root: RootRef) -> ChangeList:
        """What the container changed."""
        lease = self._store.roots.get(root.id)
        if lease.readonly:
            return ChangeList()
        done = await self._store.workshop.run("changes", await self._arguments(root.id))
        return ChangeList(changes=tuple(Change(path=p, kind=k) for p, k in done["changes"]))

    async def stat(self, request: ArchiveRequest) -> PathStat:
        """Facts of a path."""
        done = await self._store.workshop.run("facts", await self._path_arguments(request))
        return PathStat(
            name=done["name"],
            size=done["size"],
            mode=done["mode"],
            mtime=done["mtime"],
            link_target=done["target"],
        )

    async def read_archive(self, request: ArchiveRequest) -> Address:
        """A path as a tar. A missing one is told now, since a raw stream can't tell."""
        arguments = await self._path_arguments(request)
        await self._store.workshop.run("facts", arguments)
        return self._offer("archive", arguments)

    async def export(self, root: RootRef) -> Address:
        """All files as a tar."""
        return self._offer("export", await self._arguments(root.id))

    def _offer(self, job: str, arguments: dict[str, Any]) -> Address:
        async def serve(peer: socket.socket) -> None:
            peer.setblocking(True)
            await self._store.workshop.run(job, arguments, [peer.fileno()])

        return self._streams.offer(serve)

    async def write_archive(self, request: ArchiveRequest) -> None:
        """Extract an upload into a directory."""
        arguments = {
            **await self._path_arguments(request),
            **self._store.layers.bounds(),
            "strict": request.no_overwrite_dir_non_dir,
        }
        async with self._streams.taken(request.upload) as upload:
            source = os.open(upload, os.O_RDONLY | os.O_CLOEXEC)
            try:
                await self._store.workshop.run("extract", arguments, [source])
            finally:
                os.close(source)

    async def commit(self, request: CommitRequest) -> Image:
        """Make an image of a container's changes."""
        store = self._store
        lease = store.roots.get(request.container)
        reference = references.parse(request.reference).tagged if request.reference else None
        parent = store.index.images.get(lease.image.id)
        layer = await self._pack(lease)
        step = Step(
            diff_id=layer.diff_id if layer else "",
            author=request.author,
            comment=request.comment,
            created_by=" ".join(lease.image.config.cmd or ()),
            config=request.config,
        )
        with store.content.pinned(*([layer.digest] if layer else [])):
            raw = grown_config(lease.image.raw, step)
            config = await asyncio.to_thread(store.content.put, raw)
            with store.content.pinned(config):
                manifest = self._manifest(lease, parent.manifest if parent else "", config, layer)
                new = NewImage(manifest, MediaType.OCI_MANIFEST, parent.id if parent else "")
                record = await store.add(new)
                if reference is not None:
                    await store.name(record, reference, "tag")
                else:
                    await store.index.save()
        name = reference.familiar if reference else ""
        store.emit(ImageChanged(action="commit", id=record.id, reference=name))
        return store.describe(store.index.images[record.id])

    def _manifest(self, lease: Lease, parent: str, config: str, layer: PackedLayer | None) -> bytes:
        raw = self._store.content.read(parent or lease.image.manifest_digest)
        added = None
        if layer is not None:
            added = oci.Descriptor(
                media_type=MediaType.OCI_LAYER_GZIP, digest=layer.digest, size=layer.size
            )
        return with_layer(raw, config, self._store.content.size(config), added)

    async def _pack(self, lease: Lease) -> PackedLayer | None:
        """Pack the writable layer into the content store; None if nothing is in it."""
        store = self._store
        path = store.content.partial / f"put-{secrets.token_hex(8)}"
        target = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            upper = store.roots.directory(lease.id) / "diff"
            arguments = {"upper": str(upper), "jail": str(store.spot.jail)}
            done = await store.workshop.run("layer", arguments, [target])
            if not done["entries"]:
                return None
            await asyncio.to_thread(self._adopt, path, done["digest"])
            return PackedLayer(done["diff_id"], done["digest"], done["size"])
        finally:
            os.close(target)
            path.unlink(missing_ok=True)

    def _adopt(self, path: Path, digest: str) -> None:
        if not self._store.content.has(digest):
            self._store.content.adopt(path, digest)

    async def usage(self) -> ImageUsage:
        """Bytes on disk."""
        store = self._store
        paths = {
            str(store.roots.directory(lease.id) / "diff"): lease.id
            for lease in store.roots.table.values()
            if not lease.readonly
        }
        found: dict[str, Any] = {}
        if paths:
            arguments = {"paths": list(paths), "jail": str(store.spot.jail)}
            found = await store.workshop.run("usage", arguments)
        sizes = {key: layer.size for key, layer in store.layers.table.items()}
        used = store.roots.layers_in_use()
        return ImageUsage(
            layers=sum(sizes.values()),
            reclaimable=sum(size for key, size in sizes.items() if key not in used),
            containers=tuple(sorted((paths[path], size) for path, size in found.items())),
        )
