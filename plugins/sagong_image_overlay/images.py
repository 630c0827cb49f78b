"""The plugin: slot `image` by overlayfs. Each method is a few lines over the parts beside it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
from collections.abc import AsyncIterator
from fnmatch import fnmatchcase

import msgspec

from sagong.contracts.image import (
    ArchiveRequest,
    ChangeList,
    CommitRequest,
    Image,
    ImageList,
    ImageQuery,
    ImageRef,
    ImageUsage,
    ImportRequest,
    LoadRequest,
    PathStat,
    Prepared,
    PrepareRequest,
    Progress,
    PullRequest,
    PushRequest,
    Removed,
    RemoveRequest,
    RootRef,
    SaveRequest,
    TagRequest,
)
from sagong.contracts.streams import Address
from sagong.errors import InvalidArgument, NotFound
from sagong.host import Host
from sagong.model import oci
from sagong_image_overlay import naming
from sagong_image_overlay.index import Record
from sagong_image_overlay.loading import Loading
from sagong_image_overlay.roots import Lease
from sagong_image_overlay.settings import Settings
from sagong_image_overlay.store import Store, machine
from sagong_image_overlay.streams import Streams

__all__ = ["ImageOverlay"]

_IDENTITY_FILES = ("etc/passwd", "etc/group")


class ImageOverlay:
    """Images as overlayfs layers."""

    def __init__(self, host: Host) -> None:
        self._host = host
        settings = host.config(Settings)
        self._store = Store(host.data, settings, host.emit)
        self._streams = Streams(host.run / "streams.sock", self._store.spot.work)
        self._loading = Loading(self._store, self._streams)
        self._identities: dict[str, tuple[bytes, bytes]] = {}
        self._chores = asyncio.Event()

    async def start(self) -> None:
        """Open the store, listen for byte streams, begin to tidy up."""
        await asyncio.to_thread(self._store.load)
        self._streams.start()
        self._chores.set()
        self._host.spawn(self._tidy(), "image-tidy")

    async def stop(self) -> None:
        """Close streams, end the workshop."""
        await self._streams.stop()
        self._store.workshop.close()

    async def _tidy(self) -> None:
        """Delete what was discarded and settle new layers, whenever there may be any."""
        while True:
            await self._chores.wait()
            self._chores.clear()
            if os.listdir(self._store.spot.trash):
                await self._store.layers.empty_trash()
            await self._store.layers.settle()

    # Images.

    async def upload(self) -> Address:
        """Where to send bytes."""
        return self._streams.new_upload()

    async def load(self, request: LoadRequest) -> AsyncIterator[Progress]:
        """Load images of an archive."""
        try:
            async for progress in self._loading.load(request):
                yield progress
        finally:
            self._chores.set()

    async def inspect(self, image: ImageRef) -> Image:
        """One image."""
        return self._store.describe(self._store.index.find(image.reference))

    async def list(self, query: ImageQuery) -> ImageList:
        """Images that match, newest first."""
        index = self._store.index
        images = [self._store.describe(r) for r in index.images.values() if self._matches(r, query)]
        images.sort(key=lambda image: (image.created, image.id), reverse=True)
        return ImageList(images=tuple(images))

    def _matches(self, record: Record, query: ImageQuery) -> bool:
        index = self._store.index
        names, digests = index.names_of(record.id), index.digests_of(record.id)
        untagged = not names
        intermediate = untagged and bool(index.children(record.id))
        if intermediate and not query.all:
            return False
        if query.dangling is not None and query.dangling != (untagged and not intermediate):
            return False
        if not query.reference:
            return True
        return any(_is_named(reference, query.reference) for reference in (*names, *digests))

    async def tag(self, request: TagRequest) -> None:
        """Name an image."""
        record = self._store.index.find(request.source)
        target = naming.parse(request.target)
        if target.digest:
            raise InvalidArgument("refusing to create a tag with a digest reference")
        await self._store.name(record, target.tagged(), "tag")

    # Root filesystems.

    async def prepare(self, request: PrepareRequest) -> Prepared:
        """Lend a root filesystem."""
        lease = self._store.roots.table.get(request.id)
        if lease is None:
            lease = await self._lend(request)
        return await self._prepared(lease)

    async def _lend(self, request: PrepareRequest) -> Lease:
        store = self._store
        found = store.index.find(request.image)
        with store.keeping(*found.layers, found.points), store.content.pinned(*found.content):
            record = await store.ensure(found)
            image = store.describe(record)
            _check_platform(image, request)
            lease = Lease(
                id=request.id,
                image=image,
                layers=(*record.layers, record.points),
                readonly=request.readonly,
            )
            # A twin of this call may have been faster while layers were unpacked.
            known = store.roots.table.get(request.id)
            if known is not None:
                return known
            store.roots.lend(lease)
        return lease

    async def _prepared(self, lease: Lease) -> Prepared:
        stack = self._store.roots.stack(lease)
        passwd, group = await self._identity(lease, stack)
        return Prepared(
            root=self._store.roots.mount(lease),
            lower=tuple(stack[1:]),
            upper="" if lease.readonly else stack[0],
            image=lease.image,
            passwd=passwd,
            group=group,
        )

    async def _identity(self, lease: Lease, stack: list[str]) -> tuple[bytes, bytes]:
        """passwd and group; a container that has an /etc of its own may have changed them."""
        own = os.path.lexists(f"{stack[0]}/etc")
        known = None if own else self._identities.get(lease.image.id)
        if known is None:
            known = await self._read_identity(stack)
            if not own:
                self._identities[lease.image.id] = known
        return known

    async def _read_identity(self, stack: list[str]) -> tuple[bytes, bytes]:
        arguments = {
            "layers": stack,
            "writable": True,
            "paths": _IDENTITY_FILES,
            "jail": str(self._store.spot.jail),
        }
        found = await self._store.workshop.run("read_files", arguments)
        passwd, group = (base64.b64decode(found.get(name, "")) for name in _IDENTITY_FILES)
        return passwd, group

    async def release(self, root: RootRef) -> None:
        """Take a root filesystem back."""
        if self._store.roots.release(root.id):
            self._chores.set()


def _is_named(reference: naming.Reference, pattern: str) -> bool:
    """Docker's `reference` filter: a name or a pattern, with or without the tag."""
    forms = {reference.familiar, reference.familiar_repository, reference.full}
    forms.add(reference.repository)
    if pattern in forms:
        return True
    with contextlib.suppress(InvalidArgument):
        if naming.parse(pattern).full == reference.repository:
            return True
    return any(_path_matches(form, pattern) for form in forms)


def _path_matches(form: str, pattern: str) -> bool:
    """Like a path's pattern: "*" does not cross a slash."""
    parts, wanted = form.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def _check_platform(image: Image, request: PrepareRequest) -> None:
    if not request.platform:
        return
    has = oci.normal_platform(
        oci.Platform(architecture=image.architecture, os=image.os, variant=image.variant)
    )
    wanted = oci.parse_platform(request.platform, machine())
    if (has.os, has.architecture) != (wanted.os, wanted.architecture) or (
        wanted.variant and has.variant and wanted.variant != has.variant
    ):
        raise NotFound(
            f"image with reference {request.image} was found but does not match the specified "
            f"platform: wanted {oci.platform_text(wanted)}, actual: {oci.platform_text(has)}"
        )
