"""Volumes: list, inspect, create, remove, prune."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from sagong.contracts.node import ContainerStatus
from sagong.contracts.volume import Volume, VolumeRef
from sagong.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SagongError,
    Unavailable,
)
from sagong.http import Response
from sagong_docker.absent import NOT_A_MANAGER
from sagong_docker.ask import Ask
from sagong_docker.body import VolumeBody
from sagong_docker.engine import OWNER, Engine
from sagong_docker.filters import Filters
from sagong_docker.moment import nanos_text
from sagong_docker.naming import check_volume_name, new_id
from sagong_docker.refusal import answer, empty

__all__ = [
    "create",
    "inspect",
    "list_all",
    "own",
    "provide",
    "prune",
    "remove",
    "users",
    "volume_view",
]

# The local driver's, and what each is nothing without.
_LOCAL_OPTIONS = {"type": ("device",), "device": ("type",), "o": ("device", "type"), "size": ()}
_ANONYMOUS_LABEL = "com.docker.volume.anonymous"


def volume_view(volume: Volume, usage: tuple[int, int] | None = None) -> dict[str, Any]:
    """A volume; `usage` is (bytes, containers)."""
    labels = dict(volume.labels)
    if volume.anonymous:
        labels.setdefault(_ANONYMOUS_LABEL, "")
    view: dict[str, Any] = {
        "CreatedAt": nanos_text(int(volume.created) * 10**9),
        "Driver": volume.driver,
        "Labels": labels or None,
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": dict(volume.options) or None,
        "Scope": "local",
    }
    if usage is not None:
        view["UsageData"] = {"Size": usage[0], "RefCount": usage[1]}
    return view


def users(statuses: list[ContainerStatus]) -> dict[str, list[str]]:
    """Ids of containers, running or not, by the volumes they name."""
    found: dict[str, list[str]] = {}
    for status in statuses:
        names = {m.source for m in status.spec.mounts if m.kind == "volume"}
        names |= {name for kind, name, *_ in status.mounts if kind == "volume"}
        for name in names:
            found.setdefault(name, []).append(status.spec.id)
    return found


async def own(engine: Engine, *, foreign_too: bool = False) -> list[Volume]:
    """Docker's volumes; those of pods are asked for as their containers are, by a label."""
    found = (await engine.volumes.list()).volumes
    return [v for v in found if foreign_too or v.owner in ("", OWNER)]


async def list_all(engine: Engine, ask: Ask) -> Response:
    """`docker volume ls`."""
    filters = ask.filters()
    filters.check(("dangling", "driver", "label", "label!", "name"))
    used: dict[str, list[str]] = {}
    if filters.boolean("dangling") is not None:
        used = users(await engine.statuses(foreign_too=True))
    volumes = await own(engine, foreign_too=bool(filters["label"]))
    shown = [volume_view(v) for v in volumes if _matches(v, filters, used)]
    return answer({"Volumes": shown, "Warnings": None})


def _matches(volume: Volume, filters: Filters, used: dict[str, list[str]]) -> bool:
    labels = dict(volume.labels)
    dangling = filters.boolean("dangling")
    return (
        filters.pattern("name", (volume.name,))
        and filters.exact("driver", volume.driver)
        and filters.labels(labels)
        and filters.without_labels(labels)
        and (dangling is None or dangling == (volume.name not in used))
    )


async def inspect(engine: Engine, ask: Ask) -> Response:
    """`docker volume inspect`."""
    return answer(volume_view(await _volume(engine, ask["name"])))


async def _volume(engine: Engine, name: str) -> Volume:
    try:
        return await engine.volumes.inspect(VolumeRef(name=name))
    except (NotFound, InvalidArgument):
        raise NotFound(f"get {name}: no such volume") from None


