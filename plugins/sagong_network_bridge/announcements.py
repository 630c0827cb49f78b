"""Which interfaces tell their neighbours of their addresses, unasked (RFC 5227, RFC 4861 7.2.6).

Hardware addresses follow from IP addresses, so what a neighbour remembers of who had one before is
right. It is not where one was given by hand, now or last time, and on networks that are not only
ours. The kernel tells them when an interface gets its hardware address, if it is set to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from sagong.contracts.network import Endpoint
from sagong_network_bridge.addresses import hardware_address

__all__ = ["Announcements"]

_SETTINGS = (
    ("ipv4", "net.ipv4.conf.{}.arp_notify"),
    ("ipv6", "net.ipv6.conf.{}.ndisc_notify"),
)


class Announcements:
    """Who had addresses with a hardware address of his own choice."""

    def __init__(self) -> None:
        self._foreign: set[tuple[str, str]] = set()

    def left(self, endpoint: Endpoint) -> None:
        """Its addresses are given to somebody else some time."""
        if _is_chosen(endpoint):
            self._foreign |= _places(endpoint)

    def settings(
        self, endpoints: Iterable[Endpoint], outside: Callable[[str], bool]
    ) -> tuple[tuple[str, str], ...]:
        """Of those interfaces that announce themselves; `outside`: others are on a network, too."""
        found: list[tuple[str, str]] = []
        for endpoint in endpoints:
            places = _places(endpoint)
            if _is_chosen(endpoint) or self._foreign & places or outside(endpoint.network):
                found += _settings(endpoint)
            self._foreign -= places
        return tuple(found)


def _settings(endpoint: Endpoint) -> Iterator[tuple[str, str]]:
    for version, name in _SETTINGS:
        if getattr(endpoint, version):
            yield name.format(endpoint.interface), "1"


def _is_chosen(endpoint: Endpoint) -> bool:
    usual = hardware_address(endpoint.ipv4 or endpoint.ipv6)
    return bool(endpoint.mac) and endpoint.mac != usual


def _places(endpoint: Endpoint) -> set[tuple[str, str]]:
    return {(endpoint.network, a) for a in (endpoint.ipv4, endpoint.ipv6) if a}
