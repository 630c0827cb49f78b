"""What a join means, worked out before anything is touched: addresses, ports, routes. Pure.

A `Draft` holds reservations in the tables of addresses and ports; `release` gives all back.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator

from msgspec.structs import replace

from sagong.contracts.network import (
    Attachment,
    Endpoint,
    JoinRequest,
    PortMapping,
    Sandbox,
    UserNamespace,
)
from sagong.errors import InvalidArgument
from sagong_network_bridge.addresses import AddressRange, hardware_address
from sagong_network_bridge.elements import Publication, address_bytes, front_key, published
from sagong_network_bridge.interior import Ranks, gateway_endpoints
from sagong_network_bridge.networks import Networks
from sagong_network_bridge.ports import Ports, check_mapping
from sagong_network_bridge.services import Piece

__all__ = [
    "Draft",
    "check_attachment",
    "check_request",
    "interface_sysctls",
    "is_published",
    "pieces_of",
    "routed_versions",
]

_NO_IPV6 = "net.ipv6.conf.all.disable_ipv6"
Routed = Callable[[str, int], bool]
# The set that lets others reach what is published at a sandbox's own address; "" where nothing does.
Direct = Callable[[str, int], str]
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_MOST_LINES, _MOST_IDS = 340, (1 << 32) - 1
_INTERFACE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,14}")
_OF_INTERFACE = re.compile(r"net\.(ipv4|ipv6|mpls)\.[a-z]+\.IFNAME\.[a-z0-9_]+")
_SYSCTL = re.compile(r"net(\.|/)[A-Za-z0-9_.:/-]+")


def check_request(request: JoinRequest) -> None:
    """Refuse what can't be, before anything is reserved."""
    if not request.id or len(request.id) > 255:
        raise InvalidArgument("a sandbox needs an id of 1 to 255 characters")
    if request.mode not in ("networks", "none", "host"):
        raise InvalidArgument(f"mode {request.mode!r}: networks, none or host")
    if request.mode != "networks" and request.attachments:
        raise InvalidArgument(f"mode {request.mode} has no networks; leave attachments out")
    if request.user_namespace is not None:
        _check_user_namespace(request.user_namespace, request.mode)
    for mapping in request.ports:
        check_mapping(mapping)
    for attachment in request.attachments:
        check_attachment(attachment)
    for address in request.nameservers:
        _check_address(address, "nameserver")
    for name, value in request.sysctls:
        if request.mode == "host":
            raise InvalidArgument(f"sysctl {name}: not allowed with the machine's own network")
        if not _SYSCTL.fullmatch(name) or ".." in name or "\n" in value:
            raise InvalidArgument(f"sysctl {name!r}: only net.… belongs to a network namespace")
    if request.ingress_bps < 0 or request.egress_bps < 0:
        raise InvalidArgument("bandwidth limits are bits a second, 0 for none")


def _check_user_namespace(wanted: UserNamespace, mode: str) -> None:
    if mode == "host":
        raise InvalidArgument("user_namespace: the machine's own network can't be owned by it")
    for name, lines in (("uid_map", wanted.uid_map), ("gid_map", wanted.gid_map)):
        if not 1 <= len(lines) <= _MOST_LINES:
            raise InvalidArgument(f"user_namespace.{name}: 1 to {_MOST_LINES} lines")
        for inside, outside, count in lines:
            if min(inside, outside) < 0 or count < 1 or max(inside, outside) + count > _MOST_IDS:
                raise InvalidArgument(
                    f"user_namespace.{name}: ({inside}, {outside}, {count}) is no range of ids"
                )


