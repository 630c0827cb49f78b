"""One solve: a Dockerfile of the client's built with files of the client's, and what is exported."""

from __future__ import annotations

import asyncio
import contextlib
import posixpath

from sagong.contracts.builder import Surroundings
from sagong.contracts.image import TagRequest
from sagong.errors import Aborted, Cancelled, InvalidArgument, NotFound, SagongError, Unimplemented
from sagong.model import references
from sagong_builder.attaching import Attaching
from sagong_builder.build import StageBuilder, fetched_context, read_file
from sagong_builder.buildkit import messages as m
from sagong_builder.buildkit.frontend import Wish, read_options
from sagong_builder.buildkit.progress import Graph
from sagong_builder.buildkit.session import Session, Sessions
from sagong_builder.cache import Cache
from sagong_builder.caches import Caches
from sagong_builder.context import Archive
from sagong_builder.context.patterns import Ignore
from sagong_builder.dockerfile import parse
from sagong_builder.origins import Origins
from sagong_builder.running import new_id
from sagong_builder.shop import Shop
from sagong_builder.sources import Sources
from sagong_builder.steps import Steps

__all__ = ["Solve"]

_EXPORTERS = ("moby", "image", "")
_SESSION_URL = "http://buildkit-session/"


class Solve:
    """What a client calls by its ref. `run` is the control's call, `build` the frontend's."""

    def __init__(
        self,
        shop: Shop,
        caches: Caches,
        sessions: Sessions,
        request: m.SolveRequest,
        surroundings: Surroundings,
    ) -> None:
        self._shop = shop
        self._caches = caches
        self._sessions = sessions
        self._request = request
        self._surroundings = surroundings
        self.graph = Graph()
        self._images: dict[str, str] = {}
        self._returned: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def run(self) -> m.SolveResponse:
        """Until the image is exported. Without a frontend the client says what is built."""
        request = self._request
        exporter = request.exporters[0] if request.exporters else None
        kind = exporter.type if exporter else request.exporter
        attributes = exporter.attrs if exporter else request.exporter_attrs
        if kind not in _EXPORTERS:
            raise Unimplemented(
                f'exporter "{kind[:50]}" could not be found: this engine exports to its own images '
                "(docker buildx build --load); `docker save` and `docker cp` give files"
            )
        try:
            if request.definition:
                raise Unimplemented("graphs of a client's own making are not solved here")
            if request.frontend:
                image = await self.build(request.frontend, request.frontend_attrs)
            else:
                image = await self._returned
            return m.SolveResponse(exporter_response=await self._export(image, attributes))
        finally:
            self.graph.complete()
            self.graph.end()
            if not self._returned.done():
                self._returned.set_exception(Cancelled("the solve has ended"))
            # Nobody need be interested.
            self._returned.exception()

    def give_back(self, request: m.ReturnRequest) -> None:
        """The client's build function has ended, with a result of `solve` or an error."""
        if self._returned.done():
            return
        if request.error is not None and request.error.code:
            self._returned.set_exception(InvalidArgument(request.error.message))
            return
        reference = request.result.ref.id if request.result and request.result.ref else ""
        self._returned.set_result(self._images.get(reference, ""))

    async def solve(self, request: m.GatewaySolveRequest) -> m.GatewaySolveResponse:
        """The frontend's call of the gateway."""
        if request.definition and not request.frontend:
            raise Unimplemented("graphs of a client's own making are not solved here")
        image = await self.build(request.frontend, request.frontend_opt)
        reference = new_id()[:25]
        self._images[reference] = image
        return m.GatewaySolveResponse(result=m.Result(ref=m.Ref(id=reference)))

    async def _export(self, image: str, attributes: dict[str, str]) -> dict[str, str]:
        """Name the image; what the client is told of it."""
        if not image:
            return {}
        names = [name for name in attributes.get("name", "").split(",") if name]
        self.graph.begin("exporting to image")
        self.graph.status(f"writing image {image}", done=True)
        for name in names:
            tagged = references.parse(name).tagged
            await self._shop.images.tag(TagRequest(source=image, target=tagged.familiar))
            self.graph.status(f"naming to {tagged.canonical}", done=True)
        self.graph.complete()
        answer = {"containerimage.config.digest": image, "containerimage.digest": image}
        return {**answer, "image.name": ",".join(names)} if names else answer

    # Building.

    async def build(self, frontend: str, options: dict[str, str]) -> str:
        """The image that the Dockerfile makes."""
        wish = read_options(frontend, options, self._surroundings, self._request.ref)
        try:
            session = await self._sessions.wait(self._request.session)
            async with contextlib.AsyncExitStack() as stack:
                return await self._made(wish, session, stack)
        except SagongError as error:
            self.graph.complete(_failed(error))
            raise type(error)(_failed(error), detail=error.detail) from None

    async def _made(self, wish: Wish, session: Session, stack: contextlib.AsyncExitStack) -> str:
        request = wish.request
        files = _ClientFiles(self._shop, session, wish, self.graph, stack)
        dockerfile = parse(await files.dockerfile(), request.dockerfile)
        origins = Origins(
            self._shop,
            self.graph,
            files.context,
            pull=request.pull,
            credentials=session.credentials,
        )
        for name, source in wish.named:
            origins.named[name] = source
        sources = Sources(self._shop, origins)
        attaching = Attaching(self._shop, self._caches, sources, session)
        cache = Cache(self._shop.images, enabled=request.cache, sources=request.cache_from)
        steps = Steps(self._shop, request, self.graph, cache, sources, attaching)
        draft = await StageBuilder(request, self.graph, origins, steps).make(dockerfile)
        self.graph.complete()
        if not draft.image:
            raise InvalidArgument("no image was generated: the last stage is empty")
        return draft.image


