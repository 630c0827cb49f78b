"""Copies of other registries: what is not here is fetched once, kept, and served as if it were ours.

A tag is looked up at its upstream again after a while; when that can't be reached, or does not answer
soon, what is here is given, and the upstream goes on being asked behind it. A blob is fetched into the
content store by one task: who was there from the first byte gets it as it comes, who asks meanwhile
waits for that task. A fetch that breaks off goes on where it was, also after a restart.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from sagong.call import detached
from sagong.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SagongError,
    Unauthenticated,
    Unavailable,
)
from sagong_registry.depot import Depot, Push
from sagong_registry.documents import read
from sagong_registry.refusal import refused
from sagong_registry.relay import Coming, Relay
from sagong_registry.settings import Upstream
from sagong_registry.upstream import Client, Fetched

__all__ = ["Mirror", "Mirrors"]

# How long an upstream that did not answer is not asked for what is here.
_REST_SECONDS = 10.0
# How long who asks for what is here waits for an upstream that is well, and for one that is not.
_PATIENCE, _SHORT_PATIENCE = 2.0, 0.2
_TRIES = 5


@dataclass
class Mirror:
    """An upstream, and what is known of its tags: when each was last looked up.

    It `ails` from a question that it did not answer, or not soon, to the next one that it answers.
    """

    settings: Upstream
    client: Client
    looked: dict[tuple[str, str], float] = field(default_factory=dict)
    rests: float = 0.0
    ails: bool = False

    def remote(self, name: str) -> str:
        """The repository's name there; "" if it is none of there."""
        prefix = self.settings.prefix.strip("/")
        if not prefix:
            return name
        return name.removeprefix(f"{prefix}/") if name.startswith(f"{prefix}/") else ""

    def is_fresh(self, name: str, tag: str) -> bool:
        """Whether the tag need not be looked up now."""
        looked = self.looked.get((name, tag), float("-inf"))
        return time.monotonic() - looked < self.settings.tag_seconds


