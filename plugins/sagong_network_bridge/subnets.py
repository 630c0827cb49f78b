"""Networks as asked for → as they are: checked, named, with free subnets. Pure."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from sagong.contracts.network import Network, Subnet
from sagong.errors import Conflict, InvalidArgument, ResourceExhausted
from sagong_network_bridge.addresses import AddressRange, Space, space_of
from sagong_network_bridge.parents import ON_PARENTS, check_parent
from sagong_network_bridge.settings import Settings

__all__ = [
    "ENDS",
    "INHIBIT",
    "INNER",
    "MASQUERADE",
    "bridge_name",
    "complete",
    "default_networks",
    "flag",
    "gateway_mode",
    "host_address",
    "option",
    "overlapping",
    "private_pool6",
    "range_of",
    "trusted",
]

# Networks that exist from the start, by driver.
ENDS = ("host", "null")
_ID = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[^\x00-\x1f\x7f/]{1,255}")
_HOST_ADDRESS = "com.docker.network.host_ipv"
_BINDING = "com.docker.network.bridge.host_binding_ipv4"
_GATEWAY_MODE = "com.docker.network.bridge.gateway_mode_ipv"
_GATEWAY_MODES = ("nat", "nat-unprotected", "routed", "isolated")
_BRIDGE_NAME = "com.docker.network.bridge.name"
_TRUSTED = "com.docker.network.bridge.trusted_host_interfaces"
INHIBIT = "com.docker.network.bridge.inhibit_ipv4"
INNER = "com.docker.network.bridge.enable_icc"
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
# As people write them for programs in Go.
_FLAGS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}


def option(network: Network, name: str, default: str = "") -> str:
    """One of a network's options."""
    return dict(network.options).get(name, default)


def flag(network: Network, name: str, *, default: bool) -> bool:
    """An option that is on or off."""
    text = option(network, name)
    if text and text not in _FLAGS:
        raise InvalidArgument(f"option {name}={text}: true or false")
    return _FLAGS.get(text, default)


def gateway_mode(network: Network, version: int) -> str:
    """How a bridge network is reached and leaves, as Docker calls it: nat, routed…"""
    return option(network, f"{_GATEWAY_MODE}{version}") or "nat"


def host_address(network: Network, version: int) -> str:
    """The machine's address that a network's containers leave with; "" is that of the way."""
    return option(network, f"{_HOST_ADDRESS}{version}")


def trusted(network: Network) -> tuple[str, ...]:
    """The machine's interfaces by which others reach what is published at its own address."""
    return tuple(name for name in option(network, _TRUSTED).split(":") if name)


def default_id(name: str) -> str:
    """The id of a network that exists from the start: the same everywhere and always."""
    return hashlib.sha256(f"sagong network {name}".encode()).hexdigest()


def default_networks(settings: Settings) -> tuple[Network, ...]:
    """`bridge`, `host` and `none`, as they are asked for."""
    subnets = tuple(Subnet(subnet=text) for text in (settings.subnet, settings.subnet6) if text)
    bridge = Network(
        id=default_id("bridge"),
        name="bridge",
        subnets=subnets,
        ipv6=bool(settings.subnet6),
        options=((_BRIDGE_NAME, settings.default_bridge),),
        created=1.0,
    )
    ends = (
        Network(id=default_id(name), name=name, driver=driver, created=1.0)
        for name, driver in (("host", "host"), ("none", "null"))
    )
    return bridge, *ends


def bridge_name(network: Network, settings: Settings) -> str:
    """The bridge's interface; a given name must fit."""
    name = option(network, _BRIDGE_NAME)
    if not name:
        return settings.bridge_of(network.id)
    if len(name.encode()) > 15 or not re.fullmatch(r"[^/\s:]+", name) or name in (".", ".."):
        raise InvalidArgument(f"bridge name {name!r}: at most 15 bytes, no space, slash or colon")
    return name


def private_pool6(machine: str) -> str:
    """A private /48 of RFC 4193 for this machine."""
    digest = hashlib.sha256(f"sagong {machine}".encode()).digest()
    return str(ipaddress.IPv6Network((b"\xfd" + digest[:5] + bytes(10), 48)))


