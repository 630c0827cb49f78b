"""Containers: list, inspect, create, remove, rename, update, top, changes, prune."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Iterator

import msgspec

from sagong.contracts.image import ImageQuery, ImageRef, RootRef
from sagong.contracts.node import (
    ContainerStatus,
    Ref,
    RemoveRequest,
    StatusState,
    UpdateSpec,
)
from sagong.contracts.runtime import Limits
from sagong.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SagongError,
)
from sagong.http import Response
from sagong_docker.ask import Ask, convert, fitted
from sagong_docker.birth import free_name
from sagong_docker.body import HostConfig
from sagong_docker.container_line import list_view
from sagong_docker.container_view import inspect_view
from sagong_docker.creation import restart_policy
from sagong_docker.engine import Engine
from sagong_docker.filters import Filters
from sagong_docker.linking import other_names, renamed, unlink
from sagong_docker.machine import Machine, this_machine
from sagong_docker.moment import parse_until
from sagong_docker.naming import check_name
from sagong_docker.network_view import port_list
from sagong_docker.process_table import process_table
from sagong_docker.record import ContainerRecord
from sagong_docker.refusal import answer, empty
from sagong_docker.resources import check_limits, limits, update_conflicts
from sagong_docker.validity import warnings
from sagong_docker.wiring import exposed, mode_of

__all__ = [
    "changes",
    "inspect",
    "list_all",
    "prune",
    "remove",
    "rename",
    "sizes",
    "top",
    "update",
]

_STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
_HEALTHS = ("none", "starting", "healthy", "unhealthy")
_LIST_FILTERS = (
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label",
    "label!", "name", "network", "publish", "since", "status", "volume",
)  # fmt: skip


async def list_all(engine: Engine, ask: Ask) -> Response:
    """`docker ps`."""
    filters = ask.filters()
    filters.check(_LIST_FILTERS)
    limit = ask.number("limit")
    filters.among("status", _STATES)
    for health in set(filters["health"]).difference(_HEALTHS):
        raise InvalidArgument(f"unrecognized filter value for health: {health}")
    filters.numbers("exited")
    everything = ask.flag("all") or limit > 0 or bool(filters["status"])
    statuses = await engine.statuses(foreign_too=bool(filters["label"]), begun=not everything)
    pairs = [(engine.record_of(s), s) for s in statuses]
    pairs.sort(key=lambda pair: pair[0].created, reverse=True)
    names = await engine.network_names()
    ancestors = await _ancestors(engine, filters)
    found = pairs
    if filters:
        found = [pair for pair in pairs if _matches(*pair, filters, names, ancestors)]
        found = _around(engine, found, filters)
    if limit > 0:
        found = found[:limit]
    written = await sizes(engine) if ask.flag("size") else {}
    sized = ask.flag("size")
    called = other_names(engine.catalog.containers.values())
    images = await engine.image_names()
    with _uncollected():
        lines = [
            list_view(
                record,
                status,
                names,
                version=ask.version,
                called=called.get(record.id, ()),
                images=images,
                size=written.get(record.id, 0) if sized else None,
            )
            for record, status in found
        ]
        return answer(lines)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Thousands of values that are gone at once are not looked through for cycles meanwhile."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _running(status: ContainerStatus) -> bool:
    return status.state in (StatusState.RUNNING, StatusState.PAUSED, StatusState.RESTARTING)


async def sizes(engine: Engine) -> dict[str, int]:
    """Bytes of writable layers by container."""
    usage = await engine.images.usage()
    return dict(usage.containers)


async def _ancestors(engine: Engine, filters: Filters) -> frozenset[str]:
    """Ids of the images that the filter names, and of those made of them; an unknown one matches
    nothing."""
    found: set[str] = set()
    for name in filters["ancestor"]:
        with contextlib.suppress(SagongError):
            found.add((await engine.images.inspect(ImageRef(reference=name))).id)
    known = (await engine.images.list(ImageQuery(all=True, brief=True))).images if found else ()
    # Those that were made of them, step by step.
    while more := {i.id for i in known if i.parent in found} - found:
        found |= more
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
        and _on_network(filters, _networks(record, status, names), names)
        and filters.any_exact("volume", _volumes(status))
        and filters.satisfied("publish", lambda wanted: _publishes(status, wanted))
        and filters.satisfied("expose", lambda wanted: _exposes(status, record, wanted))
        and filters.boolean("is-task") is not True
        and (not filters["ancestor"] or bool(status.image and status.image.id in ancestors))
    )


def _exited(status: ContainerStatus, filters: Filters) -> bool:
    return not _running(status) and status.started_at > 0 and str(status.code) in filters["exited"]


def _on_network(filters: Filters, found: set[str], names: dict[str, str]) -> bool:
    """By the name of a network, or the beginning of its id."""
    ids = [id_ for id_, name in names.items() if id_ in found or name in found]
    by_id = any(id_.startswith(filters["network"]) for id_ in ids)
    return by_id or filters.any_exact("network", found)


def _networks(record: ContainerRecord, status: ContainerStatus, names: dict[str, str]) -> set[str]:
    given = (record.networking or {}).get("EndpointsConfig") or {
        mode_of(convert(record.host, HostConfig))
    }
    found = {"bridge" if name == "default" else name for name in given}
    for endpoint in status.network.endpoints if status.network else ():
        found |= {endpoint.network, names.get(endpoint.network, "")}
    return found


def _volumes(status: ContainerStatus) -> set[str]:
    found = {value for _, name, _, target, *_ in status.mounts for value in (name, target)}
    found |= {value for m in status.spec.mounts for value in (m.source, m.target)}
    return found - {""}


def _publishes(status: ContainerStatus, wanted: str) -> bool:
    """`80`, `80/udp` or `8000-8010/tcp`: a container's port that is published, as in Docker."""
    first, last, protocol = exposed(wanted)
    return any(
        first <= m.host_port <= last and m.protocol == protocol
        for m in (status.network.ports if status.network else ())
    )