class Mirrors:
    """All upstreams."""

    def __init__(self, depot: Depot, upstreams: tuple[Upstream, ...], log: logging.Logger) -> None:
        self._depot = depot
        self._log = log
        longest_first = sorted(upstreams, key=lambda one: -len(one.prefix.strip("/")))
        self._mirrors = [Mirror(one, Client(one, log)) for one in longest_first]
        self._flights: dict[str, asyncio.Task[str]] = {}
        self._relays: dict[str, Relay] = {}

    async def close(self) -> None:
        """End what is being fetched."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        for mirror in self._mirrors:
            await mirror.client.close()

    def of(self, name: str) -> Mirror | None:
        """The upstream that a repository is a copy of."""
        return next((mirror for mirror in self._mirrors if mirror.remote(name)), None)

    async def manifest(self, name: str, reference: str) -> str:
        """See that a manifest is here, and a tag as it is upstream; a warning, if it may be old."""
        mirror = self.of(name)
        if mirror is None:
            return ""
        if ":" in reference:
            if await self._depot.catalog.find_manifest(name, reference) is not None:
                return ""
            return await self._once(
                f"{name}@{reference}", lambda: self._fetch(mirror, name, reference)
            )
        if mirror.is_fresh(name, reference):
            return ""
        return await self._tag(mirror, name, reference)

    async def blob(self, name: str, digest: str, *, whole: bool) -> Coming | None:
        """See that a blob is here; or give it as it comes, to who wants all and is there in time."""
        mirror = self.of(name)
        if mirror is None or await self._depot.catalog.find_blob(name, digest) is not None:
            return None
        what = f"{name}#{digest}"
        relay = self._relays.setdefault(what, Relay())
        tap = relay.tap() if whole else None
        flight = self._flight(what, lambda: self._bring(mirror, name, digest, relay))
        size = -1 if tap is None else await asyncio.shield(relay.size)
        if tap is not None and size >= 0:
            return Coming(size, tap)
        await asyncio.shield(flight)
        return None

    async def size(self, name: str, digest: str) -> int:
        """The size of a blob that is not here but there; -1 of one that is here, or nowhere."""
        mirror = self.of(name)
        if mirror is None or await self._depot.catalog.find_blob(name, digest) is not None:
            return -1
        try:
            return await mirror.client.size(mirror.remote(name), digest)
        except NotFound:
            return -1
        except (Unavailable, Unauthenticated) as error:
            raise self._unreached(error, "BLOB_UNKNOWN") from None

    async def _once(self, what: str, work: Callable[[], Awaitable[str]]) -> str:
        """Do it once for all who want it at the same time; it goes on when they leave."""
        return await asyncio.shield(self._flight(what, work))

    def _flight(self, what: str, work: Callable[[], Awaitable[str]]) -> asyncio.Task[str]:
        flight = self._flights.get(what)
        if flight is None:

            async def fly() -> str:
                with detached():
                    return await work()

            flight = self._flights[what] = asyncio.get_running_loop().create_task(fly())
            flight.add_done_callback(lambda done: self._landed(what, done))
        return flight

    def _landed(self, what: str, flight: asyncio.Task[str]) -> None:
        del self._flights[what]
        self._relays.pop(what, None)
        # Who asked has been told, or has left.
        if not flight.cancelled():
            flight.exception()

    # -- tags and manifests -----------------------------------------------------------------

    async def _tag(self, mirror: Mirror, name: str, tag: str) -> str:
        """See that a tag is as it is upstream; who has it already does not wait long to hear so."""
        here = await self._depot.catalog.find_tag(name, tag) is not None
        if here and time.monotonic() < mirror.rests:
            return f"{mirror.settings.url} did not answer lately; this may be old"
        look = self._flight(f"{name}:{tag}", lambda: self._look(mirror, name, tag))
        if here:
            await asyncio.wait((look,), timeout=_SHORT_PATIENCE if mirror.ails else _PATIENCE)
            if not look.done():
                mirror.ails = True
                return f"{mirror.settings.url} does not answer soon; this may be old"
        return await asyncio.shield(look)

    async def _look(self, mirror: Mirror, name: str, tag: str) -> str:
        """Look a tag up."""
        known = await self._depot.catalog.find_tag(name, tag)
        try:
            await self._renew(mirror, name, tag, known.digest if known else "")
        except NotFound:
            if known is not None:
                await self._depot.remove_tag(name, tag)
            raise await self._depot.manifest_unknown(name, tag) from None
        except (Unavailable, Unauthenticated) as error:
            mirror.rests, mirror.ails = time.monotonic() + _REST_SECONDS, True
            self._log.warning("upstream", extra={"error": error.message})
            if known is None:
                raise self._unreached(error, "MANIFEST_UNKNOWN") from None
            return f"{mirror.settings.url} can't be asked now; this may be old"
        mirror.looked[name, tag], mirror.ails = time.monotonic(), False
        return ""

    def _unreached(self, error: SagongError, unknown: str) -> Exception:
        if isinstance(error, Unauthenticated):
            return refused(unknown, error.message)
        # Without Retry-After: nobody knows when, and clients would wait for nothing.
        return refused("UNAVAILABLE", error.message)

    async def _renew(self, mirror: Mirror, name: str, tag: str, known: str) -> None:
        remote = mirror.remote(name)
        digest = await mirror.client.digest(remote, tag)
        if digest and digest == known:
            return
        found = await mirror.client.manifest(remote, digest or tag)
        if found.digest != known:
            await self._keep(name, found, (tag,))

    async def _fetch(self, mirror: Mirror, name: str, digest: str) -> str:
        """Fetch a manifest by its digest."""
        try:
            found = await mirror.client.manifest(mirror.remote(name), digest)
        except NotFound:
            raise await self._depot.manifest_unknown(name, digest) from None
        except (Unavailable, Unauthenticated) as error:
            raise self._unreached(error, "MANIFEST_UNKNOWN") from None
        await self._keep(name, found, ())
        return ""

    async def _keep(self, name: str, found: Fetched, tags: tuple[str, ...]) -> None:
        facts = read(found.raw, found.media_type)
        push = Push(name, found.digest, found.raw, facts, tags, complete=False)
        await self._depot.push(push)

    # -- blobs ------------------------------------------------------------------------------

    async def _bring(self, mirror: Mirror, name: str, digest: str, relay: Relay) -> str:
        """Bring a blob; one that lies here already is only held, once the upstream says it has it."""
        good = False
        try:
            size = await mirror.client.size(mirror.remote(name), digest)
            if not await self._depot.mount(name, digest):
                await self._download(mirror, name, digest, size, relay)
                good = True
        except (NotFound, InvalidArgument) as error:
            raise refused("BLOB_UNKNOWN", error.message) from None
        except (Unavailable, Unauthenticated) as error:
            raise self._unreached(error, "BLOB_UNKNOWN") from None
        finally:
            await relay.end(good=good)
        return ""

    async def _download(
        self, mirror: Mirror, name: str, digest: str, size: int, relay: Relay
    ) -> None:
        write, remote = f"copy-{digest.partition(':')[2][:56]}", mirror.remote(name)
        for attempt in range(_TRIES):
            try:
                offset = await self._depot.vault.offset(write)
                relay.begin(-1 if offset else size)
                async with mirror.client.blob(remote, digest, offset) as (start, chunks):
                    await self._append(write, offset, start, relay.passing(start, chunks))
                await self._depot.finish(write, name, digest)
                return
            except InvalidArgument:
                await self._depot.vault.abandon(write)
                raise
            except (Unavailable, FailedPrecondition) as error:
                if attempt == _TRIES - 1:
                    raise Unavailable(error.message) from None
                self._log.info("fetching goes on", extra={"blob": digest, "error": error.message})
                await asyncio.sleep(0.2 * 2**attempt)

    async def _append(
        self, write: str, offset: int, start: int, chunks: AsyncIterator[bytes]
    ) -> None:
        """What is still missing; all of it if the upstream begins anew."""
        if start != offset:
            await self._depot.vault.abandon(write)
            offset = await self._depot.vault.offset(write)
        await self._depot.vault.append(write, offset, chunks)
