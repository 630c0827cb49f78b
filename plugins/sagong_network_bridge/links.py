"""Interfaces, addresses and routes as requests, and what the kernel lists of them.

Bridges are made with pyroute2's messages. What every join sends is packed by hand: a
message of pyroute2 costs 40 to 140 microseconds, and there are ten of them.
"""

from __future__ import annotations

import errno
import functools
import itertools
import socket
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from sagong.contracts.network import Counters
from sagong_network_bridge.messages import message_class
from sagong_network_bridge.netlink import (
    NLM_CREATE,
    NLM_EXCL,
    NLM_REPLACE,
    Channel,
    Request,
    attribute,
    attributes,
    listed,
    nested,
)

__all__ = [
    "MAIN",
    "Link",
    "add_address",
    "add_route",
    "add_rule",
    "change_link",
    "counters_of",
    "delete_address",
    "delete_link",
    "delete_route",
    "delete_rule",
    "find_link",
    "keep_quiet",
    "link_index",
    "links_of",
    "new_bridge",
    "new_veth",
    "port_options",
    "readiness",
    "routes_in",
    "routes_of",
    "set_bridge_filter",
]

_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_NEWADDR, _DELADDR = 20, 21
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NEWRULE, _DELRULE = 32, 33
MAIN = 254
_BROADCAST = 4
_UP = 1
_NO_DAD = 0x02
_ONLINK = 4
_OPERATIONAL = 6
# IFLA_AF_SPEC, AF_INET6, IFLA_INET6_ADDR_GEN_MODE none, which pyroute2 has no field for.
_QUIET = nested(26, nested(10, attribute(8, b"\x01")))
_NUMBER = struct.Struct("=I")
# IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES. The kernel would make one of each for every processor that
# the machine might have, with objects in sysfs; a veth sends without a lock, so one is as quick.
_ONE_QUEUE = attribute(31, _NUMBER.pack(1)) + attribute(32, _NUMBER.pack(1))
# IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS: most of an answer are statistics.
_BRIEFLY = attribute(29, _NUMBER.pack(8))
_INFO = struct.Struct("=BxHiII")
_NOTHING = _INFO.pack(0, 0, 0, 0, 0)

_STATISTICS = struct.Struct("=8Q")
_COUNTED = tuple(itertools.product(("packets", "bytes", "errors", "dropped"), ("rx", "tx")))


class Link(NamedTuple):
    """An interface as the kernel lists it."""

    ifindex: int
    name: str
    alias: str
    master: int
    up: bool


@functools.cache
def _class(name: str) -> Any:
    return message_class(name)


def _encoded(values: list[tuple[str, Any]], index: int = 0) -> bytes:
    """The payload of a message; pyroute2 adds a header of its own, which is cut off."""
    message = _class("ifinfmsg")()
    message["index"] = index
    message["attrs"] = values
    message.encode()
    return bytes(message.data[16:])


