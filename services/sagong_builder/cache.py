"""The build cache: the images that earlier steps made, found by parent and by what the step was.

Images that `--cache-from` names serve, too: where their history goes on from the parent's as the step
does, their layers are taken; at its end the step's image is that one itself. For the classic builder
nothing else serves then: children of the parent do only if such an image was made of them.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from sagong.contracts.image import DeriveRequest, Image, ImageQuery, ImageRef, Images
from sagong.errors import InvalidArgument, NotFound
from sagong_builder.draft import Draft, same_step, step_key

__all__ = ["Cache", "Offer"]


@dataclass(frozen=True)
class Offer:
    """An image whose history serves; one that is elsewhere comes by `have`, when it is wanted."""

    id: str
    history: list[Any]
    layers: tuple[str, ...]
    have: Callable[[], Awaitable[object]] | None = None

    @classmethod
    def of(cls, image: Image) -> Offer:
        """An image that is here."""
        history = msgspec.json.decode(image.history or b"[]", type=list[Any] | None) or []
        return cls(image.id, history, tuple(layer.diff_id for layer in image.layers))


class Cache:
    """Of one build. Once a step was not found, nothing below it is looked for."""

    def __init__(self, images: Images, *, enabled: bool, sources: Sequence[str]) -> None:
        self._images = images
        self._enabled = enabled
        self._names = sources
        self._sources: list[Offer] | None = None
        self._offered: list[Offer] = []
        self._broken = False

    def beside(self) -> Cache:
        """The same for another stage."""
        return copy.copy(self)

    def offer(self, offer: Offer) -> None:
        """An image more whose history serves."""
        self._offered.append(offer)

    def begin_stage(self, *, cached: bool = True) -> None:
        """A new FROM: the cache is looked at again, if the stage may have it."""
        self._broken = not cached

    async def find(self, draft: Draft, step: Sequence[str], base: str) -> Image | None:
        """The image that this step made before; `base` is what the stage began from."""
        if not self._enabled or self._broken:
            return None
        found = await self._child(draft, step)
        if found is not None and self._names and not await self._in_sources(found):
            found = None
        found = found or await self._of_sources(draft, step, base)
        self._broken = found is None
        return found

    async def _in_sources(self, image: Image) -> bool:
        """Whether one of the named images is this one, or was made of it."""
        for source in await self._known_sources():
            id_ = source.id
            while id_ and id_ != image.id:
                try:
                    id_ = (await self._images.inspect(ImageRef(reference=id_))).parent
                except NotFound:
                    id_ = ""
            if id_:
                return True
        return False

    async def _child(self, draft: Draft, step: Sequence[str]) -> Image | None:
        wanted = msgspec.json.encode(draft.step_config(step))
        query = ImageQuery(parent=draft.image, all=True, step=wanted)
        found = (await self._images.list(query)).images
        # Images of nothing's have no parent to be asked for.
        return next((image for image in found if _goes_on(image, draft)), None)

    async def _of_sources(self, draft: Draft, step: Sequence[str], base: str) -> Image | None:
        for source in await self._known_sources():
            history, length = source.history, len(draft.history)
            if len(history) <= length or not _same(history[:length], draft.history):
                continue
            entry = history[length]
            if not same_step(entry, step):
                continue
            return await self._restored(draft, step, source, history[: length + 1])
        return None

    async def _restored(
        self, draft: Draft, step: Sequence[str], source: Offer, history: list[Any]
    ) -> Image | None:
        """The step's image made of the source's layers, as far as its history went by then."""
        layers = sum(not entry.get("empty_layer") for entry in history)
        mine = await self._layers_of(draft.image)
        theirs = source.layers
        if theirs[: len(mine)] != mine or layers > len(theirs):
            return None
        if source.have is not None:
            await source.have()
        # What goes on from it is of the same image: others' histories only look alike.
        self._sources = [source]
        if len(history) == len(source.history):
            return await self._images.inspect(ImageRef(reference=source.id))
        document = msgspec.json.decode(draft.document(step, "", history[-1].get("created") or ""))
        document["history"] = history
        return await self._images.derive(
            DeriveRequest(
                id=f"cache-{source.id[-24:]}-{len(history)}",
                parent=draft.image,
                layers_of=source.id,
                layers=layers,
                document=msgspec.json.encode(document),
            )
        )

    async def _layers_of(self, image: str) -> tuple[str, ...]:
        if not image:
            return ()
        found = await self._images.inspect(ImageRef(reference=image))
        return tuple(layer.diff_id for layer in found.layers)

    async def _known_sources(self) -> list[Offer]:
        if self._sources is None:
            self._sources = list(self._offered)
            for name in self._names:
                try:
                    image = await self._images.inspect(ImageRef(reference=name))
                    self._sources.append(Offer.of(image))
                except (NotFound, InvalidArgument):
                    continue  # as Docker: what is not here helps nobody
        return self._sources


def _goes_on(image: Image, draft: Draft) -> bool:
    """Whether it was made of the draft's; what is made of nothing has a platform of its own."""
    here = (image.os, image.architecture, image.variant)
    wanted = (draft.platform.os, draft.platform.architecture, draft.platform.variant)
    return image.parent == draft.image and (bool(draft.image) or here == wanted)


def _same(one: list[Any], two: list[Any]) -> bool:
    return [(step_key(e), e.get("empty_layer")) for e in one] == [
        (step_key(e), e.get("empty_layer")) for e in two
    ]
