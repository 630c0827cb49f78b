"""Making containers: what a create body names is looked up, then node and catalog are written."""

from __future__ import annotations

import asyncio
import contextlib
import os
import posixpath
import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from sagong.contracts.image import Image, ImageRef
from sagong.contracts.network import Network
from sagong.contracts.node import ContainerSpec, ContainerStatus, Ref, RemoveRequest, SandboxSpec
from sagong.contracts.volume import Volume, VolumeRef
from sagong.errors import AlreadyExists, InvalidArgument, NotFound, SagongError
from sagong.http import Response
from sagong_docker.archive import provide_directory
from sagong_docker.ask import Ask, fitted
from sagong_docker.body import CreateBody, HostConfig
from sagong_docker.creation import Lookup, Wish, translate
from sagong_docker.engine import OWNER, Engine
from sagong_docker.linking import linked, shown
from sagong_docker.log_options import asks_image, check_log, effective
from sagong_docker.machine import this_machine
from sagong_docker.naming import check_name, new_id, random_name
from sagong_docker.places import check_mac, check_place, chosen_pools
from sagong_docker.record import ContainerRecord
from sagong_docker.refusal import answer
from sagong_docker.resources import check_limits, discarded
from sagong_docker.settings import Settings
from sagong_docker.validity import (
    check_body,
    check_platform,
    warnings,
)
from sagong_docker.vintage import shaped
from sagong_docker.volumes import provide
from sagong_docker.wiring import joining_mode, mode_of

__all__ = ["create", "free_name"]

_NAMES_TRIED = 4
_ALWAYS_THERE = frozenset({"bridge", "default", "none", "host"})
_EMPTY = "config cannot be empty in order to create a container"
_OLD_MAC = (
    "The container-wide MacAddress field is now deprecated. It should be specified in "
    "EndpointsConfig instead."
)
_LENT_MODES = (
    "",
    "ro",
    "rw",
    "z",
    "Z",
    "ro,z",
    "ro,Z",
    "rw,z",
    "rw,Z",
    "z,ro",
    "Z,ro",
    "z,rw",
    "Z,rw",
)
_BODY_KEYS = ("HostConfig", "NetworkingConfig")


async def create(engine: Engine, ask: Ask) -> Response:
    """`docker create`: the catalog and the node are written side by side."""
    document = await ask.document(CreateBody)
    if not document:
        raise InvalidArgument(_EMPTY)
    document = shaped(document, ask.version)
    body = fitted(document, CreateBody)
    check_platform(ask.text("platform"))
    host = body.host_config or HostConfig()
    check_body(body, host, this_machine())
    check_limits(host, this_machine())
    check_log(host, engine.settings)
    given = ask.text("name")
    name = check_name(given) if given else ""
    if name:
        return await _create(engine, ask, document, body, name)
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
    lookup = await _lookup(engine, body, host, name)
    _check_endpoints(engine, body, lookup)
    wish = translate(id_, name, body, engine.settings, lookup)
    on_default = _on_default(host, lookup.networks)
    links = await linked(engine, host.links) if host.links and on_default else {}
    at_once = mode_of(host) in _ALWAYS_THERE and not links and _starts_at_once(body, wish)
    # What is to be in its root before it is prepared is written when the root is there.
    expected = at_once and not body.working_dir
    spec = msgspec.structs.replace(wish.container, platform=ask.text("platform"), expected=expected)
    given = _host(document, host, engine.settings, lookup)
    record = ContainerRecord(
        id=id_,
        name=name,
        created=time.time_ns(),
        config=_config(engine, document, body, host, lookup),
        host=given | {"Links": shown(engine, name, links)} if links else given,
        networking=document.get("NetworkingConfig") or {},
        links=links,
    )
    await free_name(engine, name)
    lent = {mount[1] for status, _ in lookup.lenders for mount in status.mounts}
    made = [name for name in await _volumes(engine, spec) if name not in lent]
    try:
        await _make(engine, record, spec, wish.sandbox)
    except SagongError:
        for volume in made:
            with contextlib.suppress(SagongError):
                await engine.volumes.delete(VolumeRef(name=volume))
        raise
    engine.fresh.add(id_)
    if body.working_dir:
        await provide_directory(engine, id_, str(record.config["WorkingDir"]))
        if at_once:
            engine.expect_start(record)
    elif at_once:
        engine.note_expected(id_)
    said = warnings(host, lookup.machine)
    if body.mac_address and ask.version >= (1, 44):
        said.append(_OLD_MAC)
    return answer({"Id": id_, "Warnings": said}, 201)


def _starts_at_once(body: CreateBody, wish: Wish) -> bool:
    """Who says that he attaches, and that it goes with its end, hardly means to start it later.

    Not where it takes what somebody may ask for by name meanwhile: a port, an address, a network.
    """
    network = wish.sandbox.network
    named = network.ports or any(a.ipv4 or a.ipv6 or a.mac for a in network.attachments)
    attaches = body.attach_stdout or body.attach_stderr
    return wish.container.remove and attaches and not named


def _check_endpoints(engine: Engine, body: CreateBody, lookup: Lookup) -> None:
    """Docker refuses addresses that no pool has, and any on the default network, by name or id."""
    config = body.networking_config
    check_mac(mode_of(body.host_config or HostConfig()), body.mac_address)
    for name, settings in ((config.endpoints_config if config else None) or {}).items():
        if settings is None:
            continue
        shown = "bridge" if name == "default" else name
        check_mac(shown, settings.mac_address)
        network = engine.seen_networks.get(lookup.networks.get(shown, shown))
        if network is None:
            continue
        default = network.id == lookup.networks.get("bridge")
        pools = chosen_pools(network, engine.catalog.networks.get(network.id))
        where = f"invalid config for network {shown}: "
        check_place("bridge" if default else network.name, settings, pools, where)


