"""The plugin: slots `image` and `content`. Each method is a few lines over the parts beside it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
from collections.abc import AsyncIterator, Sequence

import msgspec

from sagong.contracts.content import Content
from sagong.contracts.image import (
    ArchiveRequest,
    ChangeList,
    CommitRequest,
    DeriveRequest,
    DirectoryList,
    Distribution,
    DistributionRequest,
    Image,
    ImageList,
    ImageQuery,
    ImageRef,
    Images,
    ImageUsage,
    ImportRequest,
    LoadRequest,
    Login,
    LoginRequest,
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
    SearchRequest,
    SearchResults,
    SquashRequest,
    TagRequest,
)
from sagong.contracts.runtime import Mount
from sagong.contracts.streams import Address
from sagong.errors import InvalidArgument, NotFound, SagongError
from sagong.host import Host
from sagong.linux import capabilities, syscalls
from sagong.model import oci, patterns, references
from sagong.model.times import parse_time
from sagong_image_overlay.blobs import Blobs
from sagong_image_overlay.commits import Commits
from sagong_image_overlay.configuration import step_query
from sagong_image_overlay.files import Files
from sagong_image_overlay.index import Record
from sagong_image_overlay.loading import Loading
from sagong_image_overlay.platforms import check_platform
from sagong_image_overlay.pushes import Pushes
from sagong_image_overlay.questions import Questions
from sagong_image_overlay.removal import Removal
from sagong_image_overlay.roots import Lease, overlay_of
from sagong_image_overlay.saving import Saving
from sagong_image_overlay.settings import Settings
from sagong_image_overlay.store import Store, machine
from sagong_image_overlay.streams import Streams
from sagong_image_overlay.transfers import Transfers
from sagong_image_overlay.uploads import Uploads

__all__ = ["ImageOverlay"]

_GATHER = 0.2


class ImageOverlay:
    """Images as overlayfs layers."""

    def __init__(self, host: Host) -> None:
        self._host = host
        settings = host.config(Settings)
        self._store = Store(host.data, settings, host.emit)
        uploads = Uploads(self._store.spot.uploads, settings.reserve)
        self._streams = Streams(host.run / "streams.sock", self._store.spot.work, uploads)
        self._loading = Loading(self._store, self._streams)
        self._transfers = Transfers(self._store)
        self._pushes = Pushes(self._store)
        self._files = Files(self._store, self._streams)
        self._commits = Commits(self._store)
        self._saving = Saving(self._store, self._streams)
        self._questions = Questions(settings)
        self._removal = Removal(self._store)
        self._chores = asyncio.Event()
        # Both slots have a method `stat`.
        self.implementation = {
            Images: self,
            Content: Blobs(self._store, self._streams, self._chores.set),
        }

    async def start(self) -> None:
        """Open the store, listen for byte streams, begin to tidy up."""
        _lower_rights()
        await asyncio.to_thread(self._store.load)
        if self._store.is_littered:
            await self._store.collect()
        self._streams.start()
        self._store.writes.start()
        self._chores.set()
        self._host.spawn(self._tidy(), "image-tidy")

    def busy(self) -> bool:
        """Whether bytes are on their way, or waited for."""
        return self._streams.used

    async def drain(self) -> None:
        """What is cut short from now on goes on at a successor."""
        self._streams.uploads.leave()

    async def stop(self) -> None:
        """Close streams, end the workshop."""
        await self._streams.stop()
        self._store.writes.close()
        self._store.holds.close()
        self._store.workshop.close()

    async def _tidy(self) -> None:
        """Delete what was discarded and settle new layers, whenever there may be any."""
        while True:
            await self._chores.wait()
            await asyncio.sleep(_GATHER)  # what others discard meanwhile goes with it
            self._chores.clear()
            try:
                await self._store.roots.sweep()
                await self._store.roots.settle()
                if os.listdir(self._store.spot.trash):
                    await self._store.layers.empty_trash()
                await self._store.layers.settle()
            except (SagongError, OSError) as error:
                # It is tried again after the next change; nothing depends on it.
                self._host.log.warning("tidying up failed", extra={"reason": str(error)})

    # Images.

    async def upload(self) -> Address:
        """Where to send bytes."""
        return self._streams.new_upload()

    async def load(self, request: LoadRequest) -> AsyncIterator[Progress]:
        """Load images of an archive."""
        try:
            async with contextlib.aclosing(self._loading.load(request)) as steps:
                async for progress in steps:
                    yield progress
        finally:
            self._chores.set()

    async def inspect(self, image: ImageRef) -> Image:
        """One image."""
        return self._store.describe(self._store.index.find(image.reference))

    async def list(self, query: ImageQuery) -> ImageList:
        """Images that match, newest first."""
        index = self._store.index
        records = index.children(query.parent) if query.parent else index.images.values()
        if query.step:
            step = step_query(query.step)
            records = [record for record in records if self._store.step_of(record) == step]
        images = [self._store.describe(r) for r in records if self._matches(r, query)]
        images = [image for image in images if _has_facts(image, query)]
        images.sort(key=lambda image: (image.created, image.id), reverse=True)
        if query.brief:
            images = [msgspec.structs.replace(image, raw=b"", history=b"[]") for image in images]
        return ImageList(images=tuple(images))

    def _matches(self, record: Record, query: ImageQuery) -> bool:
        index = self._store.index
        names, digests = index.names_of(record.id), index.digests_of(record.id)
        untagged = not names
        intermediate = untagged and bool(index.children(record.id))
        if intermediate and not query.all and not query.parent:
            return False
        if query.dangling is not None and query.dangling != (untagged and not intermediate):
            return False
        if not query.reference:
            return True
        return any(_is_named(reference, query.reference) for reference in (*names, *digests))

    async def tag(self, request: TagRequest) -> None:
        """Name an image."""
        record = self._store.index.find(request.source)
        target = references.parse(request.target)
        if target.digest:
            raise InvalidArgument("refusing to create a tag with a digest reference")
        if target.familiar_name == "sha256":
            raise InvalidArgument(
                "refusing to create an ambiguous tag using digest algorithm as name"
            )
        parts = tuple(self._store.index.find(part).id for part in request.parts)
        if parts and record.id not in parts:
            raise InvalidArgument(f"{request.source} is none of the parts of {request.target}")
        await self._store.name(record, target.tagged, "tag", parts)

    async def import_(self, request: ImportRequest) -> AsyncIterator[Progress]:
        """Make an image of a filesystem archive."""
        try:
            async with contextlib.aclosing(self._loading.import_(request)) as steps:
                async for progress in steps:
                    yield progress
        finally:
            self._chores.set()

    async def save(self, request: SaveRequest) -> Address:
        """A stream of the images' archive."""
        return self._saving.save(request)

    async def pull(self, request: PullRequest) -> AsyncIterator[Progress]:
        """Get an image from a registry."""
        try:
            async with contextlib.aclosing(self._transfers.pull(request)) as steps:
                async for progress in steps:
                    yield progress
        finally:
            self._chores.set()

    async def push(self, request: PushRequest) -> AsyncIterator[Progress]:
        """Send an image to a registry."""
        async with contextlib.aclosing(self._pushes.push(request)) as steps:
            async for progress in steps:
                yield progress

    async def search(self, request: SearchRequest) -> SearchResults:
        """Repositories that fit a term."""
        return await self._questions.search(request)

    async def distribution(self, request: DistributionRequest) -> Distribution:
        """What a name stands for at its registry."""
        return await self._questions.distribution(request)

    async def login(self, request: LoginRequest) -> Login:
        """Whether a registry takes credentials."""
        return await self._questions.login(request)

    async def remove(self, request: RemoveRequest) -> Removed:
        """Remove a name or an image."""
        try:
            return await self._removal.remove(request)
        finally:
            self._chores.set()

    async def prune(self, query: ImageQuery) -> Removed:
        """Remove images that nothing uses."""
        wanted = msgspec.structs.replace(query, all=True, dangling=None)
        found = await self.list(wanted)
        try:
            return await self._removal.prune(query, [image.id for image in found.images])
        finally:
            self._chores.set()

    async def usage(self) -> ImageUsage:
        """Disk usage."""
        return await self._files.usage()

    # Files of root filesystems.

    async def changes(self, root: RootRef) -> ChangeList:
        """What a container changed."""
        return await self._files.changes(root)

    async def commit(self, request: CommitRequest) -> Image:
        """Make an image of a container."""
        try:
            return await self._commits.commit(request)
        finally:
            self._chores.set()

    async def derive(self, request: DeriveRequest) -> Image:
        """Make an image with another config."""
        return await self._commits.derive(request)

    async def squash(self, request: SquashRequest) -> Image:
        """Make an image with several layers as one."""
        try:
            return await self._commits.squash(request)
        finally:
            self._chores.set()

    async def export(self, root: RootRef) -> Address:
        """A stream of all files."""
        return await self._files.export(root)

    async def stat(self, request: ArchiveRequest) -> PathStat:
        """Facts of a path."""
        return await self._files.stat(request)

    async def directory(self, request: ArchiveRequest) -> DirectoryList:
        """What a directory holds."""
        return await self._files.directory(request)

    async def read_archive(self, request: ArchiveRequest) -> Address:
        """A stream of a path's archive."""
        return await self._files.read_archive(request)

    async def write_archive(self, request: ArchiveRequest) -> None:
        """Extract an upload."""
        await self._files.write_archive(request)

    # Root filesystems.

    async def prepare(self, request: PrepareRequest) -> Prepared:
        """Lend a root filesystem."""
        lease = self._store.roots.table.get(request.id)
        if lease is None:
            lease = await self._lend(request)
            self._chores.set()
        prepared = await self._prepared(await self._store.stand(lease))
        return await self._partly(prepared, request) if request.subpath else prepared

    async def _partly(self, prepared: Prepared, request: PrepareRequest) -> Prepared:
        """A directory or file of it alone: what all layers have of a directory is one overlay."""
        if not request.readonly:
            raise InvalidArgument("only a part of a read-only root filesystem can be lent")
        try:
            directory, places = await self._files.part(request.id, request.subpath)
        except NotFound:
            raise NotFound(
                f"cannot access path {request.subpath} of image {request.image}: "
                "no such file or directory"
            ) from None
        root = Mount(target="/", kind="bind", source=places[0], options=("ro",))
        if directory and len(places) > 1:
            root = overlay_of(places)
        return msgspec.structs.replace(prepared, root=root, lower=tuple(places))

    async def _lend(self, request: PrepareRequest) -> Lease:
        store = self._store
        if not request.image:
            return await self._lend_empty(request)
        found = store.index.find(request.image)
        with store.keeping(*found.layers, found.points), store.content.pinned(*found.content):
            record = await store.ensure(found)
            image = store.describe(record)
            check_platform(image, request.image, request.platform)
            lease = Lease(
                id=request.id,
                image=image,
                layers=record.layers if request.bare else (*record.layers, record.points),
                content=tuple(sorted(record.content)),
                readonly=request.readonly,
                bare=request.bare,
                size=self._size(request),
            )
            return self._lent(lease)

    def _size(self, request: PrepareRequest) -> int:
        """Of its writable layer: what is asked for, or what all have."""
        size = request.storage_size or self._store.settings.layer_size
        if not size or request.readonly or request.bare:
            return 0
        self._store.roots.check_quotas()
        return size

    def _lent(self, lease: Lease) -> Lease:
        # A twin of this call may have been faster while layers were unpacked.
        known = self._store.roots.table.get(lease.id)
        if known is not None:
            return known
        return self._store.roots.lend(lease)

    async def _lend_empty(self, request: PrepareRequest) -> Lease:
        """The root of an image of no layers, Dockerfile's scratch."""
        with self._store.keeping_chain(()):
            _, points = await self._store.assemble((), ())
            lease = Lease(
                id=request.id,
                image=Image(id="", architecture=oci.parse_platform("", machine()).architecture),
                layers=() if request.bare else (points,),
                readonly=request.readonly,
                bare=request.bare,
                size=self._size(request),
            )
            return self._lent(lease)

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

    async def _identity(self, lease: Lease, stack: Sequence[str]) -> tuple[bytes, bytes]:
        """passwd and group: those of the image, unless the container may have its own."""
        if not lease.bare and not _may_differ(stack[0]):
            points = self._store.layers.table[lease.layers[-1]]
            return points.passwd, points.group
        arguments = {"layers": [*stack], "writable": True, "jail": str(self._store.spot.jail)}
        found = await self._store.workshop.run("identity", arguments)
        return base64.b64decode(found["passwd"]), base64.b64decode(found["group"])

    async def release(self, root: RootRef) -> None:
        """Take a root filesystem back."""
        if self._store.roots.release(root.id):
            self._chores.set()