def _failed(error: SagongError) -> str:
    """A command's failure as clients of BuildKit know it."""
    code = error.detail.get("code", "")
    if not isinstance(error, Aborted) or not code:
        return error.message
    command = error.message.removeprefix("The command '").rpartition("' returned")[0]
    return f'process "{command}" did not complete successfully: exit code: {code}'


class _ClientFiles:
    """The Dockerfile, and the context when the first instruction wants it."""

    def __init__(
        self,
        shop: Shop,
        session: Session,
        wish: Wish,
        graph: Graph,
        stack: contextlib.AsyncExitStack,
    ) -> None:
        self._shop = shop
        self._session = session
        self._wish = wish
        self._graph = graph
        self._stack = stack
        self._context: Archive | None = None
        self._ignored: bytes | None = None
        self._lock = asyncio.Lock()

    async def dockerfile(self) -> bytes:
        """Of its own directory, or of a context that is no directory of the client's."""
        name = self._wish.request.dockerfile
        self._graph.begin(f"[internal] load build definition from {posixpath.basename(name)}")
        if self._wish.context and self._wish.context_name != self._wish.dockerfile_name:
            raw = read_file(await self.context(), name)
        else:
            raw = await self._of_client(name)
        if raw is None:
            raise NotFound(f"failed to read dockerfile: open {name}: no such file or directory")
        self._graph.status("transferring dockerfile", len(raw), len(raw), done=True)
        return raw

    async def _of_client(self, name: str) -> bytes | None:
        wanted = [name, f"{name}.dockerignore", *(["dockerfile"] if name == "Dockerfile" else [])]
        archive = await self._session.files(self._shop, self._wish.dockerfile_name, follow=wanted)
        try:
            self._ignored = read_file(archive, f"{name}.dockerignore")
            found = read_file(archive, name)
            return read_file(archive, "dockerfile") if found is None and len(wanted) > 2 else found
        finally:
            archive.close()

    async def context(self) -> Archive:
        """The context, got once."""
        async with self._lock:
            if self._context is None:
                self._context = await self._got()
                self._stack.callback(self._context.close)
            return self._context

    async def _got(self) -> Archive:
        source = self._wish.context
        if source.startswith(_SESSION_URL):
            path = await self._session.upload(self._shop, source[len(_SESSION_URL) - 1 :])
            return await self._shop.opened(path)
        if source:
            return await fetched_context(
                self._shop, source, self._wish.request.dockerfile, self._stack
            )
        if self._ignored is None:
            self._ignored = await self._ignore_file()
        excludes = Ignore.read(self._ignored or b"").patterns
        archive = await self._session.files(self._shop, self._wish.context_name, excludes=excludes)
        size = archive.path.stat().st_size
        self._graph.status("transferring context", size, size, done=True)
        return archive

    async def _ignore_file(self) -> bytes | None:
        archive = await self._session.files(
            self._shop, self._wish.context_name, follow=[".dockerignore"]
        )
        try:
            return read_file(archive, ".dockerignore")
        finally:
            archive.close()
