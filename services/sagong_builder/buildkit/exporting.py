"""What becomes of a build's images: names in the store, archives and files at the client's, pushes.

Source: the exporters `moby`, `oci`, `docker`, `local` and `tar` of BuildKit, and its caches `inline`,
`registry` and `local`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sagong.contracts.image import (
    Artifact,
    DistributionRequest,
    ImageRef,
    PushRequest,
    TagRequest,
)
from sagong.errors import InvalidArgument, SagongError, Unimplemented
from sagong.model import oci, references
from sagong_builder.buildkit import messages as m
from sagong_builder.buildkit.failures import failed
from sagong_builder.buildkit.filesync import Root
from sagong_builder.buildkit.layouts import Layout
from sagong_builder.buildkit.notes import NO_NOTES, Notes, read_notes
from sagong_builder.buildkit.progress import Graph
from sagong_builder.buildkit.provenance import statement
from sagong_builder.buildkit.results import Made
from sagong_builder.buildkit.rewriting import Dating, rewritten
from sagong_builder.buildkit.session import Session
from sagong_builder.context import Archive, Kind
from sagong_builder.copying import Item, Landing, Member, Owner, members, written
from sagong_builder.running import new_id
from sagong_builder.shop import Shop

__all__ = ["CacheTo", "Exporter", "Exporting", "caches_of", "exporters_of"]

_STORE = ("moby", "image", "")
_ARCHIVE = ("oci", "docker")
_CLIENT = ("local", "tar")
_PIECE = 1 << 18


@dataclass(frozen=True)
class Exporter:
    """One of the client's; `number` is how it knows it."""

    number: int
    kind: str
    attributes: dict[str, str]

    def asks(self, name: str) -> bool:
        """Whether a switch is on."""
        return _is_true(self.attributes.get(name, ""))

    @property
    def loose(self) -> bool:
        """Whether an archive's files are wanted rather than the archive."""
        return self.attributes.get("tar") == "false"

    @property
    def names(self) -> list[references.Reference]:
        """What the result is to be called."""
        given = self.attributes.get("name", "").split(",")
        return [references.parse(name).tagged for name in given if name]


def exporters_of(request: m.SolveRequest) -> list[Exporter]:
    """Those of a request; Unimplemented for what is not here."""
    given = [(spec.type, spec.attrs) for spec in request.exporters]
    if not given and request.exporter:
        given = [(request.exporter, request.exporter_attrs)]
    for kind, attrs in given:
        if kind not in (*_STORE, *_ARCHIVE, *_CLIENT):
            raise Unimplemented(
                f'exporter "{kind[:50]}" could not be found: there are image, registry, docker, oci, '
                "local and tar"
            )
        kept = kind in _STORE and not _is_true(attrs.get("push", ""))
        if read_notes(attrs) and (kept or kind == "docker"):
            raise Unimplemented(
                "annotations go out with --push and --output type=oci; images here keep none: use "
                "--label"
            )
    return [Exporter(number, kind, attrs) for number, (kind, attrs) in enumerate(given)]


@dataclass(frozen=True)
class CacheTo:
    """A cache to be sent: to a registry (`place` a reference) or the client's directory `place`.

    It is of `every` step of all stages, or of the result's. Where it is `optional` a build that can't
    send it goes on.
    """

    kind: str
    place: str
    every: bool = False
    optional: bool = False


_PLACES = {"registry": "ref", "local": "dest"}


def caches_of(request: m.SolveRequest) -> list[CacheTo]:
    """Caches to be sent. Images are cache by themselves, so `inline` is no work."""
    found = []
    for entry in request.cache.exports if request.cache is not None else ():
        if entry.type == "inline":
            continue
        attribute = _PLACES.get(entry.type)
        if attribute is None:
            raise Unimplemented(
                f'unknown cache exporter: "{entry.type[:50]}": use registry, local or inline'
            )
        if not entry.attrs.get(attribute):
            raise InvalidArgument(f"a cache of type {entry.type} needs {attribute}=…")
        found.append(
            CacheTo(
                entry.type,
                entry.attrs[attribute],
                every=entry.attrs.get("mode") == "max",
                optional=_is_true(entry.attrs.get("ignore-error", "")),
            )
        )
    return found


def _is_true(text: str) -> bool:
    return text.lower() in ("1", "t", "true")


