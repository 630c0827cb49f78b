"""Connections that the kernel remembers: forget those of datagrams whose way has changed.

A datagram flow has no end, so it would go on to a container that is gone, or past a port that has
been published since.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from typing import NamedTuple

from sagong_network_bridge.netlink import NETFILTER, Channel, Request, attribute, attributes
from sagong_network_bridge.nft import _GENERATION

__all__ = ["forget_datagrams"]

_SUBSYSTEM = 1 << 8
_GET, _DELETE = 1, 2
_UDP = 17


class Flow(NamedTuple):
    """A tracked flow: where it was sent, who answers, and its key for deletion."""

    protocol: int
    destination: str
    port: int
    answerer: str
    family: int
    key: bytes


def _flows(channel: Channel) -> Iterator[Flow]:
    for family in (socket.AF_INET, socket.AF_INET6):
        request = Request(
            _SUBSYSTEM | _GET, 0, _GENERATION.pack(family, 0, 0), "list tracked connections"
        )
        for _, payload in channel.dump(request):
            found = attributes(payload, 4)
            there, back = attributes(found.get(1, b"")), attributes(found.get(2, b""))
            address, answer = attributes(there.get(1, b"")), attributes(back.get(1, b""))
            ports = attributes(there.get(2, b""))
            number = 4 if family == socket.AF_INET6 else 2
            if number not in address or 1 not in ports:
                continue
            yield Flow(
                ports[1][0],
                socket.inet_ntop(family, address[number]),
                int.from_bytes(ports.get(3, b""), "big"),
                socket.inet_ntop(family, answer[number - 1]),
                family,
                found[1],
            )


def forget_datagrams(ports: frozenset[int], addresses: frozenset[str]) -> int:
    """Forget udp flows sent to these ports of anybody or answered from these addresses."""
    channel = Channel(NETFILTER, large=True)
    try:
        stale = [
            flow
            for flow in _flows(channel)
            if flow.protocol == _UDP and (flow.port in ports or flow.answerer in addresses)
        ]
        channel.send([_deletion(flow) for flow in stale])
        return len(stale)
    finally:
        channel.close()


def _deletion(flow: Flow) -> Request:
    payload = _GENERATION.pack(flow.family, 0, 0) + attribute(1 | 0x8000, flow.key)
    what = f"forget udp to {flow.destination}:{flow.port}"
    return Request(_SUBSYSTEM | _DELETE, 0, payload, what, (errno.ENOENT,))
