"""From networks and sandboxes to elements of the firewall's sets. Pure.

An `Installed` maps each set's name to its elements, key to data; `difference` of two of them is
what a transaction changes.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from sagong_network_bridge.netlink import attribute
from sagong_network_bridge.nft import Element

__all__ = [
    "PROTOCOLS",
    "Change",
    "Content",
    "address_bytes",
    "difference",
    "door_key",
    "front_key",
    "interface_name",
    "interval_elements",
    "pad",
    "published",
    "target_data",
    "value_data",
]

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1}
# Set name -> (key, whether the key ends an interval) -> data.
Content = dict[str, dict[tuple[bytes, bool], bytes]]


def pad(value: bytes) -> bytes:
    """A field of a key, filled up to whole registers."""
    return value + bytes(-len(value) % 4)


def address_bytes(address: str) -> bytes:
    """An address as it is in a packet."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def interface_name(name: str) -> bytes:
    """An interface's name as a key."""
    return name.encode().ljust(16, b"\0")


def door_key(protocol: str, port: int) -> bytes:
    """(protocol, port)."""
    return bytes([PROTOCOLS[protocol], 0, 0, 0]) + struct.pack(">HH", port, 0)


def front_key(address: str, protocol: str, port: int) -> bytes:
    """(address, protocol, port)."""
    return address_bytes(address) + door_key(protocol, port)


def target_data(address: str, port: int) -> bytes:
    """Address and port as a map's data."""
    return attribute(1, address_bytes(address) + struct.pack(">HH", port, 0))


def value_data(value: bytes) -> bytes:
    """Bytes as a map's data."""
    return attribute(1, value)


class Publication(NamedTuple):
    """A published port: where it is reached and where it goes."""

    protocol: str
    host_ip: str
    host_port: int
    target: str
    port: int


def published(publication: Publication) -> Iterator[tuple[str, bytes, bytes]]:
    """Set, key and data of a published port."""
    version = 6 if ":" in publication.target else 4
    data = target_data(publication.target, publication.port)
    if publication.host_ip:
        key = front_key(publication.host_ip, publication.protocol, publication.host_port)
        yield f"portsat{version}", key, data
    else:
        yield f"ports{version}", door_key(publication.protocol, publication.host_port), data


def interval_elements(blocks: Iterable[str], version: int) -> dict[tuple[bytes, bool], bytes]:
    """Address blocks of one IP version as the edges of intervals that neither touch nor overlap."""
    networks = [ipaddress.ip_network(block, strict=False) for block in blocks]
    spans = sorted(
        (int(net.network_address), int(net.broadcast_address))
        for net in networks
        if net.version == version
    )
    merged: list[list[int]] = []
    for first, last in spans:
        if merged and first <= merged[-1][1] + 1:
            merged[-1][1] = max(merged[-1][1], last)
        else:
            merged.append([first, last])
    size = 4 if version == 4 else 16
    found: dict[tuple[bytes, bool], bytes] = {}
    for first, last in merged:
        found[first.to_bytes(size, "big"), False] = b""
        if last + 1 < 1 << (8 * size):
            found[(last + 1).to_bytes(size, "big"), True] = b""
    return found


def _whole(
    mine: Mapping[tuple[bytes, bool], bytes], other: Mapping[tuple[bytes, bool], bytes]
) -> list[tuple[bytes, bool]]:
    """Both edges of my intervals that the other has not: the kernel refuses edges that overlap."""
    kept = set(_intervals(other))
    return [edge for pair in _intervals(mine) if pair not in kept for edge in pair]


def _intervals(
    edges: Mapping[tuple[bytes, bool], bytes],
) -> Iterator[tuple[tuple[bytes, bool], ...]]:
    """Edges of merged intervals by pairs; the last may reach the end of all addresses."""
    ordered = sorted(edges)
    for position, edge in enumerate(ordered):
        if not edge[1]:
            following = ordered[position + 1 : position + 2]
            yield (edge, *following) if following and following[0][1] else (edge,)


class Change(NamedTuple):
    """What leaves and what enters one set."""

    name: str
    gone: tuple[Element, ...]
    new: tuple[Element, ...]


def difference(
    before: Mapping[str, Mapping[tuple[bytes, bool], bytes]],
    after: Mapping[str, Mapping[tuple[bytes, bool], bytes]],
) -> Iterator[Change]:
    """What changes, set by set; an element with other data leaves and enters."""
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name, {}), after.get(name, {})
        gone = [k for k, data in old.items() if new.get(k) != data]
        come = [k for k, data in new.items() if old.get(k) != data]
        if any(end for _, end in (*gone, *come)):
            gone, come = _whole(old, new), _whole(new, old)
        if gone or come:
            yield Change(
                name,
                tuple(Element(key, old[key, end], end) for key, end in gone),
                tuple(Element(key, new[key, end], end) for key, end in come),
            )
