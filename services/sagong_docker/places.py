"""What a container may ask of its place on a network, in Docker's words. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator

from sagong.contracts.network import Network
from sagong.errors import InvalidArgument
from sagong_docker.body import EndpointSettings
from sagong_docker.network_body import PREDEFINED
from sagong_docker.record import NetworkRecord

__all__ = ["check_mac", "check_place", "chosen_pools"]

_MAC = re.compile(r"[0-9a-fA-F]{2}(([:-])[0-9a-fA-F]{2})(\2[0-9a-fA-F]{2}){4}\Z")


def check_mac(network: str, address: str) -> None:
    """Refuse what is no address of an interface."""
    if address and not _MAC.match(address):
        raise InvalidArgument(
            f"invalid config for network {network}: invalid MAC address {address}"
        )


def chosen_pools(network: Network, record: NetworkRecord | None) -> tuple[str, ...]:
    """Subnets that a network's create body names; all of one that no body made but the predefined.

    Those that were found for it may be others when it is made anew, so nobody may count on them.
    """
    if record is None:
        return () if network.name in PREDEFINED else tuple(p.subnet for p in network.subnets)
    configs = (record.body.get("IPAM") or {}).get("Config") or ()
    return tuple(str(config["Subnet"]) for config in configs if config and config.get("Subnet"))


def check_place(name: str, settings: EndpointSettings, pools: Iterable[str], where: str) -> None:
    """Refuse what the network of this name can't give; `where` begins the text.

    `pools`: subnets that somebody chose, from which addresses can be asked for.
    """
    wrong = [*_on_predefined(settings)] if name in PREDEFINED else []
    given = settings.ipam
    if given is not None:
        asked = ((4, given.i_pv4_address), (6, given.i_pv6_address))
        wrong += [f"invalid IPv{n} address: {text}" for n, text in asked if not _fits(n, text)]
        wrong += _of_link_locals(given.link_local_ips or ())
        chosen = [ipaddress.ip_network(pool, strict=False) for pool in pools]
        for version, text in asked:
            wrong += _of_pools(version, text, [p for p in chosen if p.version == version])
    if wrong:
        said = "\n".join(wrong if len(wrong) == 1 else [f"* {one}" for one in wrong])
        raise InvalidArgument(f"{where}invalid endpoint settings:\n{said}")


def _on_predefined(settings: EndpointSettings) -> Iterator[str]:
    if settings.ipam and (settings.ipam.i_pv4_address or settings.ipam.i_pv6_address):
        yield "user specified IP address is supported on user defined networks only"
    if settings.aliases:
        yield "network-scoped aliases are only supported for user-defined networks"


def _fits(version: int, text: str) -> bool:
    if not text:
        return True
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    mapped = isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None
    return address.version == version and not mapped and not address.is_unspecified


def _of_link_locals(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        try:
            fits = ipaddress.ip_address(text).is_link_local
        except ValueError:
            fits = False
        if not fits:
            yield f"invalid link-local IP address: {text}"


def _of_pools(
    version: int, text: str, pools: list[ipaddress.IPv4Network | ipaddress.IPv6Network]
) -> Iterator[str]:
    if not text:
        return
    if not pools:
        yield (
            "user specified IP address is supported only when connecting to networks with user "
            "configured subnets"
        )
    elif not _fits(version, text) or not any(ipaddress.ip_address(text) in pool for pool in pools):
        yield f"no configured subnet or ip-range contain the IP address {text}"
