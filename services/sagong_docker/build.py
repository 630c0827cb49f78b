"""`POST /build`, the classic builder's edge: its parameters, and its words for what happens.

The work is the contract `builder`'s; here the context is passed on and progress becomes JSON lines.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import codecs
import contextlib
import time
from typing import Any

import msgspec

from sagong.building import follow
from sagong.contracts.builder import (
    Builder,
    BuildProgress,
    BuildRef,
    BuildRequest,
    Happening,
    Pruned,
    PruneRequest,
    Surroundings,
)
from sagong.contracts.image import Credentials
from sagong.contracts.network import JoinRequest
from sagong.contracts.streams import Address
from sagong.errors import Aborted, InvalidArgument, NotFound, SagongError, Unavailable
from sagong.http import Response
from sagong_docker import wiring
from sagong_docker.ask import Ask, convert
from sagong_docker.body import CreateBody, HostConfig
from sagong_docker.creation import cgroup_mode
from sagong_docker.credentials import of_document
from sagong_docker.engine import OWNER, Engine
from sagong_docker.image_view import progress
from sagong_docker.machine import this_machine
from sagong_docker.moment import moment_text, parse_until
from sagong_docker.naming import new_id
from sagong_docker.refusal import answer, empty
from sagong_docker.resources import limits, rlimits
from sagong_docker.transport import Lines, send_up

__all__ = ["build", "cancel", "prune", "records"]

_SHORT = 12
# A builder may have a socket for each kind of stream: then once is as good as often.
_REPLACED = 3
_RED, _PLAIN = "\x1b[91m", "\x1b[0m"
# Query parameter: field of a container's HostConfig.
_NUMBERS = {
    "memory": "Memory",
    "memswap": "MemorySwap",
    "cpushares": "CpuShares",
    "cpuperiod": "CpuPeriod",
    "cpuquota": "CpuQuota",
    "shmsize": "ShmSize",
}
_TEXTS = {
    "cpusetcpus": "CpusetCpus",
    "cpusetmems": "CpusetMems",
    "cgroupparent": "CgroupParent",
}


async def build(engine: Engine, ask: Ask) -> None:
    """`docker build` without BuildKit, and `docker build` of SDKs."""
    request = await _request(engine, ask)
    out = _Out(Lines(ask.request), quiet=ask.flag("q"))
    sending: asyncio.Future[None] | None = None
    try:
        up, told = await begun(engine.builder, request)
        if up is not None:
            sending = asyncio.ensure_future(send_up(up, ask.request))
        async with contextlib.aclosing(follow(told)) as items:
            made = False
            async for item in items:
                await out.show(item)
                made = made or item.kind is Happening.RUNNING
                if made and item.kind is Happening.IMAGE:
                    engine.history.note("image", "create", item.image, {"name": item.image})
                    made = False
        await out.end()
    except Unavailable as error:
        await out.fail(_lost(error) if error.maybe_executed else error)
    except SagongError as error:
        await out.fail(error)
    finally:
        if sending is not None:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def begun(builder: Builder, request: BuildRequest) -> tuple[Address | None, Address]:
    """Where the context is sent to, unless it is a remote one, and where the build is told.

    Between the two calls the builder may be replaced by another, which does not have the first one's
    upload: then both are made anew, as long as nothing was sent.
    """
    if request.remote:
        return None, await builder.build(request)
    for _ in range(_REPLACED):
        up = await builder.upload()
        told = await builder.build(msgspec.structs.replace(request, context=up.token))
        if told.path == up.path:
            break
    return up, told


def _lost(error: Unavailable) -> Unavailable:
    return Unavailable(
        "the builder ended before the build did; build again, the steps that were done are cached "
        f"({error.message})"
    )


async def cancel(engine: Engine, ask: Ask) -> Response:
    """End a build that named itself by `buildid`."""
    if not ask.text("id"):
        raise InvalidArgument("build ID not provided")
    await engine.builder.cancel(BuildRef(id=ask.text("id")))
    return empty(204)


_PRUNE_FILTERS = (
    "until", "unused-for", "id", "inuse", "parent", "type", "shared", "private", "label", "label!",
)  # fmt: skip


async def prune(engine: Engine, ask: Ask) -> Response:
    """`docker builder prune`."""
    filters = ask.filters()
    filters.check(_PRUNE_FILTERS)
    if filters["label"] or filters["label!"]:
        # `docker system prune` passes its own on; no cache has a label.
        return answer({"CachesDeleted": None, "SpaceReclaimed": 0})
    unused = [_seconds(text) for name in ("until", "unused-for") for text in filters[name]]
    keep = max(ask.number("keep-storage"), ask.number("reserved-space"), 0)
    request = PruneRequest(unused_for=max(unused, default=0.0), keep=keep, ids=tuple(filters["id"]))
    try:
        done = await engine.builder.prune(request)
    except (NotFound, Unavailable):
        done = Pruned()  # no builder, no cache
    engine.note_prune("builder", done.reclaimed)
    return answer({"CachesDeleted": list(done.deleted) or None, "SpaceReclaimed": done.reclaimed})


def _seconds(text: str) -> float:
    now = time.time()
    return now - parse_until(text, now)


async def records(engine: Engine) -> list[dict[str, Any]]:
    """The build cache as `docker system df` shows it."""
    try:
        found = (await engine.builder.usage()).records
    except (NotFound, Unavailable):
        return []
    return [
        {
            "ID": record.id,
            "Type": record.kind,
            "Description": record.description,
            "InUse": record.in_use,
            "Shared": False,
            "Size": record.size,
            "CreatedAt": moment_text(record.created_at),
            "LastUsedAt": moment_text(record.used_at) if record.used_at else None,
            "UsageCount": record.uses,
        }
        for record in found
    ]


# The request.

# Contexts that a client sends by its session.
_OF_SESSIONS = ("client-session", "upload-request")


async def _request(engine: Engine, ask: Ask) -> BuildRequest:
    # BuildKit (version=2) is asked for with the context as the body, too: by dockerode, and by
    # testcontainers. What a session would be asked for here is credentials alone.
    if ask.text("remote") in _OF_SESSIONS:
        raise InvalidArgument(
            "this engine's classic builder takes no sessions: unset DOCKER_BUILDKIT, or use buildx"
        )
    if ask.text("isolation") not in ("", "default"):
        raise InvalidArgument(f'unsupported isolation: "{ask.text("isolation")}"')
    if ask.request.query.all("securityopt"):
        raise InvalidArgument("security options are not supported on linux")
    remote = ask.text("remote")
    return BuildRequest(
        id=ask.text("buildid") or new_id(),
        remote=remote,
        dockerfile=ask.text("dockerfile") or "Dockerfile",
        tags=tuple(tag for tag in ask.request.query.all("t") if tag),
        arguments=tuple(_json(ask, "buildargs", dict[str, str | None] | None, {}).items()),
        labels=tuple(_json(ask, "labels", dict[str, str] | None, {}).items()),
        target=ask.text("target"),
        platform=ask.text("platform"),
        cache=not ask.flag("nocache"),
        cache_from=tuple(_json(ask, "cachefrom", list[str] | None, [])),
        pull=ask.flag("pull"),
        squash=ask.flag("squash"),
        remove=ask.flag("rm", default=True),
        force_remove=ask.flag("forcerm"),
        credentials=_credentials(ask.request.header("x-registry-config")),
        surroundings=await _surroundings(engine, ask),
    )


def _json(ask: Ask, name: str, kind: Any, default: Any) -> Any:
    text = ask.text(name)
    if not text:
        return default
    try:
        return msgspec.json.decode(text, type=kind) or default
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidArgument(f"error reading {name}: {error}") from None


def _credentials(header: str) -> tuple[Credentials, ...]:
    """X-Registry-Config: credentials by registry, base64 of JSON; none if it can't be read, as in
    Docker."""
    if not header:
        return ()
    padded = header.strip() + "=" * (-len(header.strip()) % 4)
    try:
        raw = base64.b64decode(padded, altchars=b"-_")
        found = msgspec.json.decode(raw, type=dict[str, dict[str, Any]] | None)
    except (binascii.Error, ValueError, msgspec.DecodeError, RecursionError):
        return ()
    return tuple(
        of_document({**document, "serveraddress": document.get("serveraddress") or server})
        for server, document in (found or {}).items()
    )


async def _surroundings(engine: Engine, ask: Ask) -> Surroundings:
    document: dict[str, Any] = {key: ask.number(name) for name, key in _NUMBERS.items()}
    document |= {key: ask.text(name) for name, key in _TEXTS.items()}
    document["Ulimits"] = _json(ask, "ulimits", list[dict[str, Any]] | None, [])
    hosts = [text.split(",") for text in ask.request.query.all("extrahosts")]
    document["ExtraHosts"] = [line for lines in hosts for line in lines if line]
    document["NetworkMode"] = ask.text("networkmode") or "default"
    host = convert(document, HostConfig)
    network, shared = await _network(engine, host)
    return Surroundings(
        owner=f"{OWNER}/build",
        network=network,
        share_with=shared,
        hosts=wiring.hosts(host, (), await _gateways(engine)),
        limits=limits(host, this_machine()),
        rlimits=rlimits(host),
        shm_size=host.shm_size,
        cgroup_parent=host.cgroup_parent,
        cgroup_mode=cgroup_mode(host, engine.settings, this_machine()),
    )


async def _network(engine: Engine, host: HostConfig) -> tuple[JoinRequest, str]:
    """Networks of RUN's containers, or the container whose network they share."""
    mode = wiring.joining_mode(host, engine.settings.default_network)
    if mode.startswith("container:"):
        record = await engine.container(mode.partition(":")[2])
        return wiring.join("", "", "none"), record.id
    if mode in ("none", "host"):
        return wiring.join("", "", mode), ""
    network = await engine.find_network(mode)
    places = wiring.attachments(CreateBody(), host, "", lambda _: network.id)
    places = tuple(msgspec.structs.replace(place, aliases=()) for place in places)
    return wiring.join("", "", mode, places=places), ""


