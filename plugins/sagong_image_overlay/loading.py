"""Loading of archives: docker save's layout, OCI layouts, and plain root filesystems."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sagong.contracts.image import ImportRequest, LoadRequest, Progress
from sagong.errors import InvalidArgument, NotFound, ResourceExhausted, SagongError
from sagong.model import oci, references
from sagong.model.oci import MediaType
from sagong_image_overlay.configuration import Step, apply_changes, new_config
from sagong_image_overlay.content import Session
from sagong_image_overlay.errand import Errand
from sagong_image_overlay.manifests import is_foreign_compression, layer_type, new_manifest
from sagong_image_overlay.room import check_room
from sagong_image_overlay.store import NewImage, Store, machine, repack
from sagong_image_overlay.streams import Streams
from sagong_image_overlay.transfers import send_courier
from sagong_image_overlay.uploads import Upload

__all__ = ["Loading"]

_DOCUMENT = 8 << 20
# Of all together: an index of a megabyte can name one document ten thousand times.
_DOCUMENTS = 256 << 20
_NAME = "io.containerd.image.name"
_REF_NAME = "org.opencontainers.image.ref.name"


@dataclass(frozen=True)
class Found:
    """An image of an archive: its manifest if it has one, else its files; and its names.

    `layers` are files by diff ids, from the lowest.
    """

    names: tuple[str, ...]
    manifest: oci.Descriptor | None = None
    config: str = ""
    layers: tuple[tuple[str, str], ...] = ()


class Unpacked:
    """An archive unpacked into a directory of ours; its own links are followed inside only."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.realpath(root))
        self._taken: dict[Path, str] = {}
        self._read = 0

    def path(self, name: str) -> Path:
        """A file of the archive; NotFound if it lies outside or is none."""
        # Names that are none and links without end are errors of their own.
        with contextlib.suppress(OSError, ValueError, RecursionError):
            found = Path(os.path.realpath(self.root / name.lstrip("/")))
            if found.is_relative_to(self.root) and (found in self._taken or found.is_file()):
                return found
        raise InvalidArgument(f"the archive has no file {name[:200]!r}")

    def read(self, name: str) -> bytes | None:
        """A document of the archive, if it is there."""
        try:
            path = self.path(name)
        except InvalidArgument:
            return None
        return None if path in self._taken else self.document(path)

    def document(self, path: Path) -> bytes:
        """The bytes of a file that is no layer, which are held in memory."""
        with path.open("rb") as file:
            raw = file.read(_DOCUMENT + 1)
        if len(raw) > _DOCUMENT:
            raise InvalidArgument(f"{path.name} of the archive has more than {_DOCUMENT} bytes")
        self._read += len(raw)
        if self._read > _DOCUMENTS:
            raise ResourceExhausted(
                f"the archive's documents have more than {_DOCUMENTS} bytes; load its images apart"
            )
        return raw

    def taken(self, path: Path) -> str | None:
        """The digest under which the file was moved into the content store."""
        return self._taken.get(path)

    def take(self, path: Path, digest: str) -> None:
        """Note that the file is in the content store now."""
        self._taken[path] = digest


