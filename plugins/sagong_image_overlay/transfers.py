"""Pulling: sends a courier, unpacks what it brings while it is bringing more."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from sagong.contracts.image import (
    Credentials,
    Progress,
    PullRequest,
)
from sagong.errors import InvalidArgument, NotFound, Unavailable, from_code
from sagong.model import oci, references
from sagong_image_overlay.errand import Errand, Login
from sagong_image_overlay.index import Record
from sagong_image_overlay.naming import short_id
from sagong_image_overlay.store import NewImage, Store, first_of, machine
from sagong_image_overlay.workshop import child_environment

__all__ = ["Transfers", "errand_for", "login_of", "send_courier"]

_LINE = 16 << 20
# For what a push that is given up has begun at a registry.
_WITHDRAWAL = 3.0


async def send_courier(errand: Errand) -> AsyncGenerator[dict[str, Any], None]:
    """The events of a courier; it is ended when nobody listens any more, and may tidy up a push."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-s",
        "-m",
        "sagong_image_overlay.courier",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=child_environment(),
        cwd="/",
        limit=_LINE,
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        child.stdin.write(msgspec.json.encode(errand) + b"\n")
        ended = False
        while line := await child.stdout.readline():
            event = msgspec.json.decode(line, type=dict[str, Any])
            if event["event"] == "error":
                raise from_code(event["code"], event["message"])
            ended = ended or event["event"] == "done"
            yield event
            if event["event"] == "pin":
                # Whoever listens has pinned by now: the courier may rely on what is there.
                child.stdin.write(b"\n")
        if not ended:
            raise Unavailable("the image courier ended early; is memory short?")
    finally:
        await _end(child, patience=_WITHDRAWAL if errand.task == "push" else 0.0)


async def _end(child: asyncio.subprocess.Process, *, patience: float) -> None:
    """By SIGTERM if it has so many seconds to obey, then by SIGKILL."""
    if child.returncode is None and patience:
        child.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await child.wait()
    with contextlib.suppress(ProcessLookupError):
        child.kill()
    await child.wait()


@dataclass
class Arrival:
    """A pull in progress: what is known of the image, and the unpacking of its layers."""

    store: Store
    reference: references.Reference
    queue: asyncio.Queue[Progress | BaseException | None] = field(default_factory=asyncio.Queue)
    manifest: oci.Manifest | None = None
    raw: bytes = b""
    media_type: str = ""
    diff_ids: tuple[str, ...] = ()
    digest: str = ""
    quiet: bool = False
    unpacking: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def take_manifest(self, event: dict[str, Any]) -> None:
        """The courier has the manifest and the config."""
        self.raw = event["raw"].encode()
        self.media_type = event["media_type"]
        self.manifest = oci.decode(self.raw, oci.Manifest, "manifest")
        self.digest = event["digest"]
        config = oci.decode(event["config"].encode(), oci.Config, "image config")
        self.diff_ids = config.rootfs.diff_ids
        if len(self.diff_ids) != len(self.manifest.layers):
            raise InvalidArgument("the image's config and manifest disagree about its layers")
        self.queue.put_nowait(
            Progress(id=self.reference.target, status=f"Pulling from {self.reference.path}")
        )
        # Of an image that is here already Docker tells no layers.
        self.quiet = self.manifest.config.digest in self.store.index.images

    def tell(self, digest: str, status: str, current: int = 0, total: int = 0) -> None:
        """A line of progress for the caller."""
        if self.quiet:
            return
        self.queue.put_nowait(
            Progress(id=short_id(digest), status=status, current=current, total=total)
        )

    def unpack(self, group: asyncio.TaskGroup, digest: str, *paths: Path) -> None:
        """Begin to unpack a blob that is at one of the paths, unless that goes on already."""
        if digest in self.unpacking:
            return
        assert self.manifest is not None
        number = [layer.digest for layer in self.manifest.layers].index(digest)
        layer, diff_id = self.manifest.layers[number], self.diff_ids[number]
        work = self._unpack(layer, diff_id, (*paths, self.store.content.path(digest)))
        self.unpacking[digest] = group.create_task(work)

    async def _unpack(self, layer: oci.Descriptor, diff_id: str, paths: tuple[Path, ...]) -> None:
        digest, total = layer.digest, layer.size
        if diff_id in self.store.layers.table:
            self.tell(digest, "Already exists")
            return
        self.tell(digest, "Extracting", 0, total)
        await self.store.layers.unpack(
            diff_id, paths, lambda done: self.tell(digest, "Extracting", done, total)
        )
        self.tell(digest, "Pull complete")


