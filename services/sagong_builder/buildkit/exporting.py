"""What becomes of a build's image: names in the store, or its files at the client's.

Source: the exporters `moby`, `local` and `tar` of Docker Engine's BuildKit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sagong.contracts.image import TagRequest
from sagong.errors import Unimplemented
from sagong.model import references
from sagong_builder.buildkit import messages as m
from sagong_builder.buildkit.progress import Graph
from sagong_builder.buildkit.session import Session
from sagong_builder.copying import Item, Landing, Owner, members, written
from sagong_builder.shop import Shop

__all__ = ["Exporter", "Exporting", "exporters_of"]

_STORE = ("moby", "image", "docker", "")
_CLIENT = ("local", "tar")
_PIECE = 1 << 18


@dataclass(frozen=True)
class Exporter:
    """One of the client's; `number` is how it knows it."""

    number: int
    kind: str
    attributes: dict[str, str]


def exporters_of(request: m.SolveRequest) -> list[Exporter]:
    """Those of a request; Unimplemented for what is not here."""
    given = [(spec.type, spec.attrs) for spec in request.exporters]
    if not given and request.exporter:
        given = [(request.exporter, request.exporter_attrs)]
    for kind, _ in given:
        if kind not in (*_STORE, *_CLIENT):
            raise Unimplemented(
                f'exporter "{kind[:50]}" could not be found: this engine exports to its own images '
                "(--load), to a directory (local) and to a tar; `docker save` writes an image's archive"
            )
    return [Exporter(number, kind, attrs) for number, (kind, attrs) in enumerate(given)]


class Exporting:
    """Of one build."""

    def __init__(self, shop: Shop, session: Session, graph: Graph) -> None:
        self._shop = shop
        self._session = session
        self._graph = graph

    async def export(self, exporter: Exporter, image: str) -> dict[str, str]:
        """Do it; what the client is told of it."""
        if exporter.kind == "local":
            await self._directory(exporter, image)
            return {}
        if exporter.kind == "tar":
            await self._tar(exporter, image)
            return {}
        return await self._named(exporter, image)

    async def _named(self, exporter: Exporter, image: str) -> dict[str, str]:
        names = [name for name in exporter.attributes.get("name", "").split(",") if name]
        with self._graph.step_of_ours("exporting to image"):
            self._graph.status("exporting layers", done=True)
            self._graph.status(f"writing image {image}", done=True)
            for name in names:
                tagged = references.parse(name).tagged
                await self._shop.images.tag(TagRequest(source=image, target=tagged.familiar))
                self._graph.status(f"naming to {tagged.canonical}", done=True)
        answer = {"containerimage.config.digest": image, "containerimage.digest": image}
        return {**answer, "image.name": ",".join(names)} if names else answer

    async def _directory(self, exporter: Exporter, image: str) -> None:
        with self._graph.step_of_ours("exporting to client directory"):
            async with self._shop.lent(image, readonly=True) as lease:
                archive = await self._shop.read(lease, "/.")
            try:
                sent = await self._session.put_files(exporter.number, archive)
            finally:
                archive.close()
            self._graph.status("copying files", sent, done=True)

    async def _tar(self, exporter: Exporter, image: str) -> None:
        with self._graph.step_of_ours("exporting to client tarball"):
            async with self._shop.lent(image, readonly=True) as lease:
                archive = await self._shop.read(lease, "/.")
            try:
                carried = members([Item(archive, archive.tree.root, "")], Landing("/"), _AS_IT_IS)
                sent = await self._session.put_bytes(exporter.number, _pieces(written(carried)))
            finally:
                archive.close()
            self._graph.status("sending tarball", sent, done=True)


_AS_IT_IS = Owner(kept=True)


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