class Loading:
    """Loads images of uploaded archives."""

    def __init__(self, store: Store, streams: Streams) -> None:
        self._store = store
        self._streams = streams

    async def load(self, request: LoadRequest) -> AsyncGenerator[Progress, None]:
        """One item for each name of each image, or for the image if it has none."""
        async with self._streams.uploads.taken(request.upload) as upload:
            if upload.answered:
                for progress in _answered(upload):
                    yield progress
                return
            told = []
            async with contextlib.aclosing(self._loaded(request, upload)) as steps:
                async for progress in steps:
                    told.append(progress)
                    yield progress
            upload.answer = msgspec.msgpack.encode(told)

    async def _loaded(self, request: LoadRequest, upload: Upload) -> AsyncGenerator[Progress, None]:
        if not upload.files.is_dir():
            await self._unpack(upload)
        upload.whole.unlink(missing_ok=True)
        archive = Unpacked(upload.files)
        for found in await asyncio.to_thread(find_images, archive, request.platform):
            for progress in await self._load_one(archive, found):
                yield progress

    async def _unpack(self, upload: Upload) -> None:
        settings = self._store.settings
        check_room(upload.directory, settings.reserve, upload.whole.stat().st_size)
        directory = self._streams.uploads.new_directory()
        source = os.open(upload.whole, os.O_RDONLY | os.O_CLOEXEC)
        try:
            arguments = {"root": str(directory), "whiteouts": False, "own": True}
            arguments.update(self._store.layers.bounds())
            await self._store.workshop.run("unpack", arguments, [source])
            directory.rename(upload.files)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        finally:
            os.close(source)

    async def _load_one(self, archive: Unpacked, found: Found) -> list[Progress]:
        names = [references.parse(name).tagged for name in found.names]
        with self._store.content.session() as session:
            here = self._here(session, found)
            await self._recompress(session, archive, found, here)
            new = await asyncio.to_thread(self._adopt, session, archive, found, here)
            record = await self._store.add(new)
            before = {name: self._store.index.names.get(name.canonical, "") for name in names}
            for name in names:
                await self._store.name(record, name, "")
            if not names:
                await self._store.index.save()
        self._store.emit("load", record.id)
        if not names:
            return [Progress(status="Loaded", image=record.id, digest=record.manifest)]
        return [
            Progress(
                status="Loaded",
                image=record.id,
                digest=record.manifest,
                reference=name.familiar,
                replaced=before[name] if before[name] != record.id else "",
            )
            for name in names
        ]

    async def import_(self, request: ImportRequest) -> AsyncGenerator[Progress, None]:
        """One layer of the archive; the last item is the image."""
        store = self._store
        name = references.parse(request.reference).tagged if request.reference else None
        if name is not None and name.digest:
            raise InvalidArgument("cannot import digest reference")
        wanted = oci.parse_platform(request.platform, machine())
        changed = apply_changes({}, request.changes)
        async with contextlib.AsyncExitStack() as stack:
            upload: Upload | None = None
            if request.url:
                file = stack.enter_context(_deleted(self._streams.new_file()))
                async for progress in self._fetched(request.url, file):
                    yield progress
            else:
                taken = self._streams.uploads.taken(request.upload)
                upload = await stack.enter_async_context(taken)
                file = upload.whole
                if upload.answered:
                    for progress in _answered(upload):
                        yield progress
                    return
            with store.content.session() as session:
                layer, diff_id = await self._import_layer(session, file)
                step = Step(
                    diff_id=diff_id,
                    comment=request.message or f"Imported from {request.url or '-'}",
                    config=oci.encode(changed),
                )
                raw = new_config((wanted.os, wanted.architecture, wanted.variant), step)
                config = await asyncio.to_thread(session.put, raw)
                manifest = new_manifest(config, len(raw), [layer])
                record = await store.add(NewImage(manifest, MediaType.OCI_MANIFEST))
                if name is not None:
                    await store.name(record, name, "tag")
                else:
                    await store.index.save()
            shown = name.familiar if name else ""
            store.emit("import", record.id, shown)
            done = Progress(
                status=record.id, image=record.id, digest=record.manifest, reference=shown
            )
            if upload is not None:
                upload.answer = msgspec.msgpack.encode([done])
        yield done

    async def _fetched(self, url: str, path: Path) -> AsyncGenerator[Progress, None]:
        """Get the file of a URL, by a courier: nobody with rights reads what a stranger answers."""
        if not url.lower().startswith(("http://", "https://")):
            raise InvalidArgument(f"{url[:200]!r} is not a URL of http or https")
        errand = Errand(
            task="fetch",
            reference=url,
            content=str(path),
            reserve=self._store.settings.reserve,
            settings=self._store.settings.registries,
        )
        yield Progress(status=f"Downloading from {url}")
        async with contextlib.aclosing(send_courier(errand)) as events:
            async for event in events:
                if event["event"] == "status":
                    yield Progress(
                        status="Downloading", current=event["current"], total=event["total"]
                    )

    async def _import_layer(self, session: Session, upload: Path) -> tuple[oci.Descriptor, str]:
        """Keep the upload as a layer, compressed; its descriptor and uncompressed digest."""
        done = await repack(self._store, session, upload)
        if done["packed"]:
            digest = done["digest"]
        else:
            digest = await asyncio.to_thread(session.adopt, upload)
        return self._described(digest), done["diff_id"]

    def _here(self, session: Session, found: Found) -> dict[str, str]:
        """Blobs of layers that images here have, by diff ids: an archive need not hold these."""
        blobs = self._store.index.blobs_of({diff_id for diff_id, _ in found.layers})
        return {diff_id: blob for diff_id, blob in blobs.items() if session.has(blob)}

    async def _recompress(
        self, session: Session, archive: Unpacked, found: Found, here: Mapping[str, str]
    ) -> None:
        """Layers that nobody else would take as they are compressed are packed anew."""
        for diff_id, name in found.layers if found.manifest is None else ():
            if diff_id in here:
                continue
            path = archive.path(name)
            if archive.taken(path) is None and is_foreign_compression(path):
                done = await repack(self._store, session, path)
                archive.take(path, done["digest"])

    def _adopt(
        self, session: Session, archive: Unpacked, found: Found, here: Mapping[str, str]
    ) -> NewImage:
        """Move an image's files into the content store."""
        if found.manifest is not None:
            return self._adopt_manifest(session, archive, found.manifest)
        raw = archive.document(archive.path(found.config))
        config = session.put(raw)
        digests = [
            here.get(diff_id) or self._adopt_layer(session, archive, name)
            for diff_id, name in found.layers
        ]
        layers = [self._described(digest) for digest in digests]
        return NewImage(new_manifest(config, len(raw), layers), MediaType.OCI_MANIFEST)

    def _adopt_layer(self, session: Session, archive: Unpacked, name: str) -> str:
        path = archive.path(name)
        digest = archive.taken(path)
        if digest is None:
            digest = session.adopt(path)
            archive.take(path, digest)
        session.keep(digest)
        return digest

    def _described(self, digest: str) -> oci.Descriptor:
        """A layer that is kept, by its first bytes."""
        path = self._store.content.path(digest)
        return oci.Descriptor(media_type=layer_type(path), digest=digest, size=path.stat().st_size)

    def _adopt_manifest(
        self, session: Session, archive: Unpacked, descriptor: oci.Descriptor
    ) -> NewImage:
        raw = _blob(archive, descriptor.digest)
        manifest = oci.decode(raw, oci.Manifest, f"manifest {descriptor.digest}")
        for part in (manifest.config, *manifest.layers):
            if session.has(part.digest):
                continue
            path = archive.path(_blob_path(part.digest))
            session.adopt(path, part.digest)
            archive.take(path, part.digest)
        return NewImage(raw, manifest.media_type or descriptor.media_type)


