"""What pools of networks must be, in Docker's words. Pure.

What overlaps with others, and what a driver can do, is the network plugin's to say.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sagong.errors import InvalidArgument

__all__ = ["check_pools"]

_Pool = ipaddress.IPv4Network | ipaddress.IPv6Network


def check_pools(configs: Iterable[Mapping[str, Any]]) -> None:
    """Refuse what `IPAM.Config` of a new network must not say."""
    wrong = [complaint for config in configs for complaint in _of_pool(config or {})]
    if wrong:
        raise InvalidArgument("invalid network config:\n" + "\n".join(wrong))


def _of_pool(config: Mapping[str, Any]) -> Iterator[str]:
    text = str(config.get("Subnet") or "")
    if not text:
        return
    subnet = _network(text)
    if subnet is None:
        yield f"invalid subnet {text}: invalid CIDR block notation"
        return
    if str(ipaddress.ip_interface(text).ip) != str(subnet.network_address):
        yield f"invalid subnet {text}: it should be {subnet}"
    if span := str(config.get("IPRange") or ""):
        yield from _of_range(span, subnet)
    if gateway := str(config.get("Gateway") or ""):
        yield from _of_address("gateway", gateway, subnet)
    others = config.get("AuxiliaryAddresses") or config.get("AuxAddress") or {}
    for address in others.values():
        yield from _of_address("auxiliary address", str(address), subnet)


def _network(text: str) -> _Pool | None:
    try:
        return ipaddress.ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        return None


def _of_range(text: str, subnet: _Pool) -> Iterator[str]:
    span = _network(text)
    if span is None:
        yield f"invalid ip-range {text}: invalid CIDR block notation"
    elif span.version != subnet.version:
        yield f"invalid ip-range {text}: parent subnet is an IPv{subnet.version} block"
    elif str(ipaddress.ip_interface(text).ip) != str(span.network_address):
        yield f"invalid ip-range {text}: it should be {span}"
    elif span.prefixlen < subnet.prefixlen:
        yield f"invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}"
    elif not span.overlaps(subnet):
        yield f"invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range"


def _of_address(what: str, text: str, subnet: _Pool) -> Iterator[str]:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        yield f"invalid {what} {text}: invalid address"
        return
    if address.version != subnet.version:
        yield f"invalid {what} {text}: parent subnet is an IPv{subnet.version} block"
    elif address not in subnet:
        yield f"invalid {what} {text}: parent subnet {subnet} doesn't contain this address"
