"""New images of old ones: of a container's changes, of another config, of several layers as one."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from sagong.contracts.image import (
    CommitRequest,
    DeriveRequest,
    Image,
    SquashRequest,
)
from sagong.errors import InvalidArgument
from sagong.model import oci, references
from sagong.model.oci import MediaType
from sagong_image_overlay.configuration import (
    Step,
    documented_config,
    grown_config,
    new_config,
    squashed_config,
)
from sagong_image_overlay.content import Session
from sagong_image_overlay.index import Record
from sagong_image_overlay.layers import POINTS
from sagong_image_overlay.manifests import new_manifest, with_layer, with_lowest
from sagong_image_overlay.roots import Lease
from sagong_image_overlay.store import NewImage, Stack, Store, machine

__all__ = ["Commits"]


@dataclass(frozen=True)
class PackedLayer:
    """A layer that was packed into the content store, and what is known of its directory."""

    diff_id: str
    blob: oci.Descriptor
    facts: dict[str, Any]


class Commits:
    """Makes images of what is in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # Of a container.

    async def commit(self, request: CommitRequest) -> Image:
        """Make an image of a container's changes."""
        store = self._store
        reference = _named(request.reference)
        if request.container not in store.roots.table:
            done = store.index.made_by(request.id) if request.id else None
            if done is not None:
                return store.describe(done)
        lease = await store.stand(store.roots.get(request.container))
        upper = store.roots.directory(lease.id) / "diff"
        with store.content.session() as session:
            layer = await self._pack(
                session,
                [upper],
                whiteouts=True,
                compress=not request.document,
                stubs=request.stubs,
            )
            raw = _committed_config(request, lease, layer)
            record = await self._made_of(session, request, lease, layer, raw)
        await self._name(record, reference, "" if request.document else "commit")
        if request.consume:
            self._consume(lease, layer)
        return store.describe(store.index.images.get(record.id, record))

    async def _made_of(
        self,
        session: Session,
        request: CommitRequest,
        lease: Lease,
        layer: PackedLayer | None,
        raw: bytes,
    ) -> Record:
        store = self._store
        parent = lease.image.id if lease.image.id in store.index.images else ""
        made = request.id if request.consume else ""
        below = store.content.read(lease.image.manifest_digest) if lease.image.id else b""
        manifest = _manifest(below, raw, layer)
        new = NewImage(manifest, MediaType.OCI_MANIFEST, parent, made)
        await _put(session, raw, manifest)
        if request.consume or layer is None:
            with store.keeping_chain(_diff_ids(lease, layer)):
                stack = await self._stack(lease, layer, manifest)
                return store.enter(oci.digest_of(raw), new, stack)
        return await store.add(new)

    async def _stack(self, lease: Lease, layer: PackedLayer | None, manifest: bytes) -> Stack:
        """What the image of a consumed lease is made of: nothing has to be unpacked for it."""
        diff_ids = _diff_ids(lease, layer)
        blobs = tuple(one.digest for one in oci.decode(manifest, oci.Manifest, "manifest").layers)
        if layer is None:
            points = await self._points(lease, diff_ids, ())
            return Stack(diff_ids, blobs, lease.below, points)
        upper = self._store.roots.directory(lease.id) / "diff"
        points = await self._points(lease, diff_ids, (upper,))
        return Stack(diff_ids, blobs, (*lease.below, layer.diff_id), points)

    async def _points(self, lease: Lease, diff_ids: Sequence[str], uppers: Sequence[Path]) -> str:
        """The mount points that the new image lacks: mostly those that its parent lacked."""
        parent = self._store.index.images.get(lease.image.id)
        before = "" if parent is None else parent.points
        if not lease.bare:
            before = lease.layers[-1]
        if before:
            (there,) = self._store.layers.directories((before,))
            if not any(_touches_points(upper, Path(there)) for upper in uppers):
                return before
        chains = oci.chain_ids(tuple(diff_ids))
        below = [*map(str, uppers), *self._store.layers.directories(lease.below)]
        return await self._store.layers.points(chains[-1] if chains else "none", below)

    def _consume(self, lease: Lease, layer: PackedLayer | None) -> None:
        """Make the writable layer the image's own and end the lease.

        After the index is durable: a crash before leaves the lease, one after unpacks the blob.
        """
        store = self._store
        if layer is not None and layer.facts["exact"]:
            facts = {"size": layer.facts["size"], "entries": layer.facts["entries"]}
            store.layers.adopt(layer.diff_id, store.roots.directory(lease.id) / "diff", facts)
        store.roots.release(lease.id)

    # Of a config.

    async def derive(self, request: DeriveRequest) -> Image:
        """Make an image of another one's layers and a config."""
        reference = _named(request.reference)
        with self._store.content.session() as session:
            return await self._derive(session, request, reference)

    async def _derive(
        self, session: Session, request: DeriveRequest, reference: references.Reference | None
    ) -> Image:
        store = self._store
        stack, below, base = await self._parent(session, request.parent)
        if request.layers_of:
            stack, below = await self._lowest(session, request.layers_of, request.layers)
        config = documented_config(request.document, base, _platform(), stack.diff_ids)
        raw = msgspec.json.encode(config)
        identity = oci.digest_of(raw)
        record = store.index.images.get(identity)
        if record is None:
            manifest = _manifest(below, raw, None)
            parent = oci.digest_of(base) if base else ""
            await _put(session, raw, manifest)
            record = store.index.images.get(identity)
            if record is None:
                new = NewImage(manifest, MediaType.OCI_MANIFEST, parent)
                record = store.enter(identity, new, stack)
            await self._name(record, reference, "")
        elif reference is not None:
            await self._name(record, reference, "")
        return store.describe(store.index.images.get(identity, record))

    async def _parent(self, session: Session, text: str) -> tuple[Stack, bytes, bytes]:
        """Layers, manifest and config of an image, which stay; those of none for ""."""
        store = self._store
        if not text:
            _, points = await store.assemble((), ())
            return Stack(points=points), b"", b""
        record = store.index.find(text)
        session.keep(*record.content)
        record = await store.ensure(record)
        stack = Stack(record.diff_ids, record.blobs, record.layers, record.points)
        return stack, store.content.read(record.manifest), store.content.read(record.id)

    async def _lowest(self, session: Session, text: str, count: int) -> tuple[Stack, bytes]:
        """So many of an image's layers, and a manifest of them."""
        whole, manifest, _ = await self._parent(session, text)
        if not 0 <= count <= len(whole.diff_ids):
            raise InvalidArgument(f"{text} has {len(whole.diff_ids)} layers, not {count}")
        diff_ids, blobs = whole.diff_ids[:count], whole.blobs[:count]
        layers, points = await self._store.assemble(diff_ids, blobs)
        return Stack(diff_ids, blobs, layers, points), with_lowest(manifest, count)

    # Of several layers.

    async def squash(self, request: SquashRequest) -> Image:
        """Make an image with the layers above another one's as one."""
        reference = _named(request.reference)
        with self._store.content.session() as session:
            return await self._squash(session, request, reference)

    async def _squash(
        self, session: Session, request: SquashRequest, reference: references.Reference | None
    ) -> Image:
        store = self._store
        found = store.index.find(request.image)
        session.keep(*found.content)
        record = await store.ensure(found)
        below, manifest, base = await self._parent(session, request.base)
        count = len(below.layers)
        if record.layers[:count] != below.layers:
            raise InvalidArgument(f"image {request.base} is not below {request.image}")
        with store.keeping(*record.layers):
            parts = [Path(path) for path in store.layers.directories(record.layers[count:])]
            layer = await self._pack(session, parts, whiteouts=count > 0, compress=False)
            raw = self._squashed(request, record, base, layer, below.diff_ids)
            await _put(session, raw)
            parent = oci.digest_of(base) if base else ""
            new = NewImage(_manifest(manifest, raw, layer), MediaType.OCI_MANIFEST, parent)
            made = await store.add(new)
            await self._name(made, reference, "")
        return store.describe(store.index.images.get(made.id, made))

    def _squashed(
        self,
        request: SquashRequest,
        record: Record,
        base: bytes,
        layer: PackedLayer | None,
        diff_ids: tuple[str, ...],
    ) -> bytes:
        diff_ids = (*diff_ids, layer.diff_id) if layer else diff_ids
        if request.document:
            own = self._store.content.read(record.id)
            config = documented_config(request.document, own, _platform(), diff_ids)
            return msgspec.json.encode(config)
        known = oci.decode(base, oci.Config, "image config").history or () if base else ()
        comment = f"create new from {record.id}"
        if base:
            comment = f"merge {record.id} to {oci.digest_of(base)}"
        return squashed_config(self._store.content.read(record.id), len(known), comment, diff_ids)

    # What they share.

    async def _pack(
        self,
        session: Session,
        parts: Sequence[Path],
        *,
        whiteouts: bool,
        compress: bool,
        stubs: Sequence[str] = (),
    ) -> PackedLayer | None:
        """Pack directories as one layer into the content store; None if nothing is in them."""
        store = self._store
        path = store.content.partial / f"put-{secrets.token_hex(8)}"
        target = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            arguments = {
                "parts": [str(part) for part in parts],
                "jail": str(store.spot.jail),
                "whiteouts": whiteouts,
                "compress": compress,
                "stubs": list(stubs),
            }
            done = await store.workshop.run("layer", arguments, [target])
            if not done["entries"]:
                return None
            media_type = MediaType.OCI_LAYER_GZIP if compress else MediaType.OCI_LAYER
            blob = oci.Descriptor(media_type=media_type, digest=done["digest"], size=done["packed"])
            if not session.has(blob.digest):
                await asyncio.to_thread(session.publish, path, blob.digest)
            return PackedLayer(done["diff_id"], blob, done)
        finally:
            os.close(target)
            path.unlink(missing_ok=True)

    async def _name(
        self, record: Record, reference: references.Reference | None, action: str
    ) -> None:
        """Make the image durable, under a name if there is one, and tell what was done."""
        if reference is not None:
            await self._store.name(record, reference, "tag")
        else:
            await self._store.index.save()
        if action:
            shown = reference.familiar if reference else ""
            self._store.emit(action, record.id, shown)