async def create(engine: Engine, ask: Ask) -> Response:
    """`docker volume create`; an existing one is given back as it is."""
    body = await ask.checked(VolumeBody)
    name = str(body.get("Name") or "")
    if name:
        check_volume_name(name)
    if body.get("Driver") in (None, "", "local"):
        _check_options(name, body.get("DriverOpts") or {})
    if body.get("ClusterVolumeSpec") is not None:
        raise Unavailable(NOT_A_MANAGER)
    made = await provide(
        engine,
        Volume(
            name=name or new_id(),
            driver=str(body.get("Driver") or "local"),
            options=tuple((str(k), str(v)) for k, v in (body.get("DriverOpts") or {}).items()),
            labels=tuple((str(k), str(v)) for k, v in (body.get("Labels") or {}).items()),
            anonymous=not name,
            owner=OWNER,
        ),
        driver=str(body.get("Driver") or ""),
    )
    return answer(volume_view(made), 201)


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    """Of the local driver: known ones, and what each needs."""
    for option in sorted(options):
        if option not in _LOCAL_OPTIONS:
            raise InvalidArgument(f'create {name}: invalid option: "{option}"')
    for option in sorted(options):
        for needed in _LOCAL_OPTIONS[option]:
            if needed not in options:
                raise InvalidArgument(f'create {name}: missing required option: "{needed}"')


async def provide(engine: Engine, wanted: Volume, *, driver: str) -> Volume:
    """The volume, made unless it is there; by any driver if none was asked for."""
    now = time.time()
    try:
        made = await engine.volumes.create(msgspec.structs.replace(wanted, created=now))
    except AlreadyExists:
        return await _existing(engine, wanted.name, driver)
    except NotFound as error:
        raise NotFound(f"create {wanted.name}: {error.message}") from None
    # One that was there has the time of its own making.
    if made.created in (0.0, now):
        engine.history.note("volume", "create", made.name, {"driver": made.driver})
    return made


async def _existing(engine: Engine, name: str, driver: str) -> Volume:
    """Another driver is a conflict; other options are not, as in Docker."""
    there = await _volume(engine, name)
    if driver not in ("", there.driver):
        raise Conflict(
            f"a volume with the same name but different driver ({there.driver}) already exists: "
            f"{name}"
        )
    return there


async def remove(engine: Engine, ask: Ask) -> Response:
    """`docker volume rm`."""
    name = ask["name"]
    force = ask.flag("force")
    try:
        volume = await _volume(engine, name)
    except NotFound:
        if force:
            return empty()
        raise
    holders = users(await engine.statuses(foreign_too=True)).get(name, [])
    refused = Conflict(f"remove {name}: volume is in use - [{', '.join(holders)}]")
    if holders:
        raise refused
    try:
        await engine.volumes.delete(VolumeRef(name=name, force=force))
    except FailedPrecondition:
        raise refused from None
    engine.history.note("volume", "destroy", name, {"driver": volume.driver})
    return empty()


async def prune(engine: Engine, ask: Ask) -> Response:
    """`docker volume prune`: from 1.42 anonymous ones alone, unless `all` is asked for."""
    filters = ask.filters()
    filters.check(("all", "label", "label!"))
    everything = ask.version < (1, 42) or bool(filters.boolean("all"))
    used = users(await engine.statuses(foreign_too=True))
    removed, freed = [], 0
    for volume in await own(engine):
        labels = dict(volume.labels)
        anonymous = volume.anonymous or _ANONYMOUS_LABEL in labels
        # What has options (a device, a server) may hold what is not ours to delete.
        if volume.name in used or volume.options or not (everything or anonymous):
            continue
        if not (filters.labels(labels) and filters.without_labels(labels)):
            continue
        with contextlib.suppress(SagongError):
            size = (await engine.volumes.usage(VolumeRef(name=volume.name))).size
            await engine.volumes.delete(VolumeRef(name=volume.name))
            removed.append(volume.name)
            freed += size
            engine.history.note("volume", "destroy", volume.name, {"driver": volume.driver})
    engine.note_prune("volume", freed)
    return answer({"VolumesDeleted": removed, "SpaceReclaimed": freed})
