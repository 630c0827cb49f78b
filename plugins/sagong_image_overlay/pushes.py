"""Pushing: images by names or by digests, indexes of them, and what goes out beside."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import msgspec

from sagong.contracts.image import Artifact, Progress, PushRequest
from sagong.errors import InvalidArgument, NotFound
from sagong.model import oci, references
from sagong.model.oci import MediaType
from sagong_image_overlay.content import Session
from sagong_image_overlay.errand import Errand
from sagong_image_overlay.index import Record
from sagong_image_overlay.manifests import as_format, is_packed, layer_type, with_packed
from sagong_image_overlay.naming import short_id
from sagong_image_overlay.platforms import check_platform
from sagong_image_overlay.store import Store, repack
from sagong_image_overlay.transfers import errand_for, send_courier

__all__ = ["Pushes"]


class Pushes:
    """Moves images from the store to registries."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def push(self, request: PushRequest) -> AsyncGenerator[Progress, None]:
        """Progress by layers; the last item of an image has its manifest's digest and size."""
        meant = (
            [references.parse(request.reference).tagged] if request.parts else self._meant(request)
        )
        for reference in meant:
            parts = request.parts or self._parts(request, reference)
            if again := self._sent(request, reference):
                pushing = self._push_again(request, reference, again)
            elif parts:
                pushing = self._push_index(request, reference, parts)
            else:
                pushing = self._push_one(request, reference)
            async with contextlib.aclosing(pushing) as steps:
                async for progress in steps:
                    yield progress

    def _meant(self, request: PushRequest) -> list[references.Reference]:
        """The name to push, or all that are here of its repository."""
        reference = references.parse(request.reference)
        if not request.all_tags:
            return [reference.tagged]
        if reference.tag or reference.digest:
            raise InvalidArgument("a tag can't be used together with all tags")
        names = [references.parse(name) for name in sorted(self._store.index.names)]
        found = [name for name in names if name.name == reference.name]
        if not found:
            raise NotFound(
                "An image does not exist locally with the tag: " + reference.familiar_name
            )
        return found

    async def _push_again(
        self, request: PushRequest, reference: references.Reference, document: str
    ) -> AsyncGenerator[Progress, None]:
        """What a builder has sent by a name goes out as it was, if its parts are there still."""
        record = self._store.index.images[self._store.index.names[reference.canonical]]
        manifest = oci.decode(document.encode(), oci.Index, "what was sent")
        errand = errand_for(
            self._store,
            "push",
            reference,
            request.credentials,
            parallel=self._store.settings.uploads,
            manifest=document,
            media_type=manifest.media_type,
        )
        try:
            with self._store.content.pinned(*record.content):
                async for progress in self._carry(errand, record, reference):
                    yield progress
            return
        except (InvalidArgument, NotFound):
            self._store.index.note_sent(reference.canonical, record.id, "")
        async with contextlib.aclosing(self.push(request)) as steps:
            async for progress in steps:
                yield progress

    def _sent(self, request: PushRequest, reference: references.Reference) -> str:
        """What a name was sent as with notes, unless the request has its own."""
        if request.parts or request.platform or request.annotations:
            return ""
        return self._store.index.sent_as(reference.canonical)

    def _note(
        self, request: PushRequest, reference: references.Reference, record: Record, raw: bytes
    ) -> None:
        """Remember what a name was sent as, if nobody could make it of the images alone."""
        if request.artifacts or request.annotations or request.index_annotations:
            self._store.index.note_sent(reference.canonical, record.id, raw.decode())

    def _parts(self, request: PushRequest, reference: references.Reference) -> tuple[str, ...]:
        """What a name stands for, if that is several images; one platform of them is one image."""
        index = self._store.index
        parts = () if request.platform else index.parts_of(reference.canonical)
        for part in parts:
            if part not in index.images:
                raise NotFound(
                    f"an image of {reference.familiar} for another platform was removed: build it "
                    "again, or push one with --platform"
                )
        return parts

    async def _push_index(
        self, request: PushRequest, reference: references.Reference, parts: tuple[str, ...]
    ) -> AsyncGenerator[Progress, None]:
        """Images by their digests, then the index of them; only that is told as done."""
        store = self._store
        records = [store.index.find(part) for part in parts]
        manifests: list[oci.Descriptor] = []
        for record in records:
            with store.content.pinned(*record.content):
                _, raw = await self._sendable(record, request)
            manifests.append(self._entry(record, raw))
            own = msgspec.structs.replace(reference, tag="", digest=manifests[-1].digest)
            async with contextlib.aclosing(self._push_record(request, record, own)) as steps:
                async for progress in steps:
                    if not progress.image:
                        yield progress
        for artifact in request.artifacts:
            manifests.append(await self._push_artifact(request, reference, artifact))
        index = oci.Index(
            schema_version=2,
            media_type=MediaType.OCI_INDEX,
            manifests=tuple(manifests),
            annotations=dict(request.index_annotations) or None,
        )
        errand = errand_for(
            self._store,
            "push",
            reference,
            request.credentials,
            manifest=oci.encode(index).decode(),
            media_type=index.media_type,
        )
        for record in records:
            self._note(request, reference, record, oci.encode(index))
        async for progress in self._carry(errand, records[0], reference):
            yield progress

    async def _push_artifact(
        self, request: PushRequest, reference: references.Reference, artifact: Artifact
    ) -> oci.Descriptor:
        """Send it by its digest; how an index names it."""
        raw = artifact.manifest
        entry = oci.attestation_entry(raw, artifact.annotations)
        with self._store.content.session() as session:
            for blob in artifact.blobs:
                await asyncio.to_thread(session.put, blob)
            errand = errand_for(
                self._store,
                "push",
                msgspec.structs.replace(reference, tag="", digest=entry.digest),
                request.credentials,
                parallel=self._store.settings.uploads,
                manifest=raw.decode(),
                media_type=entry.media_type,
            )
            async for _ in send_courier(errand):
                continue
        return entry

    def _entry(self, record: Record, raw: bytes) -> oci.Descriptor:
        """An image's manifest as an index names it."""
        image = self._store.describe(record)
        return oci.Descriptor(
            media_type=oci.decode(raw, oci.Manifest, "manifest").media_type or record.media_type,
            digest=oci.digest_of(raw),
            size=len(raw),
            platform=oci.Platform(
                architecture=image.architecture, os=image.os, variant=image.variant
            ),
        )

    async def _push_one(
        self, request: PushRequest, reference: references.Reference
    ) -> AsyncGenerator[Progress, None]:
        store = self._store
        identity = store.index.names.get(reference.canonical)
        if identity is None:
            raise NotFound(
                "An image does not exist locally with the tag: " + reference.familiar_name
            )
        record = store.index.images[identity]
        check_platform(store.describe(record), reference.familiar, request.platform)
        async with contextlib.aclosing(self._push_record(request, record, reference)) as steps:
            async for progress in steps:
                yield progress

    async def _sendable(self, record: Record, request: PushRequest) -> tuple[Record, bytes]:
        """The record with its layers packed, and its manifest as registries get it."""
        record = await self._packed(record)
        store = self._store
        raw = store.content.read(record.packed or record.manifest)
        raw = as_format(raw, store.settings.registries.push_as)
        return record, oci.annotated(raw, request.annotations)

    async def _push_record(
        self, request: PushRequest, record: Record, reference: references.Reference
    ) -> AsyncGenerator[Progress, None]:
        store = self._store
        with store.content.pinned(*record.content):
            record, raw = await self._sendable(record, request)
            manifest = oci.decode(raw, oci.Manifest, "manifest")
            errand = errand_for(
                self._store,
                "push",
                reference,
                request.credentials,
                parallel=store.settings.uploads,
                manifest=raw.decode(),
                media_type=manifest.media_type or record.media_type,
                sources=self._sources(reference, manifest),
            )
            if reference.tag:
                self._note(request, reference, record, raw)
            with store.content.pinned(*record.content):
                async for progress in self._carry(errand, record, reference):
                    yield progress

    async def _carry(
        self, errand: Errand, record: Record, reference: references.Reference
    ) -> AsyncGenerator[Progress, None]:
        async for event in send_courier(errand):
            if event["event"] == "status":
                yield Progress(
                    id=short_id(event["digest"]),
                    status=event["status"],
                    current=event["current"],
                    total=event["total"],
                )
                continue
            digest, size = event["digest"], event["size"]
            index = self._store.index
            if reference.tag and record.id in index.images:
                index.digests[f"{reference.name}@{digest}"] = record.id
                index.changed()
                await index.save()
            if reference.tag:
                self._store.emit("push", record.id, reference.familiar)
            yield Progress(
                status=f"{reference.tag}: digest: {digest} size: {size}",
                image=record.id,
                digest=digest,
                size=size,
                reference=reference.familiar,
            )

    def _sources(
        self, reference: references.Reference, manifest: oci.Manifest
    ) -> dict[str, list[str]]:
        """Repositories of the same registry that are known to have a blob."""
        index = self._store.index
        found: dict[str, list[str]] = {}
        wanted = {manifest.config.digest, *(layer.digest for layer in manifest.layers)}
        for name, identity in index.digests.items():
            other = references.parse(name)
            if other.domain != reference.domain or other.path == reference.path:
                continue
            for digest in wanted & index.images[identity].content:
                found.setdefault(digest, []).append(other.path)
        return {digest: sorted(set(paths))[:3] for digest, paths in found.items()}

    async def _packed(self, record: Record) -> Record:
        """The record with a manifest whose layers are all compressed, for the way."""
        store = self._store
        raw = store.content.read(record.manifest)
        manifest = oci.decode(raw, oci.Manifest, "manifest")
        plain = {layer.digest for layer in manifest.layers if not is_packed(layer)}
        if record.packed or not plain:
            return record
        with store.content.session() as session:
            packed = {digest: await self._pack(session, digest) for digest in sorted(plain)}
            new = with_packed(raw, packed)
            digest = await asyncio.to_thread(session.put, new)
            fixed = msgspec.structs.replace(
                record,
                packed=digest,
                packed_blobs=tuple(layer.digest for layer in packed.values()),
            )
            if store.index.images.get(record.id) is record:
                store.index.images[record.id] = fixed
                await store.index.save()
        return fixed

    async def _pack(self, session: Session, digest: str) -> oci.Descriptor:
        path = self._store.content.path(digest)
        done = await repack(self._store, session, path)
        if not done["packed"]:
            # Its type said otherwise.
            size = self._store.content.size(digest)
            return oci.Descriptor(media_type=layer_type(path), digest=digest, size=size)
        return oci.Descriptor(
            media_type=MediaType.OCI_LAYER_GZIP, digest=done["digest"], size=done["size"]
        )
