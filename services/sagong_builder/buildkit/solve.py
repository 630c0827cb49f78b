"""One solve: a Dockerfile of the client's built with files of the client's, and what is exported."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sagong.contracts.builder import Surroundings
from sagong.contracts.image import DeriveRequest, ImageRef
from sagong.errors import Cancelled, FailedPrecondition, InvalidArgument, NotFound, SagongError
from sagong.model import oci
from sagong.model.numbers import natural
from sagong_builder.attaching import Attaching
from sagong_builder.buildkit import messages as m
from sagong_builder.buildkit.contexts import Contexts, left_out
from sagong_builder.buildkit.exporting import Exporting, caches_of, exporters_of
from sagong_builder.buildkit.failures import CANCELLED, failed, failure
from sagong_builder.buildkit.frontend import EPOCH, CacheFrom, Wish, read_epoch, read_options
from sagong_builder.buildkit.graphs import image_of
from sagong_builder.buildkit.outline import LINT, answer, answer_unread, bases_of, found_in
from sagong_builder.buildkit.progress import Graph
from sagong_builder.buildkit.provenance import Attesting, Material, digest_of, predicate
from sagong_builder.buildkit.results import Made
from sagong_builder.buildkit.rewriting import Dating
from sagong_builder.buildkit.rpc import RpcError
from sagong_builder.buildkit.session import Session, Sessions
from sagong_builder.buildkit.stored import StoredImages
from sagong_builder.buildkit.syntax import check_frontend
from sagong_builder.cache import Cache, Offer
from sagong_builder.caches import Caches
from sagong_builder.checks import located
from sagong_builder.dialect import BUILDKIT
from sagong_builder.dockerfile import Dockerfile, Instruction, parse, syntax_of
from sagong_builder.dockerfile.lint import Base, Known, failure_of, findings
from sagong_builder.draft import Draft
from sagong_builder.origins import Origins, key_of
from sagong_builder.running import new_id
from sagong_builder.shop import Shop
from sagong_builder.sources import Sources
from sagong_builder.spool import room
from sagong_builder.stages import Bench, StageBuilder
from sagong_builder.steps import Steps

__all__ = ["Solve"]

_LAYOUT = "oci-layout://"
_CONFIG = "containerimage.config"
_REFUSED = frozenset(("security.insecure",))


def _directive(raw: bytes) -> Instruction:
    """Where a Dockerfile asks for a frontend."""
    lines = raw.splitlines()
    line = next((n for n, text in enumerate(lines, 1) if b"syntax" in text.lower()), 0)
    return Instruction(line, "", "", last=line)


def _over() -> Cancelled:
    return Cancelled("the solve has ended")


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
        # Images by the references that the client knows them by.
        self._images: dict[str, str] = {}
        self._stages: list[str] = []
        # How images were made: what goes out with them, where that is wanted, and all of it.
        self._said: dict[str, dict[str, Any]] = {}
        self._predicates: dict[str, dict[str, Any]] = {}
        self._datings: dict[str, Dating] = {}
        self._result = Made({})
        self._returned: asyncio.Future[Made] = asyncio.get_running_loop().create_future()

    async def run(self) -> m.SolveResponse:
        """Until the image is exported. Without a frontend the client says what is built."""
        try:
            with room():
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
                self._returned.set_exception(_over())
            # Nobody need be interested.
            self._returned.exception()

    async def _run(self) -> m.SolveResponse:
        request = self._request
        exporters, caches = exporters_of(request), caches_of(request)
        for name in _REFUSED.intersection(request.entitlements):
            raise FailedPrecondition(
                f"granting entitlement {name} is not allowed by build daemon configuration"
            )
        if request.definition is not None:
            # One without operations is nothing at all: `llb.Scratch()`.
            ops = request.definition.ops
            made = Made({"": image_of(request.definition)} if ops else {})
        elif request.frontend:
            result = await self._build(
                request.frontend, request.frontend_attrs, request.frontend_inputs
            )
            made = Made.of(result, self._images)
        else:
            made = await self._returned
        self._result = made
        response: dict[str, str] = {}
        if made.images:
            session = await self._sessions.wait(request.session)
            exporting = Exporting(self._shop, session, self.graph, self._said, self._datings)
            for exporter in exporters:
                response |= await exporting.export(exporter, made)
            for cache in caches:
                response |= await exporting.cache(cache, made, self._stages)
        return m.SolveResponse(exporter_response=response)

    async def told(self) -> dict[str, tuple[dict[str, Any], bytes]]:
        """How the result's images were made and their configs, by platforms."""
        found: dict[str, tuple[dict[str, Any], bytes]] = {}
        for platform, image in self._result.images.items():
            # Of one that somebody has deleted since there is nothing to tell.
            with contextlib.suppress(NotFound):
                if image in self._predicates:
                    found[platform] = (self._predicates[image], await self._config(image))
        return found

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
        self._returned.set_result(Made.of(request.result, self._images))

    async def solve(self, request: m.GatewaySolveRequest) -> m.GatewaySolveResponse:
        """The frontend's call of the gateway; it ends with the control's, which may be refused."""
        if request.definition is not None and request.definition.ops and not request.frontend:
            named = Made({"": image_of(request.definition)})
            return m.GatewaySolveResponse(result=self._told_as(named))
        build = asyncio.ensure_future(
            self._build(request.frontend, request.frontend_opt, request.frontend_inputs)
        )
        try:
            await asyncio.wait((build, self._returned), return_when=asyncio.FIRST_COMPLETED)
            if not build.done():
                raise failure(_over(), "", b"")
            return m.GatewaySolveResponse(result=build.result())
        finally:
            build.cancel()
            await asyncio.gather(build, return_exceptions=True)

    def _told_as(self, made: Made) -> m.Result:
        references = {platform: new_id()[:25] for platform in made.images}
        self._images.update({references[p]: image for p, image in made.images.items()})
        return made.result(references)

    # Building.

    async def _build(
        self, frontend: str, options: dict[str, str], inputs: dict[str, m.Definition]
    ) -> m.Result:
        """What the Dockerfile makes, or what is asked about it."""
        raw = b""
        name = options.get("filename") or "Dockerfile"
        try:
            given = {key: image_of(definition) for key, definition in inputs.items()}
            wish = read_options(frontend, options, self._surroundings, self._request.ref, given)
            session = await self._sessions.wait(self._request.session)
            async with contextlib.AsyncExitStack() as stack:
                stack.enter_context(room())
                kept = self._caches.contexts
                contexts = Contexts(self._shop, session, wish, self.graph, kept, stack)
                raw = await contexts.dockerfile()
                with located(_directive(raw)):
                    check_frontend(options.get("source") or syntax_of(raw, name))
                try:
                    dockerfile = self._parsed(raw, wish)
                except SagongError as error:
                    if wish.question != LINT:
                        raise
                    before = _before(raw, wish.request.dockerfile, error)
                    told = answer_unread(before, raw, wish.request.dockerfile, error)
                    return m.Result(metadata=told)
                known = await self._known(dockerfile, wish, contexts)
                if wish.question:
                    told = answer(wish.question, dockerfile, wish.request, known)
                    return m.Result(metadata=told)
                self._check(dockerfile, wish, known)
                images = {
                    platform: await self._made(wish.at(platform), session, contexts, dockerfile)
                    for platform in wish.platforms
                }
                result = self._told_as(Made(images, several=wish.several))
                for platform, image in images.items():
                    key = f"{_CONFIG}/{platform}" if wish.several else _CONFIG
                    result.metadata[key] = await self._config(image)
                return result
        except SagongError as error:
            self.graph.complete(failed(error))
            raise failure(error, name, raw) from None
        except asyncio.CancelledError:
            self.graph.complete(CANCELLED)
            raise

    async def _known(self, dockerfile: Dockerfile, wish: Wish, contexts: Contexts) -> Known:
        """What checks may know."""
        own = [i for stage in dockerfile.stages for i in stage.instructions]
        copies = any(i.keyword in ("ADD", "COPY") and not i.flag("from") for i in own)
        ignored = await contexts.ignored() if copies else None
        return Known(await self._bases(dockerfile, wish), left_out(ignored))

    async def _bases(self, dockerfile: Dockerfile, wish: Wish) -> dict[int, Base]:
        """Images that stages begin from and that are here, by the stages' numbers."""
        named = {key_of(name) for name, _, _ in wish.named}
        found: dict[int, Base] = {}
        # A name that can't be read is the build's to tell.
        with contextlib.suppress(InvalidArgument):
            for number, (name, platform) in bases_of(dockerfile, wish.request).items():
                if dockerfile.find(name, number) is None and key_of(name) not in named:
                    with contextlib.suppress(NotFound):
                        found[number] = await self._base(name, platform or wish.request.platform)
        return found

    async def _base(self, name: str, wanted: str) -> Base:
        """An image that is here, for a stage that wants this platform."""
        native = oci.parse_platform("", os.uname().machine)
        image = await self._shop.images.inspect(ImageRef(reference=name))
        draft = Draft.scratch(native)
        draft.begin(image)
        platform = oci.platform_text(oci.parse_platform(wanted, native.architecture))
        return Base((*draft.environment,), oci.platform_text(draft.platform), platform)

    def _check(self, dockerfile: Dockerfile, wish: Wish, known: Known) -> None:
        """Tell what checks find; they may end the build."""
        found, fatal = found_in(dockerfile, wish.request, known)
        self.graph.found_wanting(found, wish.request.dockerfile, dockerfile.raw)
        if found and fatal:
            raise failure_of(found)

    def _parsed(self, raw: bytes, wish: Wish) -> Dockerfile:
        """The Dockerfile; of one that can't be read to its end checks tell of what is before that."""
        name = wish.request.dockerfile
        if not raw:
            raise InvalidArgument("the Dockerfile cannot be empty")
        try:
            return parse(raw, name)
        except SagongError as error:
            before = _before(raw, name, error)
            if before is not None and not wish.question:
                self.graph.found_wanting(findings(before, needed=()), name, raw)
            raise

    async def _config(self, image: str) -> bytes:
        """The image's document, which clients that go on from it want."""
        if not image:
            return b"{}"
        return (await self._shop.images.inspect(ImageRef(reference=image))).raw

    async def _made(
        self, wish: Wish, session: Session, contexts: Contexts, dockerfile: Dockerfile
    ) -> str:
        began, request = time.time(), wish.request
        dockerfile.target(request.target)
        origins = Origins(
            self._shop,
            self.graph,
            contexts.context,
            pull=request.pull,
            credentials=session.credentials,
            named=await self._named(wish, session),
            opened=contexts.further,
        )
        cache = Cache(self._shop.images, enabled=request.cache, sources=())
        for wanted in wish.caches:
            await self._import(wanted, origins, cache, session)

        dialect = replace(BUILDKIT, hostname=wish.hostname or BUILDKIT.hostname)

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
                dialect=dialect,
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
            platform=request.platform if wish.several else "",
        )
        draft = await builder.make(dockerfile)
        given = builder.arguments.globals.get(EPOCH, "")
        epoch = read_epoch(given) if wish.epoch is None else wish.epoch
        image = await self._dated(draft, epoch)
        if epoch is not None:
            self._datings[image] = Dating(epoch, draft.layers)
        self._stages += builder.images
        self._predicates[image] = self._predicate(wish, Attesting(full=True), origins, began)
        if wish.attesting is not None:
            self._said[image] = self._predicate(wish, wish.attesting, origins, began)
        return image

    async def _dated(self, draft: Draft, epoch: int | None) -> str:
        """The draft's image, as if it had been made then."""
        if epoch is None or not draft.image:
            return draft.image
        raw = (await self._shop.images.inspect(ImageRef(reference=draft.image))).raw
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
        document = draft.dated(raw, created)
        request = DeriveRequest(id=new_id(), parent=draft.image, document=document)
        return (await self._shop.images.derive(request)).id

    def _predicate(
        self, wish: Wish, attesting: Attesting, origins: Origins, began: float
    ) -> dict[str, Any]:
        """How the image of a wish was made."""
        here = oci.parse_platform(wish.request.platform, os.uname().machine)
        platform = oci.platform_text(here)
        materials = [
            Material(name, digest_of(image), wanted or platform)
            for (name, wanted), image in sorted(origins.materials.items())
            if not name.startswith("sha256:")
        ]
        ref = self._request.ref
        return predicate(attesting, wish.options, ref, platform, (began, time.time()), materials)

    async def _named(self, wish: Wish, session: Session) -> dict[str, str]:
        """Further contexts by their names; images that the client has are got."""
        found = {name: source for name, _, source in wish.named}
        for name, source in found.items():
            if source.startswith(_LAYOUT):
                with self.graph.step_of_ours(f"[context {name}] OCI load from client"):
                    image = await self._stored(source.removeprefix(_LAYOUT), session, wish)
                found[name] = f"docker-image://{image}"
        return found

    async def _stored(self, source: str, session: Session, wish: Wish) -> str:
        """An image of a layout of the client's: `STORE@DIGEST`, perhaps with a tag."""
        name, _, digest = source.partition("@")
        stored = StoredImages(self._shop, session.store(f"oci:{name.partition(':')[0]}"))
        return await stored.have(await stored.one(digest, wish.request.platform))

    async def _import(
        self, wanted: CacheFrom, origins: Origins, cache: Cache, session: Session
    ) -> None:
        """A cache that can't be had is none; the build goes on."""
        self.graph.begin(f"importing cache manifest from {wanted.title}")
        try:
            for offer in await self._offers(wanted, origins, session):
                cache.offer(offer)
            self.graph.complete()
        except SagongError as error:
            self.graph.complete(error.message)

    async def _offers(
        self, wanted: CacheFrom, origins: Origins, session: Session
    ) -> Sequence[Offer]:
        given = wanted.attributes
        if wanted.kind == "registry" and "ref" in given:
            return await origins.offered(given["ref"])
        if wanted.kind == "local" and "digest" in given:
            store = session.store(f"local:{given.get('src', '')}")
            stored = StoredImages(self._shop, store)
            return [stored.offer(image) for image in await stored.all(given["digest"])]
        raise InvalidArgument(f"unknown cache importer: {wanted.kind[:50]}: use registry or local")


def _before(raw: bytes, name: str, error: SagongError) -> Dockerfile | None:
    """What stands before the line that can't be read, if that can."""
    line = natural(error.detail.get("lines", "").partition("-")[0])
    with contextlib.suppress(SagongError):
        return parse(b"\n".join(raw.split(b"\n")[: (line or 1) - 1]), name)
    return None
