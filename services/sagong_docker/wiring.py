"""Networks, ports and names of a create body as the node's sandbox. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from sagong.contracts.network import Attachment, JoinRequest, PortMapping
from sagong.errors import InvalidArgument
from sagong_docker.body import CreateBody, EndpointSettings, HostConfig, PortBinding

__all__ = [
    "attachment",
    "attachments",
    "exposed",
    "hosts",
    "join",
    "joining_mode",
    "main_network",
    "mode_of",
    "ports",
]

_PROTOCOLS = frozenset(("tcp", "udp", "sctp"))
_IFNAME = "com.docker.network.endpoint.ifname"
_SYSCTLS = "com.docker.network.endpoint.sysctls"
_RANGE = re.compile(r"(\d+)(?:-(\d+))?\Z")
NetworkId = Callable[[str], str]


def mode_of(host: HostConfig) -> str:
    """The network mode: none, host, container:X, or a network's name."""
    return host.network_mode if host.network_mode not in ("", "default") else "bridge"


def main_network(host: HostConfig, default: str) -> str:
    """The network that the mode means, by name or id; `default` is the one of who names none."""
    mode = mode_of(host)
    return default if mode == "bridge" else mode


def joining_mode(host: HostConfig, default: str) -> str:
    """The mode that a container joins in: who names no network has none where `default` is none."""
    mode = mode_of(host)
    return "none" if (mode, default) == ("bridge", "none") else mode


def exposed(port: str) -> tuple[int, int, str]:
    """First, last and protocol of `80/tcp`, `53/udp`, `8000-8010`."""
    numbers, _, protocol = port.partition("/")
    protocol = (protocol or "tcp").lower()
    found = _RANGE.match(numbers)
    if found is None:
        raise InvalidArgument(f'invalid port specification: "{numbers}"')
    if protocol not in _PROTOCOLS:
        raise InvalidArgument(f'invalid port specification: "{port}"')
    first = int(found[1])
    last = int(found[2] or first)
    if not 0 < first <= last <= 65535:
        raise InvalidArgument(f'invalid port specification: "{port}"')
    return first, last, protocol


def ports(
    host: HostConfig, all_exposed: Iterable[str], taken: set[tuple[int, str]]
) -> tuple[PortMapping, ...]:
    """Published ports; with `-P` every exposed one that is not bound gets a free port."""
    found: list[PortMapping] = []
    bound = host.port_bindings or {}
    for port, bindings in bound.items():
        first, last, protocol = exposed(port)
        for offset, number in enumerate(range(first, last + 1)):
            for binding in bindings or (PortBinding(),):
                found.append(_mapping(number, protocol, binding, offset, taken))
    if host.publish_all_ports:
        mapped = {(m.container_port, m.protocol) for m in found}
        for port in all_exposed:
            first, last, protocol = exposed(port)
            for number in range(first, last + 1):
                if (number, protocol) not in mapped:
                    found.append(PortMapping(container_port=number, protocol=protocol))
    return tuple(found)


def _mapping(
    number: int, protocol: str, binding: PortBinding, offset: int, taken: set[tuple[int, str]]
) -> PortMapping:
    _check_address(binding.host_ip)
    return PortMapping(
        container_port=number,
        protocol=protocol,
        host_ip=binding.host_ip,
        host_port=_host_port(str(binding.host_port), protocol, offset, taken),
    )


def _host_port(text: str, protocol: str, offset: int, taken: set[tuple[int, str]]) -> int:
    if text in ("", "0"):
        return 0
    found = _RANGE.match(text)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if not first <= last <= 65535:
        raise InvalidArgument(f'invalid port specification: "{text}"')
    if first == last:
        return first + offset
    for port in range(first, last + 1):
        if (port, protocol) not in taken:
            taken.add((port, protocol))
            return port
    raise InvalidArgument(f"all ports of {text} are allocated")


def _check_address(text: str) -> None:
    if text:
        try:
            ipaddress.ip_address(text)
        except ValueError:
            raise InvalidArgument(f"invalid IP address in add-port: {text}") from None


def own_names(id: str, hostname: str) -> tuple[str, ...]:
    """What a container answers to besides its name and what it was called on a network."""
    return (id[:12], hostname) if hostname else (id[:12],)