async def _gateways(engine: Engine) -> tuple[str, ...]:
    """What `--add-host x:host-gateway` means."""
    name = engine.settings.default_network
    for network in await engine.networks():
        if network.name == name:
            return tuple(subnet.gateway for subnet in network.subnets if subnet.gateway)
    return ()


# The answer.


class _Out:
    """Writes progress in Docker's words; with `quiet` only the image, or all when it fails."""

    def __init__(self, lines: Lines, *, quiet: bool) -> None:
        self._lines = lines
        self._quiet = quiet
        self._held: list[str] = []
        self._image = ""
        self._stage = ""
        self._decoders = {
            e: codecs.getincrementaldecoder("utf-8")("replace") for e in (True, False)
        }

    async def show(self, item: BuildProgress) -> None:
        """One item."""
        if item.kind is Happening.PULL:
            if item.transfer is not None and not item.transfer.image and not self._quiet:
                await self._lines.write(progress(item.transfer))
            return
        if item.kind is Happening.STEP and item.text[:5].upper() == "FROM " and self._stage:
            # Another stage begins: what the one before has made is told to programs.
            await self._lines.write({"aux": {"ID": self._stage}})
        for text in self._texts(item):
            await self._say(text)
        if item.kind is Happening.IMAGE:
            self._stage = item.image
        if item.kind is Happening.BUILT:
            self._image = item.image
            await self._lines.write({"aux": {"ID": item.image}})
            await self._say(f"Successfully built {_short(item.image)}\n")

    async def _say(self, text: str) -> None:
        if self._quiet:
            self._held.append(text)
        elif text:
            await self._lines.write({"stream": text})

    def _texts(self, item: BuildProgress) -> tuple[str, ...]:
        match item.kind:
            case Happening.STEP:
                return (f"Step {item.number}/{item.total} : {item.text}", "\n")
            case Happening.NOTE:
                return (item.text, "\n")
            case Happening.WARNING:
                shown = item.text if item.text.startswith("[Warning]") else _red(item.text)
                return (shown,)
            case Happening.CACHED:
                return (" ---> Using cache\n",)
            case Happening.RUNNING:
                return (f" ---> Running in {item.container[:_SHORT]}\n",)
            case Happening.REMOVED:
                return (f" ---> Removed intermediate container {item.container[:_SHORT]}\n",)
            case Happening.IMAGE:
                return (f" ---> {_short(item.image)}\n",)
            case Happening.TAGGED:
                return (f"Successfully tagged {item.text}\n",)
            case Happening.OUTPUT:
                text = self._decoders[item.stderr].decode(item.data)
                return (_red(text) if item.stderr and text else text,)
        return ()

    async def end(self) -> None:
        """The build is done."""
        if self._quiet:
            await self._lines.write({"stream": f"{self._image}\n"})

    async def fail(self, error: SagongError) -> None:
        """It is not: as an answer of its own when nothing was told yet."""
        for text in self._held:
            await self._lines.write({"stream": text})
        code = error.detail.get("code", "")
        if isinstance(error, Aborted) and code.isdigit():
            detail = {"code": int(code), "message": error.message}
            await self._lines.write({"errorDetail": detail, "error": error.message})
            return
        await self._lines.fail(error)


def _red(text: str) -> str:
    return f"{_RED}{text}{_PLAIN}"


def _short(image: str) -> str:
    return image.removeprefix("sha256:")[:_SHORT]