def complete(
    network: Network, settings: Settings, taken: Iterable[Space], routed: Iterable[Space] = ()
) -> Network:
    """Check a network and give it the subnets it lacks.

    `taken` are other networks': nobody gets those. `routed` are the machine's: who names one knows why,
    but none is chosen that would cut them off.
    """
    _check(network)
    network = _without_an_option(network)
    bridge_name(network, settings)
    spaces, routed = list(taken), list(routed)
    subnets = [_given(network, subnet, spaces) for subnet in network.subnets]
    versions = [AddressRange(subnet).version for subnet in subnets]
    wanted = [4] if network.ipv4 else []
    wanted += [6] if network.ipv6 else []
    for version in wanted:
        if version not in versions:
            chosen = _free(_pools(settings, version), [*spaces, *routed], version)
            subnets.append(_given(network, Subnet(subnet=str(chosen)), spaces))
            versions.append(version)
    if len(versions) != len(set(versions)):
        raise InvalidArgument("a network has at most one IPv4 and one IPv6 subnet")
    if not versions:
        raise InvalidArgument("a network needs an IPv4 or an IPv6 subnet")
    # As people read them, and programs that take the first one: IPv4, then IPv6.
    ordered = sorted(subnets, key=lambda subnet: AddressRange(subnet).version)
    return replace(network, subnets=tuple(ordered), ipv4=4 in versions, ipv6=6 in versions)


def _without_an_option(network: Network) -> Network:
    """What Docker's clients also say by an option."""
    if option(network, "com.docker.network.enable_ipv4").lower() == "false":
        return replace(network, ipv4=False)
    return network


def _check(network: Network) -> None:
    if not _ID.fullmatch(network.id):
        raise InvalidArgument(f"network id {network.id!r}: 64 hexadecimal digits")
    if not _NAME.fullmatch(network.name) or not network.name.strip():
        raise InvalidArgument(
            f"network name {network.name!r}: 1 to 255 characters, no slash, nothing unprintable"
        )
    binding = option(network, _BINDING)
    if binding and not _is_address(binding):
        raise InvalidArgument(f"option {_BINDING}={binding}: an IP address")
    for name in trusted(network):
        if len(name.encode()) > 15:
            raise InvalidArgument(f"option {_TRUSTED}: no interface is called {name}")
    for name in (INHIBIT, INNER, MASQUERADE):
        flag(network, name, default=True)
    for version in (4, 6):
        _check_gateway_mode(network, version)
        _check_host_address(network, version)
    if network.driver in ON_PARENTS:
        check_parent(network)
    elif network.driver != "bridge":
        raise InvalidArgument(
            f"network driver {network.driver!r} is not known here; use bridge, macvlan or ipvlan "
            "(one host and one null network exist already)"
        )


def _check_gateway_mode(network: Network, version: int) -> None:
    mode = gateway_mode(network, version)
    key = f"{_GATEWAY_MODE}{version}"
    if mode not in _GATEWAY_MODES:
        raise InvalidArgument(f"option {key}={mode}: one of {', '.join(_GATEWAY_MODES)}")
    if mode == "isolated" and not network.internal:
        raise InvalidArgument(f"option {key}={mode}: only internal networks can be isolated so")


def _check_host_address(network: Network, version: int) -> None:
    text = host_address(network, version)
    if text and (not _is_address(text) or ipaddress.ip_address(text).version != version):
        raise InvalidArgument(f"option {_HOST_ADDRESS}{version}={text}: an IPv{version} address")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def range_of(network: Network, subnet: Subnet) -> AddressRange:
    """A subnet's addresses. On an internal network that the machine is not on nobody leads out."""
    version = space_of(subnet.subnet).version
    alone = gateway_mode(network, version) == "isolated"
    alone = alone or (version == 4 and flag(network, INHIBIT, default=False))
    return AddressRange(subnet, headed=not (network.internal and alone))


def _given(network: Network, subnet: Subnet, spaces: list[Space]) -> Subnet:
    """Take a subnet; Conflict names what it overlaps with."""
    filled = replace(subnet, gateway=range_of(network, subnet).gateway)
    space = space_of(subnet.subnet)
    if space.version == 6 and space.is_link_local:
        return filled  # each link has the same
    clash = overlapping(space, spaces)
    if clash is not None:
        raise Conflict(f"subnet {space} overlaps with {clash}, which is in use")
    spaces.append(space)
    return filled


def overlapping(space: Space, spaces: Iterable[Space]) -> Space | None:
    """The first of the spaces that shares an address with this one."""
    for other in spaces:
        if other.version == space.version and space.overlaps(other):
            return other
    return None


def _pools(settings: Settings, version: int) -> Iterator[Space]:
    if version == 4:
        yield from map(space_of, settings.pools)
        return
    pool = ipaddress.IPv6Network(settings.pool6)
    if pool.prefixlen >= 64:
        yield pool
        return
    for number in range(min(1 << (64 - pool.prefixlen), 1 << 16)):
        yield ipaddress.IPv6Network((int(pool.network_address) + (number << 64), 64))


def _free(pools: Iterable[Space], spaces: list[Space], version: int) -> Space:
    for pool in pools:
        if pool.version == version and overlapping(pool, spaces) is None:
            return pool
    raise ResourceExhausted(
        f"all predefined address pools have been fully subnetted: no IPv{version} subnet is free; "
        "remove networks, give a subnet, or widen `pools`"
    )
