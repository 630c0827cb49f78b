"""Networks: list, inspect, create, remove, connect, disconnect, prune."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable
from typing import Any

import msgspec

from sagong.contracts.network import Attachment, Endpoint, Network, NetworkRef, Subnet
from sagong.contracts.node import ConnectSpec, ContainerStatus, StatusState
from sagong.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    SagongError,
)
from sagong.http import Response
from sagong_docker import wiring
from sagong_docker.ask import Ask, convert
from sagong_docker.body import ConnectBody, EndpointSettings, HostConfig, NetworkBody
from sagong_docker.engine import Engine
from sagong_docker.filters import Filters
from sagong_docker.moment import parse_until
from sagong_docker.naming import new_id
from sagong_docker.network_body import (
    NO_ENDPOINT,
    PREDEFINED,
    check_configuration,
    configured,
    defaulted,
    is_configuration,
    kept,
    made_from,
    network_of,
)
from sagong_docker.network_view import joined, network_view
from sagong_docker.places import check_mac, check_place, chosen_pools
from sagong_docker.record import ContainerRecord, NetworkRecord
from sagong_docker.refusal import answer, empty
from sagong_docker.settings import Settings

__all__ = [
    "connect",
    "create",
    "default_network",
    "disconnect",
    "inspect",
    "list_all",
    "prune",
    "remove",
]

_FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")
# A slash would be another path of the API.
_NO_NAME = re.compile(r"[/\x00-\x1f\x7f]")


def default_network(id_: str, settings: Settings) -> Network:
    """Docker's `bridge`, with the options that its users look at."""
    subnets = (Subnet(subnet=settings.default_subnet),) if settings.default_subnet else ()
    return Network(
        id=id_,
        name=settings.default_network,
        driver="bridge",
        subnets=subnets,
        options=(
            ("com.docker.network.bridge.default_bridge", "true"),
            ("com.docker.network.bridge.enable_icc", "true"),
            ("com.docker.network.bridge.enable_ip_masquerade", "true"),
            ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0"),
            ("com.docker.network.bridge.name", "docker0"),
            ("com.docker.network.driver.mtu", "1500"),
        ),
        created=time.time(),
    )


_PRIVATE = (
    "container cannot be connected to multiple networks with one of the networks in private (none) "
    "mode"
)


async def list_all(engine: Engine, ask: Ask) -> Response:
    """`docker network ls`."""
    filters = ask.filters()
    filters.check(_FILTERS)
    for kind in filters["type"]:
        if kind not in ("builtin", "custom"):
            raise InvalidArgument(f"invalid filter: 'type'='{kind}'")
    for value in filters["dangling"]:
        if value not in ("true", "1", "false", "0"):
            raise InvalidArgument(
                'invalid value for filter \'dangling\', must be "true" (or "1"), '
                'or "false" (or "0")'
            )
    used: set[str] = set()
    if filters["dangling"]:
        used = {e.network for s in await engine.statuses(foreign_too=True) for e in _endpoints(s)}
    return answer(
        [
            network_view(network, engine.catalog.networks.get(network.id), None, ask.version)
            for network in await engine.networks()
            if _matches(network, filters, used)
        ]
    )


def _matches(network: Network, filters: Filters, used: set[str]) -> bool:
    builtin = network.name in PREDEFINED
    dangling = filters.boolean("dangling")
    return (
        filters.prefix("id", network.id)
        and filters.pattern("name", (network.name,))
        and filters.exact("driver", network.driver)
        and filters.exact("scope", "local")
        and filters.labels(dict(network.labels))
        and filters.exact("type", "builtin" if builtin else "custom")
        and (dangling is None or dangling == (not builtin and network.id not in used))
    )


def _endpoints(status: ContainerStatus) -> tuple[Endpoint, ...]:
    network = joined(status)
    return network.endpoints if network else ()


async def inspect(engine: Engine, ask: Ask) -> Response:
    """`docker network inspect`, with the containers that are on it."""
    network = await engine.find_network(ask["id"])
    if ask.text("scope") not in ("", "local"):
        raise NotFound(f"network {ask['id']} not found")
    members = _members(engine, await engine.statuses(), network.id)
    record = engine.catalog.networks.get(network.id)
    return answer(network_view(network, record, members, ask.version))


def _members(
    engine: Engine, statuses: Iterable[ContainerStatus], network: str
) -> list[tuple[str, str, Endpoint]]:
    return [
        (status.spec.id, engine.record_of(status).name, endpoint)
        for status in statuses
        for endpoint in _endpoints(status)
        if endpoint.network == network and status.spec.sandbox == status.spec.id
    ]


