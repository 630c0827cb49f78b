"""Containers: list, inspect, create, remove, rename, update, top, changes, prune."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterable
from typing import Any

import msgspec

from sagong.contracts.image import ImageRef, RootRef
from sagong.contracts.node import (
    ContainerSpec,
    ContainerStatus,
    Ref,
    RemoveRequest,
    SandboxSpec,
    StatusState,
    UpdateSpec,
)
from sagong.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SagongError,
)
from sagong.http import Response
from sagong_docker.ask import Ask, convert
from sagong_docker.body import CreateBody, HostConfig
from sagong_docker.container_view import inspect_view, list_view
from sagong_docker.creation import Lookup, restart_policy, translate
from sagong_docker.engine import Engine
from sagong_docker.filters import Filters
from sagong_docker.moment import parse_until
from sagong_docker.naming import check_name, new_id, random_name
from sagong_docker.process_table import process_table
from sagong_docker.record import ContainerRecord
from sagong_docker.refusal import answer, empty
from sagong_docker.resources import limits
from sagong_docker.wiring import mode_of

__all__ = [
    "changes",
    "create",
    "inspect",
    "list_all",
    "prune",
    "remove",
    "rename",
    "sizes",
    "top",
    "update",
]

_LIST_FILTERS = (
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label",
    "label!", "name", "network", "publish", "since", "status", "volume",
)  # fmt: skip
_NAMES_TRIED = 4
_BODY_KEYS = ("HostConfig", "NetworkingConfig")


async def list_all(engine: Engine, ask: Ask) -> Response:
    """`docker ps`."""
    filters = ask.filters()
    filters.check(_LIST_FILTERS)
    statuses = await engine.statuses(foreign_too=bool(filters["label"]))
    limit = ask.number("limit")
    everything = (
        ask.flag("all") or limit > 0 or any(filters[n] for n in ("status", "exited", "health"))
    )
    pairs = [(engine.record_of(s), s) for s in statuses]
    pairs.sort(key=lambda pair: pair[0].created, reverse=True)
    names = await engine.network_names()
    ancestors = await _ancestors(engine, filters)
    found = [
        pair
        for pair in pairs
        if (everything or _running(pair[1])) and _matches(*pair, filters, names, ancestors)
    ]
    found = _around(engine, found, filters)
    if limit > 0:
        found = found[:limit]
    written = await sizes(engine) if ask.flag("size") else {}
    lines = [
        list_view(
            record,
            status,
            names,
            version=ask.version,
            size=written.get(record.id, 0) if ask.flag("size") else None,
        )
        for record, status in found
    ]
    return answer(lines)


def _running(status: ContainerStatus) -> bool:
    return status.state in (StatusState.RUNNING, StatusState.PAUSED, StatusState.RESTARTING)


async def sizes(engine: Engine) -> dict[str, int]:
    """Bytes of writable layers by container."""
    usage = await engine.images.usage()
    return dict(usage.containers)


async def _ancestors(engine: Engine, filters: Filters) -> frozenset[str]:
    """Ids of the images that the filter names; an unknown one matches nothing."""
    found = set()
    for name in filters["ancestor"]:
        with contextlib.suppress(SagongError):
            found.add((await engine.images.inspect(ImageRef(reference=name))).id)
    return frozenset(found)


def _matches(
    record: ContainerRecord,
    status: ContainerStatus,
    filters: Filters,
    names: dict[str, str],
    ancestors: frozenset[str],
) -> bool:
    labels = {**dict(status.image.config.labels if status.image else ()), **record.labels}
    health = status.health.status if status.health else "none"
    return (
        filters.prefix("id", record.id)
        and filters.pattern("name", (record.name, f"/{record.name}"))
        and filters.labels(labels)
        and filters.without_labels(labels)
        and filters.exact("status", str(status.state))
        and filters.exact("health", health)
        and (not filters["exited"] or _exited(status, filters))
        and filters.any_exact("network", _networks(record, status, names))
        and filters.any_exact("volume", _volumes(status))
        and filters.satisfied("publish", lambda wanted: _publishes(status, wanted))
        and filters.satisfied("expose", lambda wanted: _exposes(status, record, wanted))
        and filters.boolean("is-task") is not True
        and (not filters["ancestor"] or bool(status.image and status.image.id in ancestors))
    )


def _exited(status: ContainerStatus, filters: Filters) -> bool:
    return not _running(status) and status.started_at > 0 and str(status.code) in filters["exited"]


def _networks(record: ContainerRecord, status: ContainerStatus, names: dict[str, str]) -> set[str]:
    found = {mode_of(convert(record.host, HostConfig))}
    found |= set((record.networking or {}).get("EndpointsConfig") or {})
    for endpoint in status.network.endpoints if status.network else ():
        found |= {endpoint.network, names.get(endpoint.network, "")}
    return found


def _volumes(status: ContainerStatus) -> set[str]:
    found = {value for _, name, _, target, *_ in status.mounts for value in (name, target)}
    found |= {value for m in status.spec.mounts for value in (m.source, m.target)}
    return found - {""}


def _publishes(status: ContainerStatus, wanted: str) -> bool:
    number, _, protocol = wanted.partition("/")
    return any(
        str(m.host_port) == number and m.protocol == (protocol or "tcp")
        for m in (status.network.ports if status.network else ())
    )


def _exposes(status: ContainerStatus, record: ContainerRecord, wanted: str) -> bool:
    port = wanted if "/" in wanted else f"{wanted}/tcp"
    exposed = set(record.config.get("ExposedPorts") or {})
    return port in exposed or bool(status.image and port in status.image.config.exposed_ports)


def _around(
    engine: Engine, found: list[tuple[ContainerRecord, ContainerStatus]], filters: Filters
) -> list[tuple[ContainerRecord, ContainerStatus]]:
    """The `before` and `since` filters: older or newer than a named container."""
    for name, newer in (("before", False), ("since", True)):
        for reference in filters[name]:
            pivot = engine.catalog.find(reference)
            if pivot is None:
                raise NotFound(f"No such container: {reference}")
            at = pivot.created
            found = [p for p in found if (p[0].created > at if newer else p[0].created < at)]
    return found


async def inspect(engine: Engine, ask: Ask) -> Response:
    """`docker inspect`."""
    record = await engine.container(ask["id"])
    status, names = await asyncio.gather(engine.status(record), engine.network_names())
    size = (await sizes(engine)).get(record.id, 0) if ask.flag("size") else None
    return answer(inspect_view(record, status, names, version=ask.version, size=size))


async def create(engine: Engine, ask: Ask) -> Response:
    """`docker create`: the catalog and the node are written side by side."""
    document = await ask.document()
    body = convert(document, CreateBody)
    given = ask.text("name")
    if given:
        return await _create(engine, ask, document, body, check_name(given))
    for _ in range(_NAMES_TRIED):
        # Another generation of this service may choose the same name at the same time.
        with contextlib.suppress(AlreadyExists):
            name = random_name(engine.catalog.names)
            return await _create(engine, ask, document, body, name)
    return await _create(engine, ask, document, body, new_id()[:32])


async def _create(
    engine: Engine, ask: Ask, document: dict[str, Any], body: CreateBody, name: str
) -> Response:
    host = body.host_config or HostConfig()
    id_ = new_id()
    lookup = await _lookup(engine, body, host)
    wish = translate(id_, name, body, engine.settings, lookup)
    spec = msgspec.structs.replace(wish.container, platform=ask.text("platform"))
    record = ContainerRecord(
        id=id_,
        name=name,
        created=time.time_ns(),
        config={k: v for k, v in document.items() if k not in _BODY_KEYS},
        host=document.get("HostConfig") or {},
        networking=document.get("NetworkingConfig") or {},
    )
    await _name_free(engine, name)
    await _make(engine, record, spec, wish.sandbox)
    engine.fresh.add(id_)
    return answer({"Id": id_, "Warnings": []}, 201)


async def _name_free(engine: Engine, name: str) -> None:
    """A name whose container is gone already is given up before it is asked for."""
    owner = engine.catalog.names.get(name)
    if owner is None:
        return
    try:
        await engine.node.inspect(Ref(id=owner))
    except NotFound:
        engine.forget(owner)


async def _make(
    engine: Engine, record: ContainerRecord, spec: ContainerSpec, sandbox: SandboxSpec
) -> None:
    results = await asyncio.gather(
        engine.catalog.add_container(record),
        _make_on_node(engine, spec, sandbox),
        return_exceptions=True,
    )
    failures = [r for r in results if isinstance(r, BaseException)]
    if not failures:
        return
    if results[1] is None:
        await engine.node.remove(RemoveRequest(id=record.id, force=True, volumes=True))
    with contextlib.suppress(SagongError):
        await engine.node.remove_sandbox(Ref(id=record.id))
    if results[0] is None:
        engine.forget(record.id)
    conflict = next((f for f in failures if isinstance(f, AlreadyExists)), None)
    raise conflict or failures[0]


async def _make_on_node(engine: Engine, spec: ContainerSpec, sandbox: SandboxSpec) -> None:
    """A sandbox is durable with its first container: a node that died between them is asked again."""
    for attempt in range(3):
        await engine.node.create_sandbox(sandbox)
        try:
            await engine.node.create(spec)
            return
        except NotFound as error:
            if attempt == 2 or not error.message.startswith("No such sandbox"):
                raise


async def _lookup(engine: Engine, body: CreateBody, host: HostConfig) -> Lookup:
    """Resolve what the body names; most bodies need the networks alone."""
    networks = await engine.networks()
    published: set[tuple[int, str]] = set()
    if any("-" in str(b.host_port) for bs in (host.port_bindings or {}).values() for b in bs or ()):
        published = _published(await engine.statuses())
    exposed: list[str] = list(body.exposed_ports or {})
    if host.publish_all_ports:
        image = await engine.images.inspect(ImageRef(reference=body.image))
        exposed += [p for p in image.config.exposed_ports if p not in exposed]
    bridge = next((n for n in networks if n.name == engine.settings.default_network), None)
    by_name = {n.name: n.id for n in networks} | {n.id: n.id for n in networks}
    if bridge is not None:
        by_name["bridge"] = bridge.id
    for reference in _network_references(body, host):
        if reference not in by_name:
            matches = [n.id for n in networks if n.id.startswith(reference)]
            if len(matches) == 1:
                by_name[reference] = matches[0]
    return Lookup(
        networks=by_name,
        containers=await _containers(engine, host),
        lenders=await _lenders(engine, host),
        links=await _links(engine, host) if _on_default(host, by_name) else (),
        exposed=tuple(exposed),
        published=frozenset(published),
        runtimes=(await engine.node.runtimes()).names if host.runtime else (),
        gateway=bridge.subnets[0].gateway if bridge and bridge.subnets else "",
        machine=os.uname().nodename,
    )


def _network_references(body: CreateBody, host: HostConfig) -> Iterable[str]:
    yield mode_of(host)
    if body.networking_config:
        yield from body.networking_config.endpoints_config or {}


def _published(statuses: Iterable[ContainerStatus]) -> set[tuple[int, str]]:
    return {
        (port.host_port, port.protocol)
        for status in statuses
        if status.network is not None
        for port in status.network.ports
    }


async def _containers(engine: Engine, host: HostConfig) -> dict[str, str]:
    """Ids of containers named by `container:NAME` modes."""
    found = {}
    for mode in (host.network_mode, host.pid_mode, host.ipc_mode):
        kind, colon, name = mode.partition(":")
        if kind == "container" and colon:
            found[name] = (await _existing(engine, name)).id
    return found


async def _existing(engine: Engine, name: str) -> ContainerRecord:
    """A container that another names; a missing one is not the 404 that makes clients pull."""
    try:
        return await engine.container(name)
    except NotFound as error:
        raise InvalidArgument(error.message) from None


async def _lenders(engine: Engine, host: HostConfig) -> tuple[tuple[ContainerStatus, str], ...]:
    found = []
    for text in host.volumes_from or ():
        name, _, mode = text.partition(":")
        record = await _existing(engine, name)
        found.append((await engine.status(record), mode))
    return tuple(found)


def _on_default(host: HostConfig, networks: dict[str, str]) -> bool:
    """The default network has no names of its own; elsewhere links are names that it resolves."""
    mode = mode_of(host)
    return networks.get(mode, mode) == networks.get("bridge")


async def _links(engine: Engine, host: HostConfig) -> tuple[tuple[str, str], ...]:
    """--link NAME:ALIAS on the default network as lines of /etc/hosts."""
    found = []
    for text in host.links or ():
        name, _, alias = text.partition(":")
        record = await _existing(engine, name)
        status = await engine.status(record)
        endpoints = status.network.endpoints if status.network else ()
        if not endpoints:
            raise InvalidArgument(f"Cannot link to a non running container: /{record.name}")
        found.append((endpoints[0].ipv4 or endpoints[0].ipv6, alias or record.name))
    return tuple(found)


async def remove(engine: Engine, ask: Ask) -> Response:
    """`docker rm`."""
    record = await engine.container(ask["id"])
    if ask.flag("link"):
        raise InvalidArgument("links between containers can't be removed; remove the container")
    request = RemoveRequest(id=record.id, force=ask.flag("force"), volumes=ask.flag("v"))
    try:
        await engine.node.remove(request)
    except FailedPrecondition as error:
        raise Conflict(
            f'cannot remove container "/{record.name}": {_short(error.message)}'
        ) from None
    except NotFound:
        engine.forget(record.id)
        raise NotFound(f"No such container: {ask['id']}") from None
    await _after_removal(engine, record)
    return empty()


def _short(message: str) -> str:
    lowered = message.lower()
    if "paused" in lowered:
        return "container is paused and must be unpaused first"
    if "running" in lowered or "runs" in lowered:
        return "container is running: stop the container before removing or force remove"
    return message


async def _after_removal(engine: Engine, record: ContainerRecord) -> None:
    with contextlib.suppress(SagongError):
        await engine.node.remove_sandbox(Ref(id=record.id))
    engine.forget(record.id)


async def rename(engine: Engine, ask: Ask) -> Response:
    """`docker rename`."""
    record = await engine.container(ask["id"])
    wanted = ask.text("name")
    if not wanted:
        raise InvalidArgument("Neither old nor new names may be empty")
    name = check_name(wanted)
    if name == record.name:
        raise InvalidArgument("Renaming a container with the same name as its current name")
    engine.renamed[record.id] = record.name
    await _name_free(engine, name)
    await engine.catalog.rename_container(record, name)
    try:
        await engine.node.update(UpdateSpec(id=record.id, name=name))
    except SagongError:
        await engine.catalog.rename_container(
            msgspec.structs.replace(record, name=name), record.name
        )
        raise
    return empty()


async def update(engine: Engine, ask: Ask) -> Response:
    """`docker update`: limits and restart policy."""
    record = await engine.container(ask["id"])
    document = await ask.document()
    given = convert(document, HostConfig)
    wanted = limits(_completed(record, given))
    policy = restart_policy(given) if given.restart_policy else None
    if policy and record.host.get("AutoRemove") and policy.name != "no":
        raise Conflict("Restart policy cannot be updated because AutoRemove is enabled")
    await engine.node.update(UpdateSpec(id=record.id, limits=wanted, restart=policy))
    changed = {k: v for k, v in document.items() if v not in (None, 0, "", [], {})}
    await engine.catalog.change_container(
        msgspec.structs.replace(record, host={**record.host, **changed})
    )
    return answer({"Warnings": []})


def _completed(record: ContainerRecord, given: HostConfig) -> HostConfig:
    """The asked change over what holds now, so that their relation can be checked."""
    now = convert(record.host, HostConfig)
    names = (
        "memory", "memory_swap", "memory_reservation", "cpu_shares", "cpu_quota", "cpu_period",
        "cpuset_cpus", "cpuset_mems", "nano_cpus", "pids_limit", "blkio_weight",
    )  # fmt: skip
    changes = {name: getattr(given, name) for name in names if getattr(given, name)}
    if changes.get("nano_cpus"):
        changes |= {"cpu_quota": 0, "cpu_period": 0}
    elif changes.get("cpu_quota") or changes.get("cpu_period"):
        changes["nano_cpus"] = 0
    return msgspec.structs.replace(now, **changes)


async def top(engine: Engine, ask: Ask) -> Response:
    """`docker top`."""
    record = await engine.container(ask["id"])
    found = await engine.node.top(Ref(id=record.id))
    titles, rows = process_table(found.processes, ask.text("ps_args") or "-ef", time.time())
    engine.history.note("container", "top", record.id, {"name": record.name, "image": record.image})
    return answer({"Titles": titles, "Processes": rows})


async def changes(engine: Engine, ask: Ask) -> Response:
    """`docker diff`."""
    record = await engine.container(ask["id"])
    found = await engine.images.changes(RootRef(id=record.id))
    return answer([{"Path": c.path, "Kind": c.kind} for c in found.changes] or None)


async def prune(engine: Engine, ask: Ask) -> Response:
    """`docker container prune`: all that do not run."""
    filters = ask.filters()
    filters.check(("until", "label", "label!"))
    until = [parse_until(text, time.time()) for text in filters["until"]]
    written = await sizes(engine)
    removed, freed = [], 0
    for status in await engine.statuses():
        record = engine.record_of(status)
        if status.state not in (StatusState.CREATED, StatusState.EXITED, StatusState.DEAD):
            continue
        if not (filters.labels(record.labels) and filters.without_labels(record.labels)):
            continue
        if any(record.created / 1e9 > moment for moment in until):
            continue
        with contextlib.suppress(SagongError):
            await engine.node.remove(RemoveRequest(id=record.id))
            await _after_removal(engine, record)
            removed.append(record.id)
            freed += written.get(record.id, 0)
    return answer({"ContainersDeleted": removed or None, "SpaceReclaimed": freed})
