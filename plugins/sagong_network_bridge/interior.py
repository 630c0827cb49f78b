"""What is configured inside a sandbox's namespace: addresses, default routes, limits. Pure.

Interfaces are named; the kernel wants numbers, so every function takes the one that knows them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from sagong.contracts.network import Endpoint
from sagong_network_bridge import links, shaping
from sagong_network_bridge.addresses import link_local
from sagong_network_bridge.netlink import Request

__all__ = [
    "IndexOf",
    "Plan",
    "Ranks",
    "address_plan",
    "free_interface",
    "gateway_endpoints",
    "limit_plan",
    "removal_plan",
    "route_plan",
]

IndexOf = Callable[[str], int]
Plan = Callable[[IndexOf], list[Request]]
# Networks' places in the order in which the default route is given: the lowest has it.
Ranks = Mapping[str, tuple[int, str]]
_NO_RANK = (0, "")


def gateway_endpoints(
    endpoints: tuple[Endpoint, ...], ranks: Ranks
) -> tuple[Endpoint | None, Endpoint | None]:
    """Which endpoints the default routes of IPv4 and IPv6 go by."""
    ordered = sorted(endpoints, key=lambda e: ranks.get(e.network, _NO_RANK))
    by4 = next((e for e in ordered if e.gateway4), None)
    by6 = next((e for e in ordered if e.gateway6), None)
    return by4, by6


def address_plan(endpoints: tuple[Endpoint, ...]) -> Plan:
    """Addresses, up, hardware addresses: whose come last tells neighbours of all the others."""

    def plan(index_of: IndexOf) -> list[Request]:
        requests = []
        for endpoint in endpoints:
            what = endpoint.interface
            index = index_of(what)
            for address, prefix in (
                (endpoint.ipv4, endpoint.ipv4_prefix),
                (endpoint.ipv6, endpoint.ipv6_prefix),
                (link_local(endpoint.mac) if endpoint.ipv6 and endpoint.mac else "", 64),
                *((own, 64 if ":" in own else 16) for own in endpoint.link_locals),
            ):
                if address:
                    requests.append(links.add_address(index, address, prefix, what))
            requests.append(links.change_link(index, what, up=True, mac=endpoint.mac))
        return requests

    return plan


def limit_plan(endpoints: tuple[Endpoint, ...], bits_per_second: int) -> Plan:
    """What leaves the sandbox is at most so much by each interface; 0 is no limit."""

    def plan(index_of: IndexOf) -> list[Request]:
        names = (endpoint.interface for endpoint in endpoints if bits_per_second)
        return [shaping.limit(index_of(name), bits_per_second, name) for name in names]

    return plan


def removal_plan(interface: str) -> Plan:
    """An interface goes, with what it had."""

    def plan(index_of: IndexOf) -> list[Request]:
        return [links.delete_link(interface)]

    return plan


def route_plan(
    before: tuple[Endpoint, ...],
    after: tuple[Endpoint, ...],
    ranks: tuple[Ranks, Ranks],
) -> Plan:
    """The default routes of a changed set of endpoints; nothing where they stay."""
    old, new = gateway_endpoints(before, ranks[0]), gateway_endpoints(after, ranks[1])

    def plan(index_of: IndexOf) -> list[Request]:
        requests = []
        for number, target in enumerate(("0.0.0.0", "::")):
            was, becomes = old[number], new[number]
            if _way(was, number) == _way(becomes, number):
                continue
            if becomes is not None:
                where, gateway = becomes.interface, _hop(becomes, number)
                requests.append(links.add_route(index_of(where), target, 0, gateway, where))
            elif was is not None:
                where, gateway = was.interface, _hop(was, number)
                requests.append(links.delete_route(index_of(where), target, 0, gateway))
        return requests

    return plan


def _hop(endpoint: Endpoint, number: int) -> str:
    """Who is next on the way; "" where the link itself is the way."""
    _, gateway = _way(endpoint, number)
    return "" if gateway in ("0.0.0.0", "::") else gateway


def _way(endpoint: Endpoint | None, number: int) -> tuple[str, str]:
    if endpoint is None:
        return "", ""
    return endpoint.interface, endpoint.gateway6 if number else endpoint.gateway4


def free_interface(endpoints: Iterable[Endpoint], prefix: str) -> str:
    """The lowest name with this beginning that no endpoint has."""
    taken = {endpoint.interface for endpoint in endpoints}
    return next(f"{prefix}{n}" for n in range(len(taken) + 1) if f"{prefix}{n}" not in taken)