def _answered(upload: Upload) -> list[Progress]:
    """What a predecessor has said of an upload, before it ended."""
    return msgspec.msgpack.decode(upload.answer, type=list[Progress])


@contextlib.contextmanager
def _deleted(path: Path) -> Iterator[Path]:
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _blob_path(digest: str) -> str:
    algorithm, _, value = oci.check_digest(digest).partition(":")
    return f"blobs/{algorithm}/{value}"


def _blob(archive: Unpacked, digest: str) -> bytes:
    raw = archive.read(_blob_path(digest))
    if raw is None:
        raise InvalidArgument(f"the archive lacks the blob {digest}")
    if oci.digest_of(raw, digest.partition(":")[0]) != digest:
        raise InvalidArgument(f"the archive's blob {digest} is damaged")
    return raw


def find_images(archive: Unpacked, platform: str = "") -> list[Found]:
    """The images of an archive in either layout, for a platform where there are several."""
    saved, index = archive.read("manifest.json"), archive.read("index.json")
    if saved is None and index is None:
        raise InvalidArgument(
            "the archive is neither of docker save nor an OCI layout: "
            "it has no manifest.json and no index.json"
        )
    listed = _of_layout(archive, index, platform) if index is not None else []
    if saved is None:
        return listed
    return _of_docker(archive, saved, listed)


