"""Networks, endpoints and ports as the Docker API shows them. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from sagong.contracts.network import Endpoint, Network, Sandbox
from sagong.contracts.node import ContainerStatus, StatusState
from sagong.model.numbers import natural
from sagong_docker.moment import moment_text
from sagong_docker.network_body import is_configuration, made_from
from sagong_docker.record import ContainerRecord, NetworkRecord

__all__ = [
    "HOST_ID",
    "NONE_ID",
    "endpoint_id",
    "endpoint_views",
    "joined",
    "network_view",
    "port_list",
    "port_map",
    "special_networks",
]

# What Docker says of its default network.
_OF_THE_DEFAULT = {
    "com.docker.network.bridge.default_bridge": "true",
    "com.docker.network.bridge.enable_icc": "true",
    "com.docker.network.bridge.enable_ip_masquerade": "true",
    "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
    "com.docker.network.driver.mtu": "1500",
}
HOST_ID = hashlib.sha256(b"network host").hexdigest()
NONE_ID = hashlib.sha256(b"network none").hexdigest()


def special_networks() -> tuple[Network, ...]:
    """`host` and `none`, which need no plugin."""
    return (
        Network(id=HOST_ID, name="host", driver="host"),
        Network(id=NONE_ID, name="none", driver="null"),
    )


def endpoint_id(container: str, network: str) -> str:
    """An id for a container's place on a network; stable while both live."""
    return hashlib.sha256(f"{container} {network}".encode()).hexdigest()


def joined(status: ContainerStatus) -> Sandbox | None:
    """Its network while it runs; one that does not may have its own for the next start."""
    idle = (StatusState.CREATED, StatusState.EXITED, StatusState.DEAD, StatusState.REMOVING)
    return None if status.state in idle else status.network


def endpoint_views(
    record: ContainerRecord,
    status: ContainerStatus,
    names: dict[str, str],
    version: tuple[int, int],
) -> dict[str, Any]:
    """NetworkSettings.Networks: what the container has, else what it will have."""
    mode = str(record.host.get("NetworkMode") or "bridge")
    if mode in ("host", "none"):
        own = HOST_ID if mode == "host" else NONE_ID
        network = next((id_ for id_, name in names.items() if name == mode), own)
        endpoint = Endpoint(network=network, interface="", mac="") if joined(status) else None
        shown = network if status.started_at else ""
        return {mode: _view(record, mode, shown, endpoint, {}, None, version)}
    if mode.startswith("container:") or record.config.get("NetworkDisabled"):
        return {}
    given = dict(record.networking.get("EndpointsConfig") or {})
    if "default" in given:
        given.setdefault("bridge", given.pop("default"))
    found = {}
    network_now = joined(status)
    if network_now is not None:
        for endpoint in network_now.endpoints:
            name = names.get(endpoint.network, endpoint.network)
            settings = given.get(name) or given.get(endpoint.network) or {}
            aliases = endpoint.aliases if name != "bridge" else None
            found[name] = _view(
                record, name, endpoint.network, endpoint, settings, aliases, version
            )
    if found:
        return found
    ids = {name: id_ for id_, name in names.items()}
    main: str = "bridge" if mode == "default" else names.get(mode, mode)
    named = [str(names.get(n, n)) for n in given]
    wishes = [*([main] if main in named or not named else ()), *named]
    for wanted in dict.fromkeys(w for w in wishes if w not in record.left):
        settings = given.get(wanted) or given.get(ids.get(wanted, "")) or {}
        shown = ids.get(wanted, "") if status.started_at else ""
        found[wanted] = _view(record, wanted, shown, None, settings, (), version)
    return found


def _view(
    record: ContainerRecord,
    name: str,
    network: str,
    endpoint: Endpoint | None,
    given: dict[str, Any],
    aliases: Iterable[str] | None,
    version: tuple[int, int],
) -> dict[str, Any]:
    """`aliases` None: the default network, which has no names."""
    mode = str(record.host.get("NetworkMode") or "bridge").replace("default", "bridge")
    mac = record.config.get("MacAddress") or "" if name == mode else ""
    asked = list(given.get("Aliases") or ())
    short = record.id[:12]
    named = bool(network) and aliases is not None and endpoint is not None
    shown = [*asked, short] if named and version < (1, 45) else asked
    names = list(dict.fromkeys((record.name, *asked, *(aliases or ()), short))) if named else None
    view: dict[str, Any] = {
        "IPAMConfig": given.get("IPAMConfig"),
        "Links": given.get("Links"),
        "Aliases": shown or None,
        "MacAddress": endpoint.mac
        if endpoint
        else given.get("MacAddress") or ("" if network else mac),
        "DriverOpts": given.get("DriverOpts"),
        "NetworkID": network,
        "EndpointID": endpoint_id(record.id, network) if endpoint else "",
        "Gateway": _next(endpoint.gateway4) if endpoint else "",
        "IPAddress": endpoint.ipv4 if endpoint else "",
        "IPPrefixLen": endpoint.ipv4_prefix if endpoint else 0,
        "IPv6Gateway": _next(endpoint.gateway6) if endpoint else "",
        "GlobalIPv6Address": endpoint.ipv6 if endpoint else "",
        "GlobalIPv6PrefixLen": endpoint.ipv6_prefix if endpoint else 0,
    }
    if version >= (1, 44):
        view["DNSNames"] = names
    if version >= (1, 48):
        view["GwPriority"] = given.get("GwPriority") or 0
    return view