async def _volumes(engine: Engine, spec: ContainerSpec) -> list[str]:
    """Volumes are there from the container's creation on; the names of those nobody named."""
    anonymous = []
    for mount in spec.mounts:
        if mount.kind == "volume":
            wanted = Volume(
                name=mount.source,
                driver=mount.driver or "local",
                options=mount.driver_options,
                labels=mount.labels,
                anonymous=mount.anonymous,
                owner=OWNER,
            )
            try:
                await provide(engine, wanted, driver=mount.driver)
            except NotFound:
                raise NotFound(
                    f"error looking up volume plugin {wanted.driver}: "
                    f'plugin "{wanted.driver}" not found'
                ) from None
            anonymous += [mount.source] if mount.anonymous else []
    return anonymous


def _config(
    engine: Engine, document: dict[str, Any], body: CreateBody, host: HostConfig, lookup: Lookup
) -> dict[str, Any]:
    """What is inspected as Config; the machine's network, or another container's, gives its name."""
    config = {k: v for k, v in document.items() if k not in _BODY_KEYS}
    if body.working_dir:
        config["WorkingDir"] = posixpath.normpath(body.working_dir)
    kind, _, name = mode_of(host).partition(":")
    if joining_mode(host, engine.settings.default_network) != mode_of(host):
        config["NetworkDisabled"] = True
    if kind == "host" and not body.hostname:
        config["Hostname"] = lookup.hostname
    lender = engine.catalog.containers.get(lookup.containers.get(name, name))
    if kind == "container" and lender is not None:
        config["Hostname"] = lender.config.get("Hostname") or lender.id[:12]
        config["Domainname"] = lender.config.get("Domainname") or ""
    return config


def _host(
    document: dict[str, Any], host: HostConfig, settings: Settings, lookup: Lookup
) -> dict[str, Any]:
    """What is inspected as HostConfig: other containers by their ids, which stay when they are
    renamed; log options as they are when the engine's own settings change."""
    containers = lookup.containers
    given = document.get("HostConfig") or {}
    changes: dict[str, Any] = {}
    driver, options = effective(host, settings)
    if options:
        changes["LogConfig"] = {"Type": driver, "Config": options}
    if (given.get("PidsLimit") or 0) <= 0:
        changes["PidsLimit"] = None
    changes |= discarded(host, lookup.machine)
    for key in ("NetworkMode", "PidMode", "IpcMode"):
        kind, colon, other = str(given.get(key) or "").partition(":")
        if kind == "container" and colon and other in containers:
            changes[key] = f"container:{containers[other]}"
    return {**given, **changes}


async def free_name(engine: Engine, name: str) -> None:
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
    """Both at once, as a node of before does not: it says that there is no sandbox."""
    try:
        await engine.node.create(msgspec.structs.replace(spec, own=sandbox))
    except NotFound as error:
        if not error.message.startswith("No such sandbox"):
            raise
        await engine.node.create_sandbox(sandbox)
        await engine.node.create(spec)


async def _networks(engine: Engine, body: CreateBody, host: HostConfig) -> list[Network]:
    """All that a body may name: those that nobody can remove, as they were last seen."""
    wanted = (engine.settings.default_network, "none", "host")
    seen = [network for name in wanted if (network := engine.seen_networks.get(name))]
    if len(seen) == len(wanted) and {*_network_references(body, host)} <= _ALWAYS_THERE:
        return seen
    return await engine.networks()


async def _lookup(engine: Engine, body: CreateBody, host: HostConfig, name: str) -> Lookup:
    """Resolve what the body names; most bodies need the networks alone."""
    networks = await _networks(engine, body, host)
    published: set[tuple[int, str]] = set()
    if any("-" in str(b.host_port) for bs in (host.port_bindings or {}).values() for b in bs or ()):
        published = _published(await engine.statuses())
    exposed: list[str] = list(body.exposed_ports or {})
    image: Image | None = None
    if host.publish_all_ports or asks_image(host, engine.settings):
        image = await engine.images.inspect(ImageRef(reference=body.image))
    if host.publish_all_ports and image:
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
        containers=await _containers(engine, host, name),
        lenders=await _lenders(engine, host),
        exposed=tuple(exposed),
        published=frozenset(published),
        runtimes=(await engine.node.runtimes()).names if host.runtime else (),
        gateways=tuple(s.gateway for s in bridge.subnets if s.gateway) if bridge else (),
        hostname=engine.settings.name or os.uname().nodename,
        machine=this_machine(),
        image=image,
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


async def _containers(engine: Engine, host: HostConfig, own: str) -> dict[str, str]:
    """Ids of containers named by `container:NAME` modes; `own` is the new one's name."""
    found = {}
    kinds = {"network_mode": "network", "pid_mode": "PID namespace", "ipc_mode": "IPC namespace"}
    for field in kinds:
        kind, colon, name = getattr(host, field).partition(":")
        if kind == "container" and colon:
            if name and name == own:
                raise InvalidArgument(f"cannot join own {kinds[field]}")
            try:
                found[name] = (await _existing(engine, name)).id
            except InvalidArgument:
                # Whose network it joins may come later, as in Docker.
                if field != "network_mode" or not name:
                    raise
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
        if not text:
            raise InvalidArgument("volumes-from specification cannot be an empty string")
        if mode not in _LENT_MODES:
            raise InvalidArgument(f"invalid mode: {mode}")
        record = await _existing(engine, name)
        found.append((await engine.status(record), mode))
    return tuple(found)


def _on_default(host: HostConfig, networks: Mapping[str, str]) -> bool:
    """The default network has no names of its own; elsewhere links are names that it resolves."""
    mode = mode_of(host)
    return networks.get(mode, mode) == networks.get("bridge")