def attachment(network: str, settings: EndpointSettings, aliases: Iterable[str] = ()) -> Attachment:
    """One network's place."""
    ipam, options = settings.ipam, settings.driver_opts or {}
    ipv4 = ipam.i_pv4_address if ipam else ""
    ipv6 = ipam.i_pv6_address if ipam else ""
    for address in (ipv4, ipv6):
        _check_address(address)
    own = (ipam.link_local_ips if ipam else None) or ()
    return Attachment(
        network=network,
        ipv4=ipv4,
        ipv6=ipv6,
        mac=settings.mac_address,
        aliases=tuple(dict.fromkeys((*(settings.aliases or ()), *aliases))),
        priority=settings.gw_priority,
        links=links(settings.links),
        interface=options.get(_IFNAME, ""),
        sysctls=_sysctls(options.get(_SYSCTLS, "")),
        link_locals=tuple(own),
    )


def _sysctls(text: str) -> tuple[tuple[str, str], ...]:
    """`NAME=VALUE,NAME=VALUE`, in whose names IFNAME stands for the interface."""
    found = []
    for part in text.split(",") if text else ():
        name, equals, value = part.partition("=")
        if not equals:
            raise InvalidArgument(f"invalid sysctl '{part}' in option {_SYSCTLS}: write NAME=VALUE")
        # `docker run --network` of the command line makes all of it lower case.
        found.append((name.strip().replace(".ifname.", ".IFNAME."), value.strip()))
    return tuple(found)


def links(texts: Iterable[str] | None) -> tuple[tuple[str, str], ...]:
    """`NAME:ALIAS` of --link as the network wants them: (alias, name)."""
    parts = (text.partition(":") for text in texts or ())
    return tuple((alias or name, name) for name, _, alias in parts)


def attachments(
    body: CreateBody, host: HostConfig, id: str, resolve: NetworkId
) -> tuple[Attachment, ...]:
    """All networks of the body; the one of the network mode is first, if it is named or the only one.

    Every container answers to its short id and to its hostname, as in Docker.
    """
    config = body.networking_config
    given: dict[str, EndpointSettings] = {}
    for name, settings in ((config.endpoints_config if config else None) or {}).items():
        network = resolve("bridge" if name == "default" else name)
        given[network] = settings or EndpointSettings()
    main = resolve(mode_of(host))
    order = [*([main] if main in given or not given else ()), *(n for n in given if n != main)]
    found = []
    for network in order:
        settings = given.get(network, EndpointSettings())
        made = attachment(network, settings, own_names(id, body.hostname))
        if network == main:
            made = msgspec.structs.replace(made, links=(*made.links, *links(host.links)))
        if network == main and body.mac_address and not made.mac:
            made = msgspec.structs.replace(made, mac=body.mac_address)
        found.append(made)
    return tuple(found)


def join(
    id: str,
    name: str,
    mode: str,
    *,
    places: tuple[Attachment, ...] = (),
    published: tuple[PortMapping, ...] = (),
    sysctls: Mapping[str, str] | None = None,
    nameservers: tuple[str, ...] = (),
) -> JoinRequest:
    """What the network is asked for."""
    kind = mode if mode in ("none", "host") else "networks"
    return JoinRequest(
        id=id,
        mode=kind,
        attachments=places if kind == "networks" else (),
        ports=published if kind == "networks" else (),
        names=(name,),
        sysctls=tuple((k, v) for k, v in (sysctls or {}).items() if k.startswith("net.")),
        nameservers=nameservers,
    )


def hosts(
    host: HostConfig, links: Iterable[tuple[str, str]], gateways: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    """Further lines of /etc/hosts: --add-host and --link; `gateways` are host-gateway's addresses."""
    found = list(links)
    for text in host.extra_hosts or ():
        name, separator, address = text.partition("=" if "=" in text else ":")
        address = address.strip("[]")
        if not separator or not name:
            raise InvalidArgument(f'bad format for add-host: "{text}"')
        if address == "host-gateway":
            if not gateways:
                raise InvalidArgument("unable to derive the IP value for host-gateway")
            found += [(each, name) for each in gateways]
            continue
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise InvalidArgument(f'invalid IP address in add-host: "{address}"') from None
        found.append((address, name))
    return tuple(found)
