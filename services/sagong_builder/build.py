"""One build of the classic API: the context, the Dockerfile, and what is named at the end."""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import AsyncIterator

from sagong.contracts.builder import BuildRequest, Happening
from sagong.contracts.image import Credentials, SquashRequest, TagRequest
from sagong.errors import InvalidArgument
from sagong.model import references
from sagong_builder.attaching import Attaching
from sagong_builder.cache import Cache
from sagong_builder.caches import Caches
from sagong_builder.context import Archive
from sagong_builder.context.ignore import Ignore
from sagong_builder.dockerfile import Dockerfile, parse
from sagong_builder.draft import Draft
from sagong_builder.fetched import fetched_context, read_file
from sagong_builder.keys import NoKeys
from sagong_builder.origins import Origins, credentials_for
from sagong_builder.reading import Paths
from sagong_builder.reporter import Reporter
from sagong_builder.running import new_id
from sagong_builder.shop import Shop
from sagong_builder.sources import Sources
from sagong_builder.spool import room
from sagong_builder.stages import Bench, StageBuilder
from sagong_builder.steps import Steps, moment

__all__ = ["Build"]


class Build:
    """A build as it was asked for; `run` tells the reporter what happens."""

    def __init__(
        self, shop: Shop, caches: Caches, request: BuildRequest, reporter: Reporter
    ) -> None:
        self._shop = shop
        self._caches = caches
        self._request = request
        self._reporter = reporter
        self._context: Archive | None = None

    async def run(self) -> None:
        """All of it; raises what ended it."""
        with room():
            await self._run()

    async def _run(self) -> None:
        tags = [references.parse(tag) for tag in self._request.tags]
        if any(tag.digest for tag in tags):
            raise InvalidArgument("refusing to create a tag with a digest reference")
        async with self._context_open() as context:
            self._context = context
            dockerfile = parse(self._dockerfile(context), self._request.dockerfile)
            self._hide(context)
            made, unused = await self._make(dockerfile)
        if unused:
            names = " ".join(unused)
            text = f"[Warning] One or more build-args [{names}] were not consumed\n"
            await self._reporter.say(Happening.WARNING, text)
        await self._reporter.say(Happening.BUILT, image=made)
        for tag in tags:
            name = tag.tagged.familiar
            await self._shop.images.tag(TagRequest(source=made, target=name))
            await self._reporter.say(Happening.TAGGED, name)

    async def _make(self, dockerfile: Dockerfile) -> tuple[str, list[str]]:
        request = self._request
        origins = Origins(
            self._shop,
            self._reporter,
            self._opened_context,
            pull=request.pull,
            credentials=self._credentials,
        )
        sources = Sources(self._shop, origins)
        attaching = Attaching(self._shop, self._caches, sources, NoKeys())
        cache = Cache(self._shop.images, enabled=request.cache, sources=request.cache_from)
        steps = Steps(self._shop, request, self._reporter, cache, sources, attaching)
        bench = Bench(self._reporter, origins, steps)
        builder = StageBuilder(request, self._reporter, lambda: bench)
        draft = await builder.make(dockerfile)
        if not draft.image:
            raise InvalidArgument("No image was generated. Is your Dockerfile empty?")
        image = await self._squashed(draft, steps) if request.squash else draft.image
        given = (name for name, _ in request.arguments)
        return image, builder.arguments.unconsumed(given)

    async def _credentials(self, reference: str) -> Credentials:
        return credentials_for(reference, self._request.credentials)

    async def _squashed(self, draft: Draft, steps: Steps) -> str:
        """The new layers as one, above the base's."""
        step = [f"merge {draft.image} to {steps.base or 'scratch'}"]
        document = draft.document(step, "", moment())
        made = await self._shop.images.squash(
            SquashRequest(id=new_id(), image=draft.image, base=steps.base, document=document)
        )
        return made.id

    # The context.

    async def _opened_context(self, paths: Paths) -> Archive:
        assert self._context is not None
        return self._context

    @contextlib.asynccontextmanager
    async def _context_open(self) -> AsyncIterator[Archive]:
        async with contextlib.AsyncExitStack() as stack:
            if self._request.remote:
                archive = await fetched_context(
                    self._shop, self._request.remote, self._request.dockerfile, stack
                )
            elif self._request.context:
                path = await stack.enter_async_context(
                    self._shop.spool.taken(self._request.context)
                )
                archive = await self._shop.opened(path)
            else:
                raise InvalidArgument("a build needs a context: upload one, or name a remote one")
            stack.callback(archive.close)
            yield archive

    def _dockerfile(self, context: Archive) -> bytes:
        name = self._request.dockerfile or "Dockerfile"
        raw = read_file(context, name)
        if raw is None and name == "Dockerfile":
            raw = read_file(context, "dockerfile")
        if raw is None:
            raise InvalidArgument(f"Cannot locate specified Dockerfile: {name}")
        if not raw:
            raise InvalidArgument(f"the Dockerfile ({name}) cannot be empty")
        return raw

    def _hide(self, context: Archive) -> None:
        """.dockerignore may leave out itself and the Dockerfile, which the client must send."""
        raw = read_file(context, ".dockerignore")
        if raw is None:
            return
        ignore = Ignore.read(raw)
        for name in (".dockerignore", posixpath.normpath(self._request.dockerfile)):
            if ignore.excludes(name):
                context.tree.remove(name)
