"""What stages begin from and copy from: images here or in registries, other stages, the context."""

from __future__ import annotations

import asyncio
import copy
import os
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence

from sagong.contracts.image import (
    Credentials,
    DistributionRequest,
    Image,
    ImageRef,
    PullRequest,
    TagRequest,
)
from sagong.errors import InvalidArgument, NotFound, SagongError
from sagong.model import oci, references
from sagong.model.numbers import natural
from sagong_builder.cache import Offer
from sagong_builder.context import Archive
from sagong_builder.foreign import check_made_here
from sagong_builder.reading import Paths, grouped
from sagong_builder.reporter import Reporter
from sagong_builder.running import new_id
from sagong_builder.shop import Shop

__all__ = ["Origins", "credentials_for"]

_IMAGE = "docker-image://"
_ID = re.compile(r"(sha256:)?[0-9a-f]{12,64}\Z")
# Images of one cache.
_PARTS = 64
Context = Callable[[Paths], Awaitable[Archive]]
Opened = Callable[[str, str, Paths], Awaitable[Archive]]
Lookup = Callable[[str], Awaitable[Credentials]]
_HUB = ("docker.io", "index.docker.io", "https://index.docker.io/v1/", "registry-1.docker.io")


def key_of(name: str) -> str:
    """A context's name: a stage's or image's, as people write it, without the default tag."""
    try:
        familiar = references.parse(name).familiar
    except InvalidArgument:
        familiar = name
    return familiar.removesuffix(f":{references.DEFAULT_TAG}").lower()


def credentials_for(reference: str, known: Sequence[Credentials]) -> Credentials:
    """Those of the registry that a reference names."""
    domain = references.parse(reference).domain
    for found in known:
        server = found.server
        host = server.removeprefix("https://").removeprefix("http://").partition("/")[0]
        if domain == host or (domain == references.DEFAULT_DOMAIN and server in _HUB):
            return found
    return Credentials()