async def _put(session: Session, *documents: bytes) -> None:
    """All at once: they wait for the disk together."""
    await asyncio.gather(*(asyncio.to_thread(session.put, document) for document in documents))


def _named(text: str) -> references.Reference | None:
    if not text:
        return None
    reference = references.parse(text).tagged
    if reference.digest:
        raise InvalidArgument("refusing to create a tag with a digest reference")
    return reference


def _platform() -> tuple[str, str, str]:
    here = oci.parse_platform("", machine())
    return here.os, here.architecture, here.variant


def _manifest(below: bytes, config: bytes, layer: PackedLayer | None) -> bytes:
    added = layer.blob if layer else None
    if below:
        return with_layer(below, oci.digest_of(config), len(config), added)
    return new_manifest(oci.digest_of(config), len(config), [added] if added else [])


def _committed_config(request: CommitRequest, lease: Lease, layer: PackedLayer | None) -> bytes:
    if not request.document:
        step = Step(
            diff_id=layer.diff_id if layer else "",
            author=request.author,
            comment=request.comment,
            created_by=request.command or " ".join(lease.image.config.cmd or ()),
            config=request.config,
        )
        return (
            grown_config(lease.image.raw, step) if lease.image.id else new_config(_platform(), step)
        )
    diff_ids = _diff_ids(lease, layer)
    config = documented_config(request.document, lease.image.raw, _platform(), diff_ids)
    history = config.get("history")
    if isinstance(history, list) and history and isinstance(history[-1], dict):
        history[-1].pop("empty_layer", None)
        if layer is None:
            history[-1]["empty_layer"] = True
    return msgspec.json.encode(config)


def _diff_ids(lease: Lease, layer: PackedLayer | None) -> tuple[str, ...]:
    below = tuple(known.diff_id for known in lease.image.layers)
    return (*below, layer.diff_id) if layer else below


def _access(path: Path) -> tuple[int, int, int]:
    status = os.lstat(path)
    return status.st_mode, status.st_uid, status.st_gid


def _touches_points(upper: Path, points: Path) -> bool:
    """Whether a writable layer has anything of what runtimes mount upon, or of the users' files.

    Of /etc it may have children: its owner and mode are those of the mount points there are.
    """
    try:
        for point in (*POINTS, "etc/passwd", "etc/group"):
            name = point.partition("->")[0].rstrip("/")
            if name != "etc" and os.path.lexists(upper / name):
                return True
        etc = upper / "etc"
        if not os.path.lexists(etc):
            return False
        if not etc.is_dir() or etc.is_symlink() or "user.overlay.opaque" in os.listxattr(etc):
            return True
        return os.path.lexists(points / "etc") and _access(points / "etc") != _access(etc)
    except OSError:
        return True