def _next(gateway: str) -> str:
    """A default route over the link alone has none."""
    return "" if gateway in ("0.0.0.0", "::") else gateway


def _published(status: ContainerStatus) -> dict[tuple[int, str], list[tuple[str, int]]]:
    """(container port, protocol) to host addresses; an open address is both of v4 and v6.

    A port 0 is none of the machine's: the container is reached at its own address.
    """
    found: dict[tuple[int, str], list[tuple[str, int]]] = {}
    network = joined(status)
    for mapping in network.ports if network else ():
        key = (mapping.container_port, mapping.protocol)
        for address in [mapping.host_ip] if mapping.host_ip else ["0.0.0.0", "::"]:
            own = network is not None and (6 if ":" in address else 4) in network.routed
            found.setdefault(key, []).append((address, 0 if own else mapping.host_port))
    return found


def _is_inner(status: ContainerStatus) -> bool:
    """Whether it has no way in or out by any network."""
    places = status.network.endpoints if status.network else ()
    return not any(e.gateway4 or e.gateway6 for e in places)


def _exposed(status: ContainerStatus, record: ContainerRecord) -> set[tuple[int, str]]:
    """By the image and by the create body."""
    found = set()
    of_image = status.image.config.exposed_ports if status.image else ()
    for port in (*of_image, *(record.config.get("ExposedPorts") or ())):
        number, _, protocol = port.partition("/")
        found_number = natural(number)
        if found_number is not None:
            found.add((found_number, protocol or "tcp"))
    return found


def port_map(status: ContainerStatus, record: ContainerRecord) -> dict[str, Any]:
    """NetworkSettings.Ports: empty while it doesn't run, or is on internal networks alone."""
    if joined(status) is None or _is_inner(status):
        return {}
    published = _published(status)
    exposed = sorted(_exposed(status, record))
    view: dict[str, Any] = {f"{n}/{p}": None for n, p in exposed}
    for (number, protocol), places in sorted(published.items()):
        view[f"{number}/{protocol}"] = [
            {"HostIp": address, "HostPort": str(port or "")} for address, port in places
        ]
    return view


def port_list(status: ContainerStatus, record: ContainerRecord) -> list[dict[str, Any]]:
    """Ports of a line of `docker ps`."""
    if joined(status) is None or _is_inner(status):
        return []
    published = _published(status)
    view: list[dict[str, Any]] = [
        {"PrivatePort": number, "Type": protocol}
        for number, protocol in sorted(_exposed(status, record) - set(published))
    ]
    for (number, protocol), places in sorted(published.items()):
        view += [
            {"IP": address, "PrivatePort": number, "PublicPort": port, "Type": protocol}
            for address, port in places
            if port
        ]
    return view


def network_view(
    network: Network,
    record: NetworkRecord | None,
    members: Iterable[tuple[str, str, Endpoint]] | None,
    version: tuple[int, int],
) -> dict[str, Any]:
    """A network; `members` (container id, name, endpoint) None for a list, which shows none."""
    body = record.body if record else {}
    ipam = body.get("IPAM") or {}
    options = dict(body.get("Options") or network.options)
    if network.name == "bridge":
        options = {**_OF_THE_DEFAULT, **options}
    view: dict[str, Any] = {
        "Name": network.name,
        "Id": network.id,
        "Created": moment_text(network.created),
        "Scope": "local",
        "Driver": "null" if network.driver == "none" else network.driver,
        "EnableIPv4": network.ipv4,
        "EnableIPv6": network.ipv6,
        "IPAM": {
            "Driver": ipam.get("Driver") or "default",
            "Options": ipam.get("Options"),
            "Config": [
                _subnet(s.subnet, s.gateway, s.ip_range, s.reserved) for s in network.subnets
            ]
            or None,
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": made_from(record)},
        "ConfigOnly": is_configuration(record),
        "Containers": {},
        "Options": options,
        "Labels": dict(network.labels),
    }
    if version < (1, 48):
        del view["EnableIPv4"]
    for id_, name, endpoint in members or ():
        view["Containers"][id_] = _member(id_, name, network.id, endpoint)
    return view


def _subnet(
    subnet: str, gateway: str, ip_range: str, reserved: tuple[tuple[str, str], ...]
) -> dict[str, Any]:
    view: dict[str, Any] = {"Subnet": subnet}
    if ip_range:
        view["IPRange"] = ip_range
    if gateway:
        view["Gateway"] = gateway
    if reserved:
        view["AuxiliaryAddresses"] = dict(reserved)
    return view


def _member(id_: str, name: str, network: str, endpoint: Endpoint) -> dict[str, Any]:
    ipv4 = f"{endpoint.ipv4}/{endpoint.ipv4_prefix}" if endpoint.ipv4 else ""
    ipv6 = f"{endpoint.ipv6}/{endpoint.ipv6_prefix}" if endpoint.ipv6 else ""
    return {
        "Name": name,
        "EndpointID": endpoint_id(id_, network),
        "MacAddress": endpoint.mac,
        "IPv4Address": ipv4,
        "IPv6Address": ipv6,
    }
