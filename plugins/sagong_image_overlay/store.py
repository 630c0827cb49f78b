"""The store as a whole: content, layers, index and leases, and how an image comes into it."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from sagong.contract import Message
from sagong.contracts.image import Image, ImageChanged, ImageConfig
from sagong.contracts.image import Layer as LayerFacts
from sagong.errors import InvalidArgument, NotFound
from sagong.model import oci, references
from sagong_image_overlay.configuration import step_digest
from sagong_image_overlay.content import Content, Session
from sagong_image_overlay.holds import Holds
from sagong_image_overlay.index import Index, Record
from sagong_image_overlay.layers import Layers, Spot
from sagong_image_overlay.roots import Lease, Roots
from sagong_image_overlay.settings import Settings
from sagong_image_overlay.workshop import Workshop
from sagong_image_overlay.writes import Writes

__all__ = ["Freed", "NewImage", "Stack", "Store", "first_of", "machine", "repack", "runnable"]

Progress = Callable[[int, int], None]
_LAYERS_LIMIT = 500
_PORTION = 100
# Interrupted downloads that nobody went on with for a week.
_PARTIALS_SECONDS = 7 * 86400.0


@dataclass(frozen=True)
class NewImage:
    """An image whose blobs are in the content store already."""

    manifest: bytes
    media_type: str
    parent: str = ""
    made: str = ""


@dataclass(frozen=True)
class Stack:
    """What an image is made of: diff ids, blobs and layer keys from the lowest, mount points."""

    diff_ids: tuple[str, ...] = ()
    blobs: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    points: str = ""


@dataclass(frozen=True)
class Freed:
    """What garbage collection freed: blobs, and bytes of blobs and layers."""

    blobs: int = 0
    bytes: int = 0


class Store:
    """Everything that this plugin keeps, below one directory."""

    def __init__(
        self, root: Path, settings: Settings, emit: Callable[[Message], None] = lambda _: None
    ) -> None:
        self.spot = Spot(root=root)
        self.settings = settings
        self.workshop = Workshop(parallel=settings.parallel)
        self.content = Content(root / "content")
        self.layers = Layers(self.spot, self.workshop, settings)
        self.index = Index(root / "index.json")
        self.roots = Roots(self.spot, self.layers)
        self.holds = Holds(root / "holds.sqlite")
        self.writes = Writes(root / "writes", self.content, settings.reserve)
        self._emit = emit
        self._facts: dict[str, Image] = {}
        self._steps: dict[str, bytes] = {}
        self._pinned_layers: dict[str, int] = {}

    def load(self) -> None:
        """Open what is there; sweep what a crash left."""
        self.spot.prepare()
        self.content.prepare()
        for path in self.spot.work.iterdir():
            self.layers.discard(path)
        for path in self.content.partial.glob("put-*"):
            path.unlink()
        self.content.drop_partials(_PARTIALS_SECONDS)
        self.layers.load()
        self.index.load()
        self.roots.load()
        self.holds.load()
        self.writes.load()
        for record in list(self.index.images.values()):
            if not (self.content.has(record.id) and self.content.has(record.manifest)):
                # Somebody deleted its files: an image that can't be told of helps nobody.
                self.index.forget(record.id)

    # Telling of images.

    def emit(self, action: str, identity: str, reference: str = "") -> None:
        """Tell what was done with an image."""
        self._emit(self.change(action, identity, reference))

    def change(self, action: str, identity: str, reference: str = "") -> ImageChanged:
        """What is told of an image, with its labels while it is here."""
        record = self.index.images.get(identity)
        labels = self.describe(record).config.labels if record is not None else ()
        return ImageChanged(action=action, id=identity, reference=reference, labels=labels)

    def tell(self, events: Iterable[ImageChanged]) -> None:
        """Tell what was noted before."""
        for event in events:
            self._emit(event)

    def describe(self, record: Record) -> Image:
        """The image with the names that it has now."""
        facts = self._facts.get(record.id)
        if facts is None:
            facts = self._facts[record.id] = self._read(record)
        return msgspec.structs.replace(
            facts,
            tags=tuple(reference.familiar for reference in self.index.names_of(record.id)),
            digests=tuple(reference.familiar for reference in self.index.digests_of(record.id)),
            tagged_at=record.tagged_at,
            parent=record.parent,
        )

    def _read(self, record: Record) -> Image:
        raw = self.content.read(record.id)
        config = oci.decode(raw, oci.Config, f"config {record.id}")
        layers = tuple(
            LayerFacts(diff_id=diff_id, size=self.layer_size(key))
            for diff_id, key in zip(record.diff_ids, record.layers)
        )
        return Image(
            id=record.id,
            created=config.created or "",
            author=config.author,
            architecture=config.architecture,
            os=config.os or "linux",
            variant=config.variant,
            size=sum(layer.size for layer in layers),
            layers=layers,
            config=runnable(config.config or oci.ContainerConfig()),
            history=oci.encode(config.history or ()),
            raw=raw,
            manifest_digest=record.manifest,
        )

    def step_of(self, record: Record) -> bytes:
        """What step of a build an image is (`step_digest`); its config never changes."""
        found = self._steps.get(record.id)
        if found is None:
            raw = self.content.read(record.id)
            found = self._steps[record.id] = step_digest(raw)
        return found

    def layer_size(self, key: str) -> int:
        """Bytes of an unpacked layer, 0 if it is not unpacked now."""
        layer = self.layers.table.get(key)
        return layer.size if layer else 0

    # Adding images.

    async def add(
        self, new: NewImage, progress: Callable[[str, int], None] | None = None
    ) -> Record:
        """Unpack an image's layers and put it into the index (in memory; `save` makes it durable).

        `progress` is told the blob's digest and the bytes of it that were unpacked.
        """
        manifest = oci.decode(new.manifest, oci.Manifest, "manifest")
        config = oci.decode(self.content.read(manifest.config.digest), oci.Config, "image config")
        diff_ids = config.rootfs.diff_ids
        if len(diff_ids) != len(manifest.layers) or len(diff_ids) > _LAYERS_LIMIT:
            raise InvalidArgument(
                f"manifest has {len(manifest.layers)} layers, its config {len(diff_ids)}; "
                f"they must be as many, and at most {_LAYERS_LIMIT}"
            )
        blobs = tuple(layer.digest for layer in manifest.layers)
        own = oci.digest_of(new.manifest)
        with self.content.pinned(own, manifest.config.digest, *blobs), self.keeping_chain(diff_ids):
            layers, points = await self.assemble(diff_ids, blobs, progress)
            await asyncio.to_thread(self.content.put, new.manifest)
            return self.enter(manifest.config.digest, new, Stack(diff_ids, blobs, layers, points))

    def enter(self, identity: str, new: NewImage, stack: Stack) -> Record:
        """Put an image into the index, whose blobs are here and whose layers are known."""
        old = self.index.images.get(identity)
        parent = new.parent or (old.parent if old else "")
        if self.index.is_below(identity, parent):
            parent = old.parent if old else ""
        record = self.index.images[identity] = Record(
            id=identity,
            manifest=oci.digest_of(new.manifest),
            media_type=new.media_type,
            blobs=stack.blobs,
            diff_ids=stack.diff_ids,
            layers=stack.layers,
            points=stack.points,
            parent=parent,
            tagged_at=old.tagged_at if old else time.time(),
            made=new.made or (old.made if old else ""),
        )
        self._facts.pop(identity, None)
        self.index.changed()
        return record

    async def assemble(
        self,
        diff_ids: Sequence[str],
        blobs: Sequence[str],
        progress: Callable[[str, int], None] | None = None,
    ) -> tuple[tuple[str, ...], str]:
        """Unpack what is not unpacked; keys of the layers from the lowest, and of mount points."""
        keys: list[str] = []
        with self.keeping_chain(diff_ids):
            await self._unpack_all(diff_ids, blobs, progress)
            chains = oci.chain_ids(tuple(diff_ids))
            for diff_id, chain, blob in zip(diff_ids, chains, blobs):
                key = diff_id
                if not await self.layers.fits(diff_id, keys):
                    key = f"over:{chain}"
                    await self.layers.merge(key, diff_id, self.content.path(blob), keys)
                keys.append(key)
            below = self.layers.directories(keys)
            points = await self.layers.points(chains[-1] if chains else "none", below)
        return tuple(keys), points

    async def _unpack_all(
        self,
        diff_ids: Sequence[str],
        blobs: Sequence[str],
        progress: Callable[[str, int], None] | None,
    ) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for diff_id, blob in zip(diff_ids, blobs):
                    if diff_id not in self.layers.table:
                        group.create_task(self.unpack(diff_id, blob, progress))
        except ExceptionGroup as failures:
            raise first_of(failures) from None

    async def unpack(
        self, diff_id: str, blob: str, progress: Callable[[str, int], None] | None = None
    ) -> None:
        """Unpack one layer; its key stays until somebody collects garbage."""
        tell = (lambda done: progress(blob, done)) if progress else (lambda _: None)
        await self.layers.unpack(diff_id, [self.content.path(blob)], tell)

    async def ensure(self, record: Record) -> Record:
        """The record with all layers unpacked, also after a crash has cost some."""
        wanted = (*record.layers, record.points)
        if all(key in self.layers.table for key in wanted):
            return record
        with self.content.pinned(*record.content):
            layers, points = await self.assemble(record.diff_ids, record.blobs)
        fixed = msgspec.structs.replace(record, layers=layers, points=points)
        if self.index.images.get(record.id) is record:
            self.index.images[record.id] = fixed
            self._facts.pop(record.id, None)
            await self.index.save()
        return fixed

    async def stand(self, lease: Lease) -> Lease:
        """The lease, when all its layers are there, also after a crash has cost some."""
        if all(key in self.layers.table for key in lease.layers):
            return lease
        image = lease.image
        blobs: list[str] = []
        if image.id:
            raw = self.content.read(image.manifest_digest)
            blobs = [layer.digest for layer in oci.decode(raw, oci.Manifest, "manifest").layers]
        await self.assemble([layer.diff_id for layer in image.layers], blobs)
        if not all(key in self.layers.table for key in lease.layers):
            raise NotFound(f"layers of container {lease.id} are lost; make it anew")
        return lease

    async def name(
        self,
        record: Record,
        reference: references.Reference,
        action: str,
        parts: tuple[str, ...] = (),
    ) -> None:
        """Give an image a name; durable when it returns.

        It is told and remembered as a naming unless `action` is "".

        NotFound if it was removed while its caller waited for something.
        """
        if record.id not in self.index.images:
            raise NotFound(f"No such image: {record.id}")
        self.index.give(reference.canonical, record.id, parts)
        if action:
            self._touch(record.id)
        self.index.changed()
        await self.index.save()
        if action:
            self.emit(action, record.id, reference.familiar)

    def _touch(self, identity: str) -> None:
        record = self.index.images[identity]
        self.index.images[identity] = msgspec.structs.replace(record, tagged_at=time.time())
        self.index.changed()

    # Keeping and collecting.

    def keeping(self, *keys: str) -> _Keeping:
        """Keep layers from the garbage collector inside a `with` block."""
        return _Keeping(self._pinned_layers, keys)

    def keeping_chain(self, diff_ids: Sequence[str]) -> _Keeping:
        """Keep all layers that an image of these can have."""
        chains = oci.chain_ids(tuple(diff_ids)) or ("none",)
        over = (f"over:{chain}" for chain in chains)
        return self.keeping(*diff_ids, *over, f"points:{chains[-1]}")

    def litter(self) -> None:
        """Note that there will be garbage, before what needed it is gone."""
        (self.spot.root / "litter").touch()

    @property
    def is_littered(self) -> bool:
        """Whether a crash came between removing and collecting."""
        return (self.spot.root / "litter").exists()

    async def collect(self) -> Freed:
        """Delete content and layers that no image, lease, hold or work in progress needs."""
        # Listing waits for the disk, and a registry holds many. What is decided after it is decided for
        # a portion in one step, on what may have changed meanwhile; then others have their turn.
        blobs = size = 0
        for digests in _portions(await asyncio.to_thread(self._unheld)):
            for freed in self._collect_content(digests):
                blobs, size = blobs + 1, size + freed
            await asyncio.sleep(0)
        for keys in _portions([*self.layers.table]):
            size += self._collect_layers(keys)
            await asyncio.sleep(0)
        (self.spot.root / "litter").unlink(missing_ok=True)
        return Freed(blobs, size)

    def _collect_content(self, digests: Sequence[str]) -> Iterator[int]:
        """Discard those that nothing needs; the size of each."""
        wanted = self._wanted_content()
        for digest in digests:
            if digest in wanted or self.holds.is_held(digest):
                continue
            freed = self.content.give_up(digest, self.layers.discard)
            if freed is not None:
                yield freed

    def _unheld(self) -> list[str]:
        held = self.holds.held()
        return [digest for digest in self.content.digests() if digest not in held]

    def _wanted_content(self) -> set[str]:
        """Blobs of images and of leases."""
        wanted = {digest for record in self.index.images.values() for digest in record.content}
        return wanted | {d for lease in self.roots.table.values() for d in lease.content}

    def _collect_layers(self, keys: Sequence[str]) -> int:
        """Drop those that nothing needs; the size of all."""
        needed = self.roots.layers_in_use() | set(self._pinned_layers)
        for record in self.index.images.values():
            needed.update(record.layers, (record.points,))
        free = [key for key in keys if key in self.layers.table and key not in needed]
        return sum(map(self.layers.drop, free))

    def forget(self, identity: str) -> None:
        """Drop what was derived from an image that is gone."""
        self._facts.pop(identity, None)
        self._steps.pop(identity, None)
        self.index.changed()


def _portions(items: Sequence[str]) -> Iterator[Sequence[str]]:
    """So many that deciding about them is a short turn of the loop."""
    for at in range(0, len(items), _PORTION):
        yield items[at : at + _PORTION]


class _Keeping:
    def __init__(self, table: dict[str, int], keys: tuple[str, ...]) -> None:
        self._table = table
        self._keys = keys

    def __enter__(self) -> None:
        for key in self._keys:
            self._table[key] = self._table.get(key, 0) + 1

    def __exit__(self, *_: object) -> None:
        for key in self._keys:
            self._table[key] -= 1
            if not self._table[key]:
                del self._table[key]


def runnable(config: oci.ContainerConfig) -> ImageConfig:
    """The runnable part of a config as the contract has it."""
    health = bytes(config.healthcheck).decode()
    return ImageConfig(
        user=config.user or "",
        env=config.env or (),
        entrypoint=config.entrypoint,
        cmd=config.cmd,
        working_dir=config.working_dir or "",
        exposed_ports=tuple(sorted(config.exposed_ports or ())),
        volumes=tuple(sorted(config.volumes or ())),
        labels=tuple(sorted((config.labels or {}).items())),
        stop_signal=config.stop_signal or "",
        healthcheck="" if health == "null" else health,
        shell=config.shell or (),
        onbuild=config.on_build or (),
    )


def first_of(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group: what the caller is told."""
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def repack(store: Store, session: Session, source: Path) -> dict[str, Any]:
    """Compress an archive into the content store: its `diff_id`, and the blob's digest and size."""
    path = store.content.partial / f"put-{secrets.token_hex(8)}"
    target = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        arguments = {"jail": str(store.spot.jail)}
        done = await store.workshop.run("repack", arguments, [reading, target])
        if done["packed"] and not session.has(done["digest"]):
            await asyncio.to_thread(session.publish, path, done["digest"])
        return done
    finally:
        os.close(reading)
        os.close(target)
        path.unlink(missing_ok=True)


def machine() -> str:
    """The architecture of this machine, as uname has it."""
    return os.uname().machine