def new_bridge(name: str, mtu: int = 0) -> Request:
    """A bridge without spanning tree that forwards at once."""
    data = [("IFLA_BR_FORWARD_DELAY", 0), ("IFLA_BR_STP_STATE", 0)]
    info = {"attrs": [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", {"attrs": data})]}
    values: list[tuple[str, Any]] = [("IFLA_IFNAME", name)]
    if mtu:
        values.append(("IFLA_MTU", mtu))
    payload = _encoded([*values, ("IFLA_LINKINFO", info)])
    return Request(_NEWLINK, NLM_CREATE | NLM_EXCL, payload, f"make bridge {name}")


def set_bridge_filter(name: str, index: int, *, on: bool) -> Request:
    """Let bridged packets pass the firewall's hooks, for this bridge alone."""
    data = [("IFLA_BR_NF_CALL_IPTABLES", int(on)), ("IFLA_BR_NF_CALL_IP6TABLES", int(on))]
    info = {"attrs": [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", {"attrs": data})]}
    payload = _encoded([("IFLA_LINKINFO", info)], index)
    return Request(_NEWLINK, 0, payload, f"firewall hooks of bridge {name}")


class Veth(NamedTuple):
    """A pair: the host's end on a bridge, the peer in a namespace under its final name."""

    name: str
    bridge: int
    namespace: int
    peer: str
    mtu: int = 0


def new_veth(veth: Veth) -> Request:
    """The whole pair in one message; both ends are down."""
    mtu = attribute(4, _NUMBER.pack(veth.mtu)) if veth.mtu else b""
    there = attribute(28, _NUMBER.pack(veth.namespace))
    # VETH_INFO_PEER holds a message of its own.
    peer = nested(1, _NOTHING, _named(veth.peer), there, _ONE_QUEUE, mtu)
    info = nested(18, attribute(1, b"veth\0"), nested(2, peer))
    master = attribute(10, _NUMBER.pack(veth.bridge))
    payload = _NOTHING + _named(veth.name) + master + _ONE_QUEUE + mtu + info
    return Request(_NEWLINK, NLM_CREATE | NLM_EXCL, payload, f"make interface {veth.name}")


def _named(name: str) -> bytes:
    return attribute(3, name.encode() + b"\0")


def port_options(name: str, *, isolated: bool, hairpin: bool) -> Request:
    """Bring the host's end up as a quiet bridge port: no IPv6 address of its own."""
    slave = nested(5, attribute(4, bytes([hairpin])), attribute(33, bytes([isolated])))
    info = nested(18, attribute(4, b"bridge\0"), slave)
    payload = _INFO.pack(0, 0, 0, _UP, _UP) + _named(name) + _QUIET + info
    return Request(_NEWLINK, 0, payload, f"configure bridge port {name}")


def keep_quiet(name: str) -> Request:
    """No IPv6 address of the kernel's making: it would be made of the hardware address there is."""
    payload = _NOTHING + _named(name) + _QUIET
    return Request(_SETLINK, 0, payload, f"keep {name} without an address")


def change_link(
    index: int, what: str, *, up: bool | None = None, mac: str = "", alias: str = ""
) -> Request:
    """Up or down, hardware address, alias; with index 0 of whose name is `what`."""
    change = 0 if up is None else _UP
    payload = _INFO.pack(0, 0, index, _UP if up else 0, change)
    if not index:
        payload += _named(what)
    if mac:
        payload += attribute(1, bytes.fromhex(mac.replace(":", "")))
    if alias:
        payload += attribute(20, alias.encode())
    return Request(_SETLINK, 0, payload, f"configure {what}")


def delete_link(name: str) -> Request:
    """By name; its absence is no error."""
    payload = _NOTHING + _named(name)
    return Request(_DELLINK, 0, payload, f"delete {name}", (errno.ENODEV,))


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _address(index: int, address: str, prefix: int) -> bytes:
    """Duplicates are our own bookkeeping's to avoid; detection would take a second."""
    family = _family(address)
    packed = socket.inet_pton(family, address)
    header = struct.pack("=BBBBI", family, prefix, _NO_DAD, 0, index)
    return header + attribute(1, packed) + attribute(2, packed)


def add_address(index: int, address: str, prefix: int, what: str) -> Request:
    """Give an interface an address; it may be there already."""
    payload = _address(index, address, prefix)
    if ":" not in address and prefix < 31:
        (value,) = struct.unpack("!I", socket.inet_pton(socket.AF_INET, address))
        payload += attribute(_BROADCAST, struct.pack("!I", value | 0xFFFFFFFF >> prefix))
    text = f"add address {address}/{prefix} to {what}"
    return Request(_NEWADDR, NLM_CREATE | NLM_REPLACE, payload, text)


def delete_address(index: int, address: str, prefix: int, what: str) -> Request:
    """Take an address off; its absence is no error."""
    payload = _address(index, address, prefix)
    text = f"delete address {address} of {what}"
    return Request(_DELADDR, 0, payload, text, (errno.EADDRNOTAVAIL, errno.ENODEV))


def _route(index: int, target: str, prefix: int, gateway: str, table: int) -> bytes:
    family = _family(target)
    scope = 0 if gateway else 253
    flags = _ONLINK if gateway else 0
    header = struct.pack("=BBBBBBBBI", family, prefix, 0, 0, table & 0xFF, 3, scope, 1, flags)
    payload = header + attribute(4, struct.pack("=I", index))
    if table != MAIN:
        payload += attribute(15, struct.pack("=I", table))
    if prefix:
        payload += attribute(1, socket.inet_pton(family, target))
    if gateway:
        payload += attribute(5, socket.inet_pton(family, gateway))
    return payload


def add_route(
    index: int, target: str, prefix: int, gateway: str, what: str, *, table: int = MAIN
) -> Request:
    """A route by a gateway, or (without one) over the link itself; replaces the same target's."""
    payload = _route(index, target, prefix, gateway, table)
    text = f"add route to {target}/{prefix} by {gateway or what}"
    return Request(_NEWROUTE, NLM_CREATE | NLM_REPLACE, payload, text)


def delete_route(
    index: int, target: str, prefix: int, gateway: str, *, table: int = MAIN
) -> Request:
    """Its absence is no error."""
    payload = _route(index, target, prefix, gateway, table)
    text = f"delete route to {target}/{prefix}"
    return Request(_DELROUTE, 0, payload, text, (errno.ESRCH, errno.ENODEV))


def _rule(version: int, table: int, priority: int) -> bytes:
    """For all packets: look into a table."""
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    header = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 1, 0)
    numbers = attribute(6, struct.pack("=I", priority)), attribute(15, struct.pack("=I", table))
    return header + b"".join(numbers)


def add_rule(version: int, table: int, priority: int) -> Request:
    """Have a table of routes asked, in the order of priorities; it may be so already."""
    payload = _rule(version, table, priority)
    text = f"have table {table} of IPv{version} routes asked"
    return Request(_NEWRULE, NLM_CREATE | NLM_EXCL, payload, text, (errno.EEXIST,))


def delete_rule(version: int, table: int, priority: int) -> Request:
    """Its absence, or that of all rules, is no error."""
    payload = _rule(version, table, priority)
    tolerated = (errno.ENOENT, errno.EOPNOTSUPP, errno.EAFNOSUPPORT)
    return Request(_DELRULE, 0, payload, f"have table {table} asked no more", tolerated)


def links_of(channel: Channel) -> Iterator[Link]:
    """All interfaces of the channel's namespace."""
    request = Request(_GETLINK, 0, _INFO.pack(0, 0, 0, 0, 0), "list interfaces")
    for _, payload in channel.dump(request):
        yield _link(payload)


def _link(payload: bytes) -> Link:
    _, _, index, flags, _ = _INFO.unpack_from(payload)
    found = attributes(payload, 16)
    master = struct.unpack("=I", found[10])[0] if 10 in found else 0
    name, alias = (found.get(kind, b"").rstrip(b"\0").decode() for kind in (3, 20))
    return Link(index, name, alias, master, bool(flags & _UP))


def counters_of(channel: Channel) -> Iterator[Counters]:
    """What the interfaces of the channel's namespace have received and sent."""
    request = Request(_GETLINK, 0, _INFO.pack(0, 0, 0, 0, 0), "count")
    for _, payload in channel.dump(request):
        yield counters(payload)


def counters(payload: bytes) -> Counters:
    """Of one interface: the first fields of rtnl_link_stats64, each received and sent."""
    found = attributes(payload, 16)
    numbers = _STATISTICS.unpack_from(found[23])
    fields = {f"{way}_{what}": n for (what, way), n in zip(_COUNTED, numbers, strict=True)}
    return Counters(interface=found[3].rstrip(b"\0").decode(), **fields)


def _finding(name: str) -> Request:
    """The question asked most often, so it is written by hand."""
    payload = _NOTHING + _named(name) + _BRIEFLY
    return Request(_GETLINK, 0, payload, f"find {name}", (errno.ENODEV,))


def link_index(channel: Channel, name: str) -> int:
    """The index of an interface, 0 if there is none."""
    found = find_link(channel, name)
    return found.ifindex if found else 0


def find_link(channel: Channel, name: str) -> Link | None:
    """An interface by name."""
    found = channel.ask(_finding(name))
    return _link(found[1]) if found else None


def readiness(channel: Channel, name: str) -> tuple[int, bool]:
    """The index of an interface, 0 if there is none; whether it is operational, not only up."""
    found = channel.ask(_finding(name))
    if found is None:
        return 0, False
    _, _, index, _, _ = _INFO.unpack_from(found[1])
    state = next((value for kind, value in listed(found[1], 16) if kind == 16), b"")
    return index, state == bytes([_OPERATIONAL])


def routes_of(channel: Channel) -> Iterator[str]:
    """The targets of the main table's routes, default routes left out."""
    for target, _ in routes_in(channel, MAIN):
        yield target


def routes_in(channel: Channel, wanted: int) -> Iterator[tuple[str, int]]:
    """Targets and interfaces of a table's routes, default routes left out."""
    for family, size in ((socket.AF_INET, 4), (socket.AF_INET6, 16)):
        header = struct.pack("=BBBBBBBBI", family, 0, 0, 0, MAIN, 0, 0, 0, 0)
        for _, payload in channel.dump(Request(_GETROUTE, 0, header, "list routes")):
            prefix, kind, found = payload[1], payload[7], attributes(payload, 12)
            table, index = (struct.unpack("=I", found.get(k, bytes(4)))[0] for k in (15, 4))
            target = found.get(1, b"")
            if table == wanted and kind == 1 and prefix and len(target) == size:
                yield f"{socket.inet_ntop(family, target)}/{prefix}", index