async def create(engine: Engine, ask: Ask) -> Response:
    """`docker network create`."""
    body = await ask.checked(NetworkBody)
    if ask.version < (1, 48):
        body.pop("EnableIPv4", None)
    name = str(body.get("Name") or "")
    _check_name(name)
    driver = str(body.get("Driver") or "bridge")
    if str(body.get("Scope") or "").lower() in ("swarm", "global"):
        raise PermissionDenied("cannot create a swarm scoped network when swarm is not active")
    if driver in ("host", "null", "none"):
        raise PermissionDenied(f'only one instance of "{driver}" network is allowed')
    if any(n.name == name for n in await engine.networks()):
        raise AlreadyExists(f"network with name {name} already exists")
    if body.get("ConfigOnly"):
        check_configuration(body)
        driver = "null"
    elif body.get("Ingress"):
        raise InvalidArgument("an ingress network needs swarm, which is not here")
    elif not (body.get("ConfigFrom") or {}).get("Network"):
        body = defaulted(body, engine.settings.network_options.get(driver, {}))
    body = configured(body, engine.catalog.networks.values())
    if body.get("EnableIPv4") is False and not body.get("EnableIPv6"):
        raise InvalidArgument("IPv4 or IPv6 must be enabled")
    network = network_of(new_id(), name, driver, body)
    if not body.get("ConfigOnly"):
        await _make(engine, network)
    await engine.catalog.keep(
        NetworkRecord(id=network.id, name=name, created=time.time_ns(), body=kept(body))
    )
    engine.history.note("network", "create", network.id, {"name": name, "type": driver})
    return answer({"Id": network.id, "Warning": ""}, 201)


async def _make(engine: Engine, network: Network) -> None:
    try:
        await engine.network.create(network)
    except Conflict as error:
        if "overlap" not in error.message:
            raise PermissionDenied(error.message) from None
        # Clients that try another subnet look for these words.
        raise PermissionDenied(
            "invalid pool request: Pool overlaps with other one on this address space: "
            f"{error.message}"
        ) from None


def _check_name(name: str) -> None:
    if not name.strip():
        raise InvalidArgument("invalid network name: name is empty")
    if name in PREDEFINED:
        raise PermissionDenied(f"operation is not permitted on predefined {name} network")
    if _NO_NAME.search(name) or len(name) > 255:
        raise InvalidArgument(
            f"invalid network name {name!r}: 1 to 255 characters, no slash and nothing unprintable"
        )


async def remove(engine: Engine, ask: Ask) -> Response:
    """`docker network rm`."""
    network = await engine.find_network(ask["id"])
    await _remove(engine, network)
    return empty()


async def _remove(engine: Engine, network: Network) -> None:
    if network.name in PREDEFINED or network.name == engine.settings.default_network:
        raise PermissionDenied(f"{network.name} is a pre-defined network and cannot be removed")
    record = engine.catalog.networks.get(network.id)
    if is_configuration(record):
        users = (made_from(other) for other in engine.catalog.networks.values())
        if network.name in users:
            raise PermissionDenied(
                f'error while removing network: configuration network "{network.name}" is in use'
            )
    else:
        await _unmake(engine, network)
    if record is not None:
        await engine.catalog.forget(record)
    attributes = {"name": network.name, "type": network.driver}
    engine.history.note("network", "destroy", network.id, attributes)


async def _unmake(engine: Engine, network: Network) -> None:
    members = _members(engine, await engine.statuses(), network.id)
    active = " ".join(f'name:"{name}" id:"{id_[:12]}"' for id_, name, _ in members)
    refused = PermissionDenied(
        f"error while removing network: network {network.name} has active endpoints ({active})"
    )
    if members:
        raise refused
    try:
        await engine.network.delete(NetworkRef(id=network.id))
    except FailedPrecondition:
        raise refused from None


async def connect(engine: Engine, ask: Ask) -> Response:
    """`docker network connect`."""
    network, record, body = await _both(engine, ask)
    settings = convert(body.get("EndpointConfig") or {}, EndpointSettings)
    check_mac(network.name, settings.mac_address)
    pools = chosen_pools(network, engine.catalog.networks.get(network.id))
    check_place(network.name, settings, pools, "")
    if network.name in ("host", "none"):
        raise InvalidArgument(
            "cannot connect container to host network - container must be created in host network "
            "mode"
            if network.name == "host"
            else _PRIVATE
        )
    mode = wiring.mode_of(convert(record.host, HostConfig)).partition(":")[0]
    if mode in ("host", "container"):
        raise PermissionDenied(
            "container sharing network namespace with another container or host cannot be "
            "connected to any other network"
        )
    if mode == "none":
        raise InvalidArgument(_PRIVATE)
    names = wiring.own_names(record.id, str(record.config.get("Hostname") or ""))
    wanted = wiring.attachment(network.id, settings, names)
    status = await engine.status(record)
    runs = status.state in (StatusState.RUNNING, StatusState.PAUSED)
    if runs and is_configuration(engine.catalog.networks.get(network.id)):
        raise PermissionDenied(NO_ENDPOINT)
    if any(e.network == network.id for e in _endpoints(status)):
        raise PermissionDenied(
            f"endpoint with name {record.name} already exists in network {network.name}"
        )
    await engine.node.connect(ConnectSpec(id=status.spec.sandbox, attachment=wanted))
    endpoints = _given(record) | {network.name: body.get("EndpointConfig") or {}}
    await _keep_endpoints(engine, record, endpoints, record.left - {network.name, network.id})
    if runs:
        attributes = {"container": record.id, "name": network.name, "type": network.driver}
        engine.history.note("network", "connect", network.id, attributes)
    return empty(200)