def _of_docker(archive: Unpacked, raw: bytes, listed: list[Found]) -> list[Found]:
    """Images of manifest.json; the manifests of an index beside it are kept where they fit."""
    manifests = {}
    for found in listed:
        if found.manifest is not None:
            blob = _blob(archive, found.manifest.digest)
            config = oci.decode(blob, oci.Manifest, "manifest").config.digest
            manifests[config] = found.manifest
    images = []
    for saved in oci.decode(raw, list[oci.SavedImage], "manifest.json"):
        document = archive.document(archive.path(saved.config))
        manifest = manifests.get(oci.digest_of(document))
        layers = _by_diff_ids(document, saved)
        images.append(Found(saved.repo_tags or (), manifest, saved.config, layers))
    return images


def _by_diff_ids(document: bytes, saved: oci.SavedImage) -> tuple[tuple[str, str], ...]:
    """The files of an image's layers with what its config calls them."""
    diff_ids = oci.decode(document, oci.Config, f"config {saved.config}").rootfs.diff_ids
    files = saved.layers or ()
    if len(diff_ids) != len(files):
        raise InvalidArgument(
            f"manifest.json names {len(files)} layers of {saved.config}, which has {len(diff_ids)}"
        )
    return tuple(zip(diff_ids, files))


def _of_layout(archive: Unpacked, raw: bytes, platform: str) -> list[Found]:
    index = oci.decode(raw, oci.Index, "index.json")
    images: dict[str, Found] = {}
    for descriptor in index.manifests:
        manifest = _platform_manifest(archive, descriptor, platform)
        if manifest is None:
            continue
        known = images.get(manifest.digest, Found(()))
        names = (*known.names, *_names_of(descriptor))
        images[manifest.digest] = Found(tuple(dict.fromkeys(names)), manifest)
    return list(images.values())


def _names_of(descriptor: oci.Descriptor) -> list[str]:
    notes = descriptor.annotations or {}
    for key in (_NAME, _REF_NAME):
        name = notes.get(key, "")
        # A bare tag, as the specification has it, names no repository.
        if "/" in name or ":" in name:
            with contextlib.suppress(SagongError):
                return [references.parse(name).canonical]
    return []


def _platform_manifest(
    archive: Unpacked, descriptor: oci.Descriptor, platform: str, depth: int = 0
) -> oci.Descriptor | None:
    """The manifest itself, or of an index the one for the platform; without one this machine's, else
    the first."""
    if oci.is_manifest(descriptor.media_type):
        notes = descriptor.annotations or {}
        return None if "vnd.docker.reference.type" in notes else descriptor
    if not oci.is_index(descriptor.media_type) or depth > 3:
        return None
    index = oci.decode(_blob(archive, descriptor.digest), oci.Index, "index")
    here = [d for d in index.manifests if archive.read(_blob_path(d.digest)) is not None]
    wanted = oci.parse_platform(platform, machine())
    if platform:
        here = [d for d in here if d.platform and oci.normal_platform(d.platform) == wanted]
    here.sort(key=lambda d: d.platform is None or oci.normal_platform(d.platform) != wanted)
    for candidate in here:
        manifest = _platform_manifest(archive, candidate, platform, depth + 1)
        if manifest is not None:
            return manifest
    kind = f" for {oci.platform_text(wanted)}" if platform else ""
    raise NotFound(f"the archive has no manifest{kind} of index {descriptor.digest}")
