"""Files of lent root filesystems: changes, stat, archives in and out, export, usage."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any

from sagong.contracts.image import (
    ArchiveRequest,
    Change,
    ChangeList,
    DirectoryList,
    ImageUsage,
    PathStat,
    RootRef,
)
from sagong.contracts.streams import Address
from sagong_image_overlay.store import Store
from sagong_image_overlay.streams import Streams

__all__ = ["Files"]


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
        return ChangeList(changes=tuple(Change(path=_text(p), kind=k) for p, k in done["changes"]))

    async def stat(self, request: ArchiveRequest) -> PathStat:
        """Facts of a path."""
        done = await self._store.workshop.run("facts", await self._path_arguments(request))
        return _path_stat(done)

    async def part(self, identity: str, path: str) -> tuple[bool, list[str]]:
        """Whether a path is a directory, and where it lies, from the topmost layer down."""
        arguments = {**await self._arguments(identity), "path": path, "mounts": ()}
        done = await self._store.workshop.run("part", arguments)
        # Layer 0 is the writable one, which read-only leases keep empty.
        stack = ["", *arguments["layers"]] if not arguments["writable"] else arguments["layers"]
        below = done["path"] and "/" + done["path"]
        return done["directory"], [stack[layer] + below for layer in done["layers"]]

    async def directory(self, request: ArchiveRequest) -> DirectoryList:
        """What a directory holds."""
        done = await self._store.workshop.run("names", await self._path_arguments(request))
        return DirectoryList(entries=tuple(_path_stat(one) for one in done["entries"]))

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

        return self._streams.offer(serve, "whole")

    async def write_archive(self, request: ArchiveRequest) -> None:
        """Extract an upload into a directory."""
        arguments = {
            **await self._path_arguments(request),
            **self._store.layers.bounds(),
            "strict": request.no_overwrite_dir_non_dir,
            "make_path": request.make_path,
            "owner": (request.uid, request.gid),
            "owned": request.copy_uid_gid,
        }
        async with self._streams.uploads.taken(request.upload) as upload:
            if upload.answered:
                return
            source = os.open(upload.whole, os.O_RDONLY | os.O_CLOEXEC)
            try:
                await self._store.workshop.run("extract", arguments, [source])
            finally:
                os.close(source)

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


def _path_stat(done: Mapping[str, Any]) -> PathStat:
    return PathStat(
        name=_text(done["name"]),
        size=done["size"],
        mode=done["mode"],
        mtime=done["mtime"],
        link_target=_text(done["target"]),
        real=_text(done.get("real", "")),
        uid=done["uid"],
        gid=done["gid"],
    )


def _text(name: str) -> str:
    """A name that can be told: what is no UTF-8 in it is replaced, as Docker does."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