class Origins:
    """Of one build. `stages` are the images that its stages became, by name and by number.

    `named` are further contexts of the client's, by names in small letters: another image
    (`docker-image://NAME`), or files that `opened` finds by a context's name and source. That, and
    `context`, give what has the paths; without any what is there already, else all.
    """

    def __init__(
        self,
        shop: Shop,
        reporter: Reporter,
        context: Context,
        *,
        pull: bool,
        credentials: Lookup,
        named: Mapping[str, str] | None = None,
        opened: Opened | None = None,
    ) -> None:
        self._shop = shop
        self._reporter = reporter
        self._context = context
        self._expected: Mapping[str, Paths] = {}
        self._pull = pull
        self._credentials = credentials
        self.stages: dict[str, str] = {}
        self.named = {key_of(name): source for name, source in (named or {}).items()}
        self._opened = opened
        self._pulled: set[tuple[str, str]] = set()
        self._pulling: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        self.platform = ""
        # What was begun or copied from, by name and platform.
        self.materials: dict[tuple[str, str], Image] = {}

    def beside(self, reporter: Reporter) -> Origins:
        """The same for another stage: what is pulled is pulled once, stages are each one's to know."""
        other = copy.copy(self)
        other._reporter, other.stages, other.platform = reporter, {}, ""
        return other

    def expect(self, read: Mapping[str, Paths]) -> None:
        """What the whole build will read, as far as that is known: it comes with the first of it."""
        self._expected = grouped(
            (key_of(origin) if origin else "", path)
            for origin, paths in read.items()
            for path in paths
        )

    async def prepare(self, read: Mapping[str, Paths]) -> None:
        """Have what the client must send before the step begins that reads it."""
        for origin, paths in read.items():
            wanted = paths | self._expected.get(key_of(origin) if origin else "", frozenset())
            if not origin:
                await self._context(wanted)
            else:
                await self.files(origin, wanted)

    async def context(self) -> Archive:
        """The context."""
        return await self._context(frozenset())

    def holds_files(self, name: str) -> bool:
        """Whether a name is a further context's that is no image."""
        source = self.named.get(key_of(name))
        return source is not None and not source.startswith(_IMAGE)

    async def files(self, origin: str, paths: Paths = frozenset()) -> Archive | None:
        """The files that a further context is; None if the name is no such context's."""
        if not self.holds_files(origin) or self._opened is None:
            return None
        return await self._opened(key_of(origin), self.named[key_of(origin)], paths)

    async def image(self, origin: str) -> str:
        """The image that `--from` names: a stage's, or any."""
        found = self.stages.get(origin.lower())
        if found is None and natural(origin) is not None:
            raise InvalidArgument(f"invalid from flag value {origin}: index out of bounds")
        if found is None:
            try:
                return (await self._having(origin, self.platform))[0].id
            except SagongError as error:
                raise type(error)(f"invalid from flag value {origin}: {error.message}") from None
        if not found:
            raise InvalidArgument(f"stage {origin} is empty: there is nothing to copy from it")
        return found

    async def offered(self, name: str) -> list[Offer]:
        """Images whose history serves as cache: the one that is here, else a registry's, or all of an
        index's."""
        image = None if self._pull else await self._local(name)
        if image is None:
            images = [
                await self.inspected(await self._fetch(one, "")) for one in await self._parts(name)
            ]
        else:
            images = [image]
        for image in images:
            check_made_here((), image.raw)
        return [Offer.of(image) for image in images]

    async def _parts(self, name: str) -> list[str]:
        """The names of an index's images in its registry; of an image its own."""
        credentials = await self._credentials(name)
        about = DistributionRequest(reference=name, credentials=credentials)
        found = await self._shop.images.distribution(about)
        check_made_here(found.kinds)
        whole = references.parse(name)
        return [f"{whole.name}@{part}" for part in found.parts[:_PARTS]] or [name]

    async def inspected(self, image: str) -> Image:
        """An image by its id or name."""
        return await self._shop.images.inspect(ImageRef(reference=image))

    async def base(self, name: str, platform: str) -> Image:
        """What a stage begins from: an image of the platform that is here, else a registry's."""
        image, here = await self._having(name, platform)
        if here:
            await self._reporter.found()
        return image

    async def _having(self, name: str, platform: str) -> tuple[Image, bool]:
        """An image of the platform, and whether it was here."""
        name = self._renamed(name)
        async with self._pulling[name, platform]:
            if not self._pull or (name, platform) in self._pulled:
                image = await self._local(name)
                if image is not None and (_fits(image, platform) or name == image.id):
                    self.materials[name, platform] = image
                    return image, True
            before = await self._local(name)
            fetched = await self._fetch(name, platform)
            if before is not None and _is_foreign(platform):
                # The name stays this machine's; containers are begun from it.
                await self._shop.images.tag(TagRequest(source=before.id, target=name))
        image = self.materials[name, platform] = await self.inspected(fetched)
        return image, False

    def _renamed(self, name: str) -> str:
        """What a further context of the client's puts in a name's place: another image."""
        return self.named.get(key_of(name), name).removeprefix(_IMAGE)

    def is_nothing(self, name: str) -> bool:
        """Whether a name, or what a further context puts in its place, is no image."""
        return self._renamed(name) == "scratch"

    async def _local(self, name: str) -> Image | None:
        """An image that is here; a few letters that begin an id are a name."""
        plain = _ID.match(name) is None and not references.parse(name).digest
        full = references.parse(name).tagged.familiar if plain else name
        try:
            return await self._shop.images.inspect(ImageRef(reference=full))
        except NotFound:
            return None

    async def _fetch(self, name: str, platform: str) -> str:
        """Pull; the image's id."""
        image = ""
        request = PullRequest(
            id=new_id(),
            reference=references.parse(name).tagged.familiar,
            platform=platform,
            credentials=await self._credentials(name),
        )
        try:
            async for item in self._shop.images.pull(request):
                image = item.image or image
                await self._reporter.pull(item)
        except SagongError as error:
            raise type(error)(self._reporter.unresolved(name, error), detail=error.detail) from None
        self._pulled.add((name, platform))
        return image


def _is_foreign(platform: str) -> bool:
    native = oci.parse_platform("", os.uname().machine)
    return bool(platform) and oci.parse_platform(platform, "") != native


def _fits(image: Image, platform: str) -> bool:
    if not platform:
        return True
    wanted = oci.parse_platform(platform, "")
    has = oci.normal_platform(
        oci.Platform(architecture=image.architecture, os=image.os, variant=image.variant)
    )
    same = (has.os, has.architecture) == (wanted.os, wanted.architecture)
    return same and (not wanted.variant or not has.variant or wanted.variant == has.variant)