def _exposes(status: ContainerStatus, record: ContainerRecord, wanted: str) -> bool:
    """Of what `docker ps` shows as its ports."""
    first, last, protocol = exposed(wanted)
    return any(
        first <= port["PrivatePort"] <= last and port["Type"] == protocol
        for port in port_list(status, record)
    )


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
    over = engine.ended_execs.keys() | engine.failed_execs.keys()
    running = tuple(id_ for id_ in status.exec_ids if id_ not in over)
    status = msgspec.structs.replace(status, exec_ids=running)
    size = (await sizes(engine)).get(record.id, 0) if ask.flag("size") else None
    return answer(inspect_view(record, status, names, version=ask.version, size=size))


async def remove(engine: Engine, ask: Ask) -> Response:
    """`docker rm`."""
    record = await engine.container(ask["id"])
    if ask.flag("link"):
        if "/" not in ask["id"].removeprefix("/"):
            raise Conflict("Conflict, cannot remove the default link name of the container")
        await unlink(engine, ask["id"])
        return empty()
    request = RemoveRequest(id=record.id, force=ask.flag("force"), volumes=ask.flag("v"))
    try:
        # One that is not there any more was removed meanwhile, maybe by this very request, whose
        # answer was lost with a node that ended.
        with contextlib.suppress(NotFound):
            await engine.node.remove(request)
    except FailedPrecondition as error:
        raise Conflict(
            f'cannot remove container "/{record.name}": {_short(error.message)}'
        ) from None
    # Its sandbox, which nobody else is in, went with it.
    engine.forget(record.id)
    return empty()


def _short(message: str) -> str:
    lowered = message.lower()
    if "paused" in lowered:
        return "container is paused and must be unpaused first"
    if "restarting" in lowered:
        return "container is restarting: stop the container before removing or force remove"
    if "running" in lowered or "runs" in lowered:
        return "container is running: stop the container before removing or force remove"
    return message


async def rename(engine: Engine, ask: Ask) -> Response:
    """`docker rename`."""
    record = await engine.container(ask["id"])
    wanted = ask.text("name")
    if not wanted:
        raise InvalidArgument("Neither old nor new names may be empty")
    try:
        name = check_name(f"/{wanted.removeprefix('/')}")
    except InvalidArgument as error:
        raise InvalidArgument(f"Error when allocating new name: {error.message}") from None
    if name == record.name:
        raise InvalidArgument("Renaming a container with the same name as its current name")
    engine.renamed[record.id] = record.name
    await free_name(engine, name)
    try:
        await engine.catalog.rename_container(record, name)
    except AlreadyExists as error:
        raise Conflict(f"Error when allocating new name: {error.message}") from None
    try:
        await engine.node.update(UpdateSpec(id=record.id, name=name))
    except SagongError:
        await engine.catalog.rename_container(
            msgspec.structs.replace(record, name=name), record.name
        )
        raise
    for changed in renamed(engine, msgspec.structs.replace(record, name=name)):
        await engine.catalog.change_container(changed)
    return empty()


async def update(engine: Engine, ask: Ask) -> Response:
    """`docker update`: limits and restart policy."""
    document = await ask.document(HostConfig)
    if ask.version < (1, 40):
        document.pop("PidsLimit", None)
    record = await engine.container(ask["id"])
    given = fitted(document, HostConfig)
    machine = this_machine()
    check_limits(given, machine, update=True)
    named = given.restart_policy is not None and given.restart_policy.name
    policy = restart_policy(given) if named else None
    now = convert(record.host, HostConfig)
    for conflict in update_conflicts(now, given):
        raise Conflict(f"Cannot update container {record.id}: {conflict}")
    wanted = _limits(_completed(now, given), machine)
    changed = {k: v for k, v in document.items() if v not in (None, 0, "", [], {})}
    if given.pids_limit is not None and given.pids_limit <= 0:
        wanted = msgspec.structs.replace(wanted, pids=-1)
        changed["PidsLimit"] = 0
    if not machine.io_weight:
        changed.pop("BlkioWeight", None)
    await engine.node.update(UpdateSpec(id=record.id, limits=wanted, restart=policy))
    await engine.catalog.change_container(
        msgspec.structs.replace(record, host={**record.host, **changed})
    )
    return answer({"Warnings": warnings(given, machine) or None})


def _limits(whole: HostConfig, machine: Machine) -> Limits:
    """As at a creation; but Docker holds a reservation against a limit of the same request alone."""
    found = limits(msgspec.structs.replace(whole, memory_reservation=0), machine)
    return msgspec.structs.replace(found, memory_reservation=whole.memory_reservation or None)


def _completed(now: HostConfig, given: HostConfig) -> HostConfig:
    """The asked change over what holds now, so that their relation can be checked."""
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
    engine.note(record, "top")
    return answer({"Titles": titles, "Processes": rows})


async def changes(engine: Engine, ask: Ask) -> Response:
    """`docker diff`."""
    record = await engine.container(ask["id"])
    found = await engine.images.changes(RootRef(id=record.id))
    ordered = sorted(found.changes, key=lambda change: change.path)
    return answer([{"Path": c.path, "Kind": c.kind} for c in ordered] or None)


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
            engine.forget(record.id)
            removed.append(record.id)
            freed += written.get(record.id, 0)
    engine.note_prune("container", freed)
    return answer({"ContainersDeleted": removed or None, "SpaceReclaimed": freed})