def _check_address(text: str, what: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise InvalidArgument(f"{what} {text!r} is not an IP address") from None


def check_attachment(attachment: Attachment) -> None:
    """Refuse what can't be of an interface, by name."""
    for address in attachment.link_locals:
        _check_address(address, "link-local address")
        if not ipaddress.ip_address(address).is_link_local:
            raise InvalidArgument(f"link-local address {address}: 169.254.0.0/16 or fe80::/10")
    name = attachment.interface
    if name and (not _INTERFACE.fullmatch(name) or name == "lo"):
        raise InvalidArgument(
            f"interface name {name!r}: 1 to 15 letters, digits, - and _, a letter first, and not lo"
        )
    for key, value in attachment.sysctls:
        if not _OF_INTERFACE.fullmatch(key) or "\n" in value:
            raise InvalidArgument(
                f"sysctl {key!r} of an interface: write net.ipv4.conf.IFNAME.NAME=VALUE, also ipv6, "
                "mpls and neigh"
            )


def interface_sysctls(
    attachments: Iterable[Attachment], endpoints: Iterable[Endpoint]
) -> tuple[tuple[str, str], ...]:
    """Settings of interfaces, with their names in them."""
    names = {endpoint.network: endpoint.interface for endpoint in endpoints}
    return tuple(
        (key.replace("IFNAME", names[attachment.network]), value)
        for attachment in attachments
        if attachment.network in names
        for key, value in attachment.sysctls
    )


def has_no_ipv6(request: JoinRequest) -> bool:
    """Whether a sandbox switches IPv6 off: it could not have the addresses that others are told of."""
    return dict(request.sysctls).get(_NO_IPV6) == "1"


class Draft:
    """A sandbox being put together."""

    def __init__(self, request: JoinRequest, networks: Networks, ports: Ports) -> None:
        self._identity = request.id
        self._six = not has_no_ipv6(request)
        self._networks = networks
        self._ports = ports
        self.endpoints: list[Endpoint] = []
        self.mappings: list[PortMapping] = []

    def attach(self, attachment: Attachment, interface: str) -> Endpoint:
        """Take addresses on a network."""
        record = self._networks.get(attachment.network)
        network = record.network
        if any(endpoint.network == network.id for endpoint in self.endpoints):
            raise InvalidArgument(f"network {network.name} is named twice")
        if attachment.mac and not _MAC.fullmatch(attachment.mac):
            raise InvalidArgument(f"hardware address {attachment.mac!r}: write 02:42:ac:11:00:02")
        endpoint = Endpoint(
            network=network.id,
            interface=interface,
            mac="",
            aliases=attachment.aliases,
            link_locals=attachment.link_locals,
        )
        self.endpoints.append(endpoint)
        for range_ in self._networks.ranges(network.id):
            if range_.version == 6 and not self._six:
                continue
            endpoint = self._addressed(endpoint, range_, attachment, internal=network.internal)
            self.endpoints[-1] = endpoint
        wanted = {4: attachment.ipv4, 6: attachment.ipv6}
        for version, address in wanted.items():
            if address and not getattr(endpoint, f"ipv{version}"):
                raise InvalidArgument(f"network {network.name} has no IPv{version} subnet")
        lower = self._networks.lower(network.id)
        own = lower is None or lower.own_mac
        if attachment.mac and not own:
            raise InvalidArgument(
                f"hardware address {attachment.mac}: those of {network.driver} are their parent's"
            )
        mac = attachment.mac.lower() or hardware_address(endpoint.ipv4 or endpoint.ipv6)
        mac = mac if own else ""
        self.endpoints[-1] = endpoint = replace(endpoint, mac=mac)
        return endpoint

    def _addressed(
        self, endpoint: Endpoint, range_: AddressRange, attachment: Attachment, *, internal: bool
    ) -> Endpoint:
        wanted = attachment.ipv4 if range_.version == 4 else attachment.ipv6
        if wanted:
            address = range_.reserve(wanted.partition("/")[0], self._identity)
        else:
            address = range_.allocate(self._identity)
        lower = self._networks.lower(endpoint.network)
        gateway = "" if internal else range_.gateway
        if gateway and lower is not None and lower.on_link:
            gateway = "0.0.0.0" if range_.version == 4 else "::"
        prefix = range_.space.prefixlen
        if range_.version == 4:
            return replace(endpoint, ipv4=address, ipv4_prefix=prefix, gateway4=gateway)
        return replace(endpoint, ipv6=address, ipv6_prefix=prefix, gateway6=gateway)

    def publish(self, mappings: Iterable[PortMapping], endpoints: Iterable[Endpoint]) -> None:
        """Take ports of the host, at the addresses that the networks say where none is named."""
        where = self._networks.host_ip(endpoint.network for endpoint in endpoints)
        for mapping in mappings:
            wanted = mapping if mapping.host_ip else replace(mapping, host_ip=where)
            self.mappings.append(self._ports.take(wanted, self._identity))

    def withdraw(self) -> None:
        """Give back what an attachment has taken that failed."""
        release_addresses(self.endpoints.pop(), self._identity, self._networks)

    def release(self) -> None:
        """Give back all that was taken."""
        for endpoint in self.endpoints:
            release_addresses(endpoint, self._identity, self._networks)
        for mapping in self.mappings:
            self._ports.release(mapping, self._identity)


def is_published(networks: Networks, request: JoinRequest, endpoints: tuple[Endpoint, ...]) -> bool:
    """Whether ports lead to a sandbox: a default route of it goes by a bridge of the machine."""
    ways = gateway_endpoints(endpoints, networks.ranks(request))
    return any(way is not None and networks.is_bridged(way.network) for way in ways)


def routed_versions(
    networks: Networks, request: JoinRequest, endpoints: tuple[Endpoint, ...]
) -> tuple[int, ...]:
    """Versions of IP in which ports are reached at the sandbox's own address."""
    ways = gateway_endpoints(endpoints, networks.ranks(request))
    return tuple(
        version
        for version, way in zip((4, 6), ways, strict=True)
        if way is not None and networks.is_routed(way.network, version)
    )


def release_addresses(endpoint: Endpoint, identity: str, networks: Networks) -> None:
    """Free an endpoint's addresses; its network may be gone."""
    for range_ in networks.ranges(endpoint.network):
        address = endpoint.ipv4 if range_.version == 4 else endpoint.ipv6
        if address:
            range_.release(address, identity)


def pieces_of(
    sandbox: Sandbox, ranks: Ranks, direct: Direct = lambda network, version: ""
) -> Iterator[Piece]:
    """What the firewall must know of a sandbox: its published ports, and that it may call itself.

    Ports lead to the endpoint that has the default route: answers leave by it. Where its network
    opens them at the sandbox's own address for everybody, nothing leads there.
    """
    by4, by6 = gateway_endpoints(sandbox.endpoints, ranks)
    for endpoint, address in ((by4, by4.ipv4 if by4 else ""), (by6, by6.ipv6 if by6 else "")):
        if endpoint is None or not sandbox.ports:
            continue
        version = 6 if ":" in address else 4
        packed = address_bytes(address)
        yield Piece(f"hairpin{version}", packed + packed, b"")
        for mapping in sandbox.ports:
            if mapping.host_ip and (":" in mapping.host_ip) != (version == 6):
                continue
            if way := direct(endpoint.network, version):
                key = front_key(address, mapping.protocol, mapping.container_port)
                yield Piece(f"{way}{version}", key, b"")
            if way == "opened":
                continue
            anywhere = mapping.host_ip in ("", "0.0.0.0", "::")
            publication = Publication(
                mapping.protocol,
                "" if anywhere else mapping.host_ip,
                mapping.host_port,
                address,
                mapping.container_port,
            )
            yield from (Piece(*piece) for piece in published(publication))