async def disconnect(engine: Engine, ask: Ask) -> Response:
    """`docker network disconnect`."""
    body = await ask.checked(ConnectBody)
    force = bool(body.get("Force"))
    try:
        network = await engine.find_network(ask["id"])
    except NotFound:
        return await _disconnect_gone(engine, ask["id"], body)
    record = await _member(engine, str(body.get("Container") or ""), force=force)
    status = await engine.status(record)
    on_it = any(e.network == network.id for e in _endpoints(status))
    given = {k: v for k, v in _given(record).items() if k not in (network.name, network.id)}
    known = len(given) < len(_given(record)) or _by_mode(engine, record, network)
    mode = wiring.mode_of(convert(record.host, HostConfig))
    if mode == network.name == "host" and status.state is StatusState.RUNNING:
        raise InvalidArgument(
            "cannot disconnect container from host network - container was created in host "
            "network mode"
        )
    if status.state is StatusState.RUNNING and not on_it:
        raise NotFound(f"container {record.id} is not connected to network {network.name}")
    if not (on_it or known):
        raise NotFound(f"container {record.id} is not connected to the network {network.name}")
    await engine.node.connect(
        ConnectSpec(
            id=status.spec.sandbox,
            attachment=Attachment(network=network.id),
            disconnect=True,
            force=force,
        )
    )
    await _keep_endpoints(engine, record, given, record.left | {network.name, network.id})
    attributes = {"container": record.id, "name": network.name, "type": network.driver}
    engine.history.note("network", "disconnect", network.id, attributes)
    return empty(200)


def _by_mode(engine: Engine, record: ContainerRecord, network: Network) -> bool:
    """Whether its mode names the network, which it has not left since."""
    main = wiring.main_network(convert(record.host, HostConfig), engine.settings.default_network)
    named = main in (network.name, network.id) or (len(main) > 11 and network.id.startswith(main))
    return named and not record.left & {network.name, network.id}


async def _member(engine: Engine, name: str, *, force: bool) -> ContainerRecord:
    """Who shall leave; with force it is looked for among the network's endpoints, in Docker's words."""
    try:
        return await engine.container(name)
    except NotFound:
        if force:
            raise NotFound(f"endpoint {name} not found") from None
        raise


async def _disconnect_gone(engine: Engine, name: str, body: dict[str, Any]) -> Response:
    """Force, or that a container does not run, takes a network that is gone out of its wishes."""
    record = await engine.container(str(body.get("Container") or ""))
    given = _given(record)
    runs = (await engine.status(record)).state in (StatusState.RUNNING, StatusState.PAUSED)
    mode = wiring.mode_of(convert(record.host, HostConfig))
    wished = name in given or (name == mode and name not in record.left)
    if not wished or (runs and not body.get("Force")):
        raise NotFound(f"network {name} not found")
    rest = {key: settings for key, settings in given.items() if key != name}
    await _keep_endpoints(engine, record, rest, record.left | {name})
    return empty(200)


async def _both(engine: Engine, ask: Ask) -> tuple[Network, ContainerRecord, dict[str, Any]]:
    body = await ask.checked(ConnectBody)
    network = await engine.find_network(ask["id"])
    record = await engine.container(str(body.get("Container") or ""))
    return network, record, body


def _given(record: ContainerRecord) -> dict[str, Any]:
    return dict((record.networking or {}).get("EndpointsConfig") or {})


async def _keep_endpoints(
    engine: Engine, record: ContainerRecord, endpoints: dict[str, Any], left: frozenset[str]
) -> None:
    networking = {**record.networking, "EndpointsConfig": endpoints, "Left": sorted(left)}
    await engine.catalog.change_container(msgspec.structs.replace(record, networking=networking))


async def prune(engine: Engine, ask: Ask) -> Response:
    """`docker network prune`: those without containers, running or not."""
    filters = ask.filters()
    filters.check(("until", "label", "label!"))
    until = [parse_until(text, time.time()) for text in filters["until"]]
    used = {
        attachment
        for status in await engine.statuses(foreign_too=True)
        for attachment in (
            *(e.network for e in _endpoints(status)),
            *_given(engine.record_of(status)),
            engine.record_of(status).host.get("NetworkMode") or "",
        )
    }
    removed = []
    for network in await engine.networks():
        if network.name in PREDEFINED or {network.id, network.name} & used:
            continue
        if is_configuration(engine.catalog.networks.get(network.id)):
            continue
        labels = dict(network.labels)
        if not (filters.labels(labels) and filters.without_labels(labels)):
            continue
        if any(network.created > moment for moment in until):
            continue
        with contextlib.suppress(SagongError):
            await _remove(engine, network)
            removed.append(network.name)
    engine.note_prune("network", 0)
    return answer({"NetworksDeleted": removed or None})