class Transfers:
    """Moves images from registries to the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def pull(self, request: PullRequest) -> AsyncGenerator[Progress, None]:
        """Progress by layers; the last item of an image has its id and its digest."""
        for one in await self._wanted(request):
            async with contextlib.aclosing(self._pull_one(one)) as steps:
                async for progress in steps:
                    yield progress

    async def _wanted(self, request: PullRequest) -> list[PullRequest]:
        """The request, or one for each tag of the repository."""
        if not request.all_tags:
            return [request]
        reference = references.parse(request.reference)
        if reference.tag or reference.digest:
            raise InvalidArgument("a tag can't be used together with all tags")
        errand = errand_for(self._store, "tags", reference.tagged, request.credentials)
        async with contextlib.aclosing(send_courier(errand)) as events:
            tags = [tag async for event in events for tag in event["tags"]]
        if not tags:
            raise NotFound(f"repository {reference.familiar_name} has no tags")
        return [
            msgspec.structs.replace(
                request, reference=reference.with_tag(tag).familiar, all_tags=False
            )
            for tag in tags
        ]

    async def _pull_one(self, request: PullRequest) -> AsyncGenerator[Progress, None]:
        reference = references.parse(request.reference).tagged
        if request.policy == "missing":
            with contextlib.suppress(NotFound):
                record = self._store.index.find(request.reference)
                yield Progress(
                    status=f"Image is up to date for {reference.familiar}",
                    image=record.id,
                    digest=record.manifest,
                    reference=reference.familiar,
                )
                return
        arrival = Arrival(self._store, reference)
        work = asyncio.create_task(self._pull(request, reference, arrival), name="pull")
        try:
            while (item := await arrival.queue.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _pull(
        self, request: PullRequest, reference: references.Reference, arrival: Arrival
    ) -> None:
        try:
            await self._bring(request, reference, arrival)
            arrival.queue.put_nowait(None)
        except ExceptionGroup as failures:
            arrival.queue.put_nowait(first_of(failures))
        except Exception as error:
            arrival.queue.put_nowait(error)

    async def _bring(
        self, request: PullRequest, reference: references.Reference, arrival: Arrival
    ) -> None:
        store = self._store
        store.workshop.warm()
        wanted = oci.parse_platform(request.platform, machine())
        errand = errand_for(
            self._store,
            "pull",
            reference,
            request.credentials,
            parallel=store.settings.downloads,
            platform=wanted,
        )
        with contextlib.ExitStack() as keep:
            async with asyncio.TaskGroup() as group:
                async for event in send_courier(errand):
                    self._handle(event, arrival, group, keep)
            before = store.index.names.get(reference.canonical)
            record = await store.add(NewImage(arrival.raw, arrival.media_type))
            await self._register(record, reference, arrival.digest)
        fresh = "Image is up to date" if before == record.id else "Downloaded newer image"
        arrival.queue.put_nowait(
            Progress(
                status=f"{fresh} for {reference.familiar}",
                image=record.id,
                digest=arrival.digest,
                reference=reference.familiar,
            )
        )

    def _handle(
        self,
        event: dict[str, Any],
        arrival: Arrival,
        group: asyncio.TaskGroup,
        keep: contextlib.ExitStack,
    ) -> None:
        store = self._store
        match event["event"]:
            case "pin":
                keep.enter_context(store.content.pinned(*event["digests"]))
            case "manifest":
                arrival.take_manifest(event)
                keep.enter_context(store.keeping(*arrival.diff_ids))
            case "warning":
                arrival.queue.put_nowait(Progress(status=f"Warning: {event['text']}"))
            case "status":
                arrival.tell(event["digest"], event["status"], event["current"], event["total"])
            case "fetched":
                arrival.unpack(group, event["digest"], Path(event["path"]))
            case "blob":
                arrival.unpack(group, event["digest"])

    async def _register(self, record: Record, reference: references.Reference, digest: str) -> None:
        index = self._store.index
        index.digests[f"{reference.name}@{digest}"] = record.id
        index.changed()
        if reference.digest:
            await index.save()
        else:
            await self._store.name(record, reference, "tag")
        self._store.emit("pull", record.id, reference.familiar)


def errand_for(
    store: Store,
    task: str,
    reference: references.Reference,
    credentials: Credentials,
    **facts: Any,
) -> Errand:
    """What a courier is sent with."""
    return Errand(
        task=task,
        reference=reference.canonical,
        content=str(store.content.root),
        reserve=store.settings.reserve,
        login=login_of(credentials),
        settings=store.settings.registries,
        **facts,
    )


def login_of(credentials: Credentials) -> Login:
    """What a courier needs of credentials."""
    return Login(
        username=credentials.username,
        password=credentials.password,
        token=credentials.token,
        identity=credentials.identity,
    )