def _lower_rights() -> None:
    """Keep the children's capabilities out of effect here, but for what leases need.

    They stay permitted and ambient, so that the workshop has them.
    """
    if os.geteuid() != 0:
        _, permitted, inheritable = syscalls.capget()
        own = capabilities.mask_of(("CAP_CHOWN", "CAP_FOWNER")) & permitted
        syscalls.capset(own, permitted, inheritable)


def _may_differ(upper: str) -> bool:
    """Whether the writable layer can have its own users: not if its /etc only adds other files."""
    try:
        with os.scandir(f"{upper}/etc") as entries:
            changed = any(entry.name in ("passwd", "group") for entry in entries)
        return changed or "user.overlay.opaque" in os.listxattr(f"{upper}/etc")
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _has_facts(image: Image, query: ImageQuery) -> bool:
    """The conditions on labels and on the time of creation."""
    labels = dict(image.config.labels)

    def has(text: str) -> bool:
        key, equals, value = text.partition("=")
        return key in labels and (not equals or labels[key] == value)

    if not all(map(has, query.labels)) or any(map(has, query.without_labels)):
        return False
    return not query.until or _seconds(image.created) < query.until


def _seconds(moment: str) -> float:
    """Of an RFC 3339 time; 0 if it is none."""
    try:
        return parse_time(moment)
    except InvalidArgument:
        return 0.0


def _is_named(reference: references.Reference, pattern: str) -> bool:
    """Docker's `reference` filter: a name or a pattern, with or without the tag."""
    forms = {reference.familiar, reference.familiar_name, reference.canonical}
    forms.add(reference.name)
    if pattern in forms:
        return True
    with contextlib.suppress(InvalidArgument):
        if references.parse(pattern).canonical == reference.name:
            return True
    wanted = patterns.translated(pattern)
    return any(map(wanted.fullmatch, forms))
