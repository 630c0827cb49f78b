"""One solve: a Dockerfile of the client's built with files of the client's, and what is exported."""

from __future__ import annotations

import asyncio
import contextlib

from sagong.contracts.builder import Surroundings
from sagong.errors import Cancelled, FailedPrecondition, InvalidArgument, SagongError
from sagong_builder.attaching import Attaching
from sagong_builder.build import Bench, StageBuilder
from sagong_builder.buildkit import messages as m
from sagong_builder.buildkit.contexts import Contexts
from sagong_builder.buildkit.exporting import Exporting, exporters_of
from sagong_builder.buildkit.failures import CANCELLED, failed, failure
from sagong_builder.buildkit.frontend import Wish, read_options
from sagong_builder.buildkit.graphs import image_of, naming
from sagong_builder.buildkit.outline import answer
from sagong_builder.buildkit.progress import Graph
from sagong_builder.buildkit.rpc import RpcError
from sagong_builder.buildkit.session import Session, Sessions
from sagong_builder.buildkit.syntax import check_frontend
from sagong_builder.cache import Cache
from sagong_builder.caches import Caches
from sagong_builder.dialect import BUILDKIT
from sagong_builder.dockerfile import Dockerfile, parse, syntax_of
from sagong_builder.origins import Origins
from sagong_builder.running import new_id
from sagong_builder.shop import Shop
from sagong_builder.sources import Sources
from sagong_builder.steps import Steps

__all__ = ["Solve"]

_REFUSED = frozenset(("security.insecure",))


class Solve:
    """What a client calls by its ref. `run` is the control's call, `solve` the frontend's."""

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
        try:
            return await self._run()
        except SagongError as error:
            self.graph.complete(failed(error))
            raise failure(error, "", b"") from None
        except asyncio.CancelledError:
            self.graph.complete(CANCELLED)
            raise
        finally:
            self.graph.complete()
            self.graph.end()
            if not self._returned.done():
                self._returned.set_exception(Cancelled("the solve has ended"))
            # Nobody need be interested.
            self._returned.exception()

    async def _run(self) -> m.SolveResponse:
        request = self._request
        exporters = exporters_of(request)
        for name in _REFUSED.intersection(request.entitlements):
            raise FailedPrecondition(
                f"granting entitlement {name} is not allowed by build daemon configuration"
            )
        if request.definition is not None and request.definition.ops:
            image = image_of(request.definition)
        elif request.frontend:
            made = await self._build(
                request.frontend, request.frontend_attrs, request.frontend_inputs
            )
            image = self._image(made)
        else:
            image = await self._returned
        response: dict[str, str] = {}
        if image:
            session = await self._sessions.wait(request.session)
            exporting = Exporting(self._shop, session, self.graph)
            for exporter in exporters:
                response |= await exporting.export(exporter, image)
        return m.SolveResponse(exporter_response=response)

    def give_back(self, request: m.ReturnRequest) -> None:
        """The client's build function has ended, with a result of `solve` or an error."""
        if self._returned.done():
            return
        error = request.error
        if error is not None and error.code:
            self._returned.set_exception(
                RpcError(error.message, status=error.code, details=error.details)
            )
            return
        self._returned.set_result(self._image(request.result))

    def _image(self, result: m.Result | None) -> str:
        return self._images.get(result.ref.id, "") if result and result.ref else ""

    async def solve(self, request: m.GatewaySolveRequest) -> m.GatewaySolveResponse:
        """The frontend's call of the gateway."""
        if request.definition is not None and request.definition.ops and not request.frontend:
            return m.GatewaySolveResponse(result=self._result(image_of(request.definition)))
        made = await self._build(request.frontend, request.frontend_opt, request.frontend_inputs)
        return m.GatewaySolveResponse(result=made)

    def _result(self, image: str) -> m.Result:
        reference = new_id()[:25]
        self._images[reference] = image
        return m.Result(ref=m.Ref(id=reference, definition=naming(image)))

    # Building.

    async def _build(
        self, frontend: str, options: dict[str, str], inputs: dict[str, m.Definition]
    ) -> m.Result:
        """What the Dockerfile makes, or what is asked about it."""
        raw = b""
        name = options.get("filename") or "Dockerfile"
        try:
            images = {key: image_of(definition) for key, definition in inputs.items()}
            wish = read_options(frontend, options, self._surroundings, self._request.ref, images)
            session = await self._sessions.wait(self._request.session)
            async with contextlib.AsyncExitStack() as stack:
                kept = self._caches.contexts
                contexts = Contexts(self._shop, session, wish, self.graph, kept, stack)
                raw = await contexts.dockerfile()
                check_frontend(options.get("source") or syntax_of(raw, name))
                dockerfile = parse(raw, wish.request.dockerfile)
                if wish.question:
                    return m.Result(metadata=answer(wish.question, dockerfile, wish.request))
                return self._result(await self._made(wish, session, contexts, dockerfile))
        except SagongError as error:
            self.graph.complete(failed(error))
            raise failure(error, name, raw) from None
        except asyncio.CancelledError:
            self.graph.complete(CANCELLED)
            raise

    async def _made(
        self, wish: Wish, session: Session, contexts: Contexts, dockerfile: Dockerfile
    ) -> str:
        request = wish.request
        if request.target and dockerfile.numbered(request.target) is None:
            stages = ", ".join(s.name or str(s.number) for s in dockerfile.stages)
            raise InvalidArgument(
                f'target stage "{request.target[:100]}" could not be found: the stages are {stages}'
            )
        origins = Origins(
            self._shop,
            self.graph,
            contexts.context,
            pull=request.pull,
            credentials=session.credentials,
            named=dict(wish.named),
            opened=contexts.further,
        )
        cache = Cache(self._shop.images, enabled=request.cache, sources=())
        for reference in request.cache_from if request.cache else ():
            await self._import(reference, origins, cache)

        def bench() -> Bench:
            track = self.graph.track()
            own = origins.beside(track)
            sources = Sources(self._shop, own, BUILDKIT)
            attaching = Attaching(self._shop, self._caches, sources, session)
            steps = Steps(
                self._shop,
                request,
                track,
                cache.beside(),
                sources,
                attaching,
                dialect=BUILDKIT,
                host_network="network.host" in self._request.entitlements,
            )
            return Bench(track, own, steps)

        builder = StageBuilder(
            request,
            self.graph,
            bench,
            named=origins.named,
            anew=wish.anew,
            dialect=BUILDKIT,
        )
        return (await builder.make(dockerfile)).image

    async def _import(self, reference: str, origins: Origins, cache: Cache) -> None:
        """A cache that can't be had is none; the build goes on."""
        self.graph.begin(f"importing cache manifest from {reference}")
        try:
            cache.offer(await origins.offered(reference))
            self.graph.complete()
        except SagongError as error:
            self.graph.complete(error.message)