class Exporting:
    """Of one build."""

    def __init__(
        self,
        shop: Shop,
        session: Session,
        graph: Graph,
        said: Mapping[str, Mapping[str, Any]] | None = None,
        datings: Mapping[str, Dating] | None = None,
    ) -> None:
        """`said` is how images were made, where that goes along; `datings` are of those that are
        dated."""
        self._said = dict(said or {})
        self._datings = dict(datings or {})
        self._shop = shop
        self._session = session
        self._graph = graph

    async def export(self, exporter: Exporter, made: Made) -> dict[str, str]:
        """Do it; what the client is told of it."""
        if exporter.kind in _CLIENT:
            await self._files(exporter, made)
            return {}
        if exporter.asks("rewrite-timestamp"):
            images = {p: await self._rewritten(image) for p, image in made.images.items()}
            made = replace(made, images=images)
        if exporter.kind in _ARCHIVE:
            return await self._archive(exporter, made)
        return await self._tagged(exporter, made)

    async def _rewritten(self, image: str) -> str:
        """The image with its own files dated; as it is where the build is not."""
        dating = self._datings.get(image)
        if dating is None:
            return image
        with self._graph.step_of_ours(f"rewriting layers with source-date-epoch {dating.epoch}"):
            made = await rewritten(self._shop, image, dating)
        self._datings[made] = dating
        if image in self._said:
            self._said[made] = self._said[image]
        return made

    # Images.

    async def _tagged(self, exporter: Exporter, made: Made) -> dict[str, str]:
        """Names in the store, where one name is one image: of several platforms this machine's."""
        image = made.mine(oci.parse_platform("", os.uname().machine))
        names = exporter.names
        parts = tuple(made.images.values()) if made.several else ()
        with self._graph.step_of_ours("exporting to image"):
            self._graph.status("exporting layers", done=True)
            self._graph.status(f"writing image {image}", done=True)
            for name in names:
                await self._shop.images.tag(
                    TagRequest(source=image, target=name.familiar, parts=parts)
                )
                self._graph.status(f"naming to {name.canonical}", done=True)
        answer = {"containerimage.config.digest": image, "containerimage.digest": image}
        answer |= _named(names)
        if exporter.asks("push"):
            if not names:
                raise InvalidArgument("tag is needed when pushing to registry")
            for name in names:
                answer["containerimage.digest"] = await self._push_noted(name, exporter, made)
        return answer

    async def _push_noted(self, name: references.Reference, exporter: Exporter, made: Made) -> str:
        """Send a name's image with what goes along. What is said of an image names it by the digest
        that it has at the registry; so that is asked before."""
        notes = read_notes(exporter.attributes).about(self._said)
        parts = tuple(made.images.values()) if made.several or notes.said else ()
        if notes.index and not parts:
            raise InvalidArgument("index annotations not supported for single platform export")
        digest = await self._push(name, parts, notes)
        if not notes.said:
            return digest
        credentials = await self._session.credentials(name.familiar)
        about = DistributionRequest(reference=name.familiar, credentials=credentials)
        digests = (await self._shop.images.distribution(about)).parts
        images = [await self._shop.images.inspect(ImageRef(reference=part)) for part in parts]
        return await self._push(name, parts, notes, notes.artifacts(images, digests, [name]))

    async def _push(
        self,
        name: references.Reference,
        parts: Sequence[str] = (),
        notes: Notes = NO_NOTES,
        artifacts: Sequence[Artifact] = (),
    ) -> str:
        """Send what a name stands for, or these images; the digest that the registry has it by."""
        digest = ""
        request = PushRequest(
            id=new_id(),
            reference=name.familiar,
            credentials=await self._session.credentials(name.familiar),
            parts=tuple(parts),
            artifacts=tuple(artifacts),
            annotations=notes.manifest,
            index_annotations=notes.index,
        )
        with self._graph.step_of_ours(f"pushing {name.canonical}"):
            async for item in self._shop.images.push(request):
                if item.id:
                    done = item.status in _SENT
                    self._graph.status(f"pushing layer {item.id}", item.current, done=done)
                digest = item.digest or digest
            self._graph.status(f"pushing manifest for {name.canonical}@{digest}", done=True)
        return digest

    async def cache(self, cache: CacheTo, made: Made, stages: Sequence[str]) -> dict[str, str]:
        """Send images whose history serves other builders: an index of them, the result's first."""
        images = list(dict.fromkeys([*made.images.values(), *(stages if cache.every else ())]))
        try:
            if cache.kind == "local":
                return await self._stored_cache(cache.place, images)
            with self._graph.step_of_ours(f"exporting cache to {cache.place}"):
                await self._push(references.parse(cache.place).tagged, images)
        except SagongError as error:
            self._graph.complete(failed(error))
            if not cache.optional:
                raise
        return {}

    async def _stored_cache(self, place: str, images: Sequence[str]) -> dict[str, str]:
        """The client writes the index's name into the directory when it is told of it."""
        with self._graph.step_of_ours("exporting cache to client directory"):
            async with self._layout(images) as saved:
                layout = replace(saved, several=True)
                await self._put(f"local:{place}", layout)
            self._graph.status(f"writing cache manifest {layout.descriptor.digest}", done=True)
        return {"cache.manifest": oci.encode(layout.descriptor).decode()}

    # Archives.

    async def _archive(self, exporter: Exporter, made: Made) -> dict[str, str]:
        docker = exporter.kind == "docker"
        if docker and made.several and len(made.images) > 1:
            raise InvalidArgument("docker exporter does not support exporting manifest lists")
        several, names = made.several and not docker, exporter.names
        notes = read_notes(exporter.attributes).about({} if docker else self._said)
        if notes.index and not several and not notes.said:
            raise InvalidArgument("index annotations not supported for single platform export")
        with self._graph.step_of_ours(f"exporting to {exporter.kind} image format"):
            images = list(made.images.values())
            async with self._layout(images) as saved:
                layout = replace(saved, names=names, several=several, docker=docker, notes=notes)
                if exporter.loose:
                    await self._put("export", layout)
                else:
                    sent = await self._sent(exporter, layout.members())
                    self._graph.status("sending tarball", sent, done=True)
                top = layout.descriptor
        mine = made.mine(oci.parse_platform("", os.uname().machine))
        answer = {"containerimage.config.digest": mine, "containerimage.digest": top.digest}
        answer["containerimage.descriptor"] = base64.b64encode(oci.encode(top)).decode()
        return answer | _named(names)

    @contextlib.asynccontextmanager
    async def _layout(self, images: Sequence[str]) -> AsyncIterator[Layout]:
        found = [await self._shop.images.inspect(ImageRef(reference=image)) for image in images]
        saved = await self._shop.saved(images)
        try:
            yield Layout(saved, found)
        finally:
            saved.close()

    async def _put(self, name: str, layout: Layout) -> None:
        """Write what the client's store lacks."""
        store = self._session.store(name)
        for digest, size, content in layout.blobs():
            await store.put(digest, size, content)
            self._graph.status(f"writing {digest}", size, done=True)

    # Files.

    async def _files(self, exporter: Exporter, made: Made) -> None:
        """The result's files; of several platforms in a directory each."""
        local = exporter.kind == "local"
        title = "exporting to client directory" if local else "exporting to client tarball"
        with self._graph.step_of_ours(title):
            async with self._roots(made) as roots:
                if local:
                    sent = await self._session.put_files(exporter.number, roots)
                else:
                    carried = (m for directory, a in roots for m in _carried(directory, a))
                    sent = await self._sent(exporter, carried)
            self._graph.status("copying files" if local else "sending tarball", sent, done=True)

    @contextlib.asynccontextmanager
    async def _roots(self, made: Made) -> AsyncIterator[list[Root]]:
        """Root filesystems by the directories that they go to."""
        async with contextlib.AsyncExitStack() as stack:
            roots: list[Root] = []
            for platform, image in made.images.items():
                lease = await stack.enter_async_context(self._shop.lent(image, readonly=True))
                archive = await self._shop.read(lease, "/.")
                stack.callback(archive.close)
                if image in self._said:
                    archive.add("provenance.json", statement(self._said[image], _hashed(archive)))
                if image in self._datings:
                    _date(archive, self._datings[image].epoch)
                roots.append((platform.replace("/", "_") if made.several else "", archive))
            yield roots

    async def _sent(self, exporter: Exporter, carried: Iterable[Member]) -> int:
        return await self._session.put_bytes(exporter.number, _pieces(written(carried)))


def _named(names: Sequence[references.Reference]) -> dict[str, str]:
    return {"image.name": ",".join(name.canonical for name in names)} if names else {}


_AS_IT_IS = Owner(kept=True)
_SENT = ("Pushed", "Layer already exists")


def _carried(directory: str, archive: Archive) -> Iterator[Member]:
    yield from members([Item(archive, archive.tree.root, "")], Landing(f"/{directory}"), _AS_IT_IS)


def _date(archive: Archive, epoch: int) -> None:
    """All of its files are of one time."""
    for _, entry in archive.tree.walk():
        entry.mtime = epoch


def _hashed(archive: Archive) -> list[tuple[str, str]]:
    """All files with their digests."""
    found = []
    for path, entry in archive.tree.walk():
        if entry.kind is Kind.FILE:
            digest = hashlib.sha256()
            for piece in archive.content(entry):
                digest.update(piece)
            found.append((path, f"sha256:{digest.hexdigest()}"))
    return found


def _pieces(found: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of a useful size."""
    buffer = bytearray()
    for piece in found:
        buffer += piece
        while len(buffer) >= _PIECE:
            yield bytes(buffer[:_PIECE])
            del buffer[:_PIECE]
    if buffer:
        yield bytes(buffer)
