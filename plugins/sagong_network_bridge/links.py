"""Interfaces, addresses and routes: requests built with pyroute2's messages, dumps read as bytes."""

from __future__ import annotations

import errno
import functools
import socket
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from sagong_network_bridge.messages import message_class
from sagong_network_bridge.netlink import (
    NLM_CREATE,
    NLM_EXCL,
    NLM_REPLACE,
    Channel,
    Request,
    attribute,
    attributes,
    nested,
)

__all__ = [
    "Link",
    "add_address",
    "add_route",
    "change_link",
    "delete_address",
    "delete_link",
    "delete_route",
    "is_ready",
    "link_index",
    "links_of",
    "new_bridge",
    "new_veth",
    "port_options",
    "routes_of",
    "set_bridge_filter",
]

_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_NEWADDR, _DELADDR = 20, 21
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_UP = 1
_NO_DAD = 0x02
_ONLINK = 4
_OPERATIONAL = 6
# IFLA_AF_SPEC, AF_INET6, IFLA_INET6_ADDR_GEN_MODE none, which pyroute2 has no field for.
_QUIET = nested(26, nested(10, attribute(8, b"\x01")))
_INFO = struct.Struct("=BxHiII")


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


def _encoded(name: str, fields: dict[str, Any], values: list[tuple[str, Any]]) -> bytes:
    """The payload of a message; pyroute2 adds a header of its own, which is cut off."""
    message = _class(name)()
    for key, value in fields.items():
        message[key] = value
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
    payload = _encoded("ifinfmsg", {}, [*values, ("IFLA_LINKINFO", info)])
    return Request(_NEWLINK, NLM_CREATE | NLM_EXCL, payload, f"make bridge {name}")


def set_bridge_filter(name: str, index: int, *, on: bool) -> Request:
    """Let bridged packets pass the firewall's hooks, for this bridge alone."""
    data = [("IFLA_BR_NF_CALL_IPTABLES", int(on)), ("IFLA_BR_NF_CALL_IP6TABLES", int(on))]
    info = {"attrs": [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", {"attrs": data})]}
    payload = _encoded("ifinfmsg", {"index": index}, [("IFLA_LINKINFO", info)])
    return Request(_NEWLINK, 0, payload, f"firewall hooks of bridge {name}")


class Veth(NamedTuple):
    """A pair: the host's end on a bridge, the peer in a namespace under its final name and index."""

    name: str
    bridge: int
    namespace: int
    peer: str
    peer_index: int
    mtu: int = 0


def new_veth(veth: Veth) -> Request:
    """The whole pair in one message; both ends are down."""
    inner: list[tuple[str, Any]] = [
        ("IFLA_IFNAME", veth.peer),
        ("IFLA_NET_NS_FD", veth.namespace),
    ]
    outer: list[tuple[str, Any]] = [("IFLA_IFNAME", veth.name), ("IFLA_MASTER", veth.bridge)]
    if veth.mtu:
        inner.append(("IFLA_MTU", veth.mtu))
        outer.append(("IFLA_MTU", veth.mtu))
    peer = {"index": veth.peer_index, "attrs": inner}
    info = {
        "attrs": [
            ("IFLA_INFO_KIND", "veth"),
            ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", peer)]}),
        ]
    }
    payload = _encoded("ifinfmsg", {}, [*outer, ("IFLA_LINKINFO", info)])
    return Request(_NEWLINK, NLM_CREATE | NLM_EXCL, payload, f"make interface {veth.name}")


def port_options(index: int, name: str, *, isolated: bool, hairpin: bool) -> Request:
    """Bring the host's end up as a quiet bridge port: no IPv6 address of its own."""
    slave = [("IFLA_BRPORT_ISOLATED", int(isolated)), ("IFLA_BRPORT_MODE", int(hairpin))]
    info = {
        "attrs": [
            ("IFLA_INFO_SLAVE_KIND", "bridge"),
            ("IFLA_INFO_SLAVE_DATA", {"attrs": slave}),
        ]
    }
    fields = {"index": index, "flags": _UP, "change": _UP}
    payload = _encoded("ifinfmsg", fields, [("IFLA_LINKINFO", info)]) + _QUIET
    return Request(_NEWLINK, 0, payload, f"configure bridge port {name}")


def change_link(
    index: int, what: str, *, up: bool | None = None, mac: str = "", alias: str = ""
) -> Request:
    """Up or down, hardware address, alias."""
    values: list[tuple[str, Any]] = []
    if mac:
        values.append(("IFLA_ADDRESS", mac))
    if alias:
        values.append(("IFLA_IFALIAS", alias))
    fields: dict[str, Any] = {"index": index}
    if up is not None:
        fields.update(flags=_UP if up else 0, change=_UP)
    return Request(_SETLINK, 0, _encoded("ifinfmsg", fields, values), f"configure {what}")


def delete_link(name: str) -> Request:
    """By name; its absence is no error."""
    payload = _encoded("ifinfmsg", {}, [("IFLA_IFNAME", name)])
    return Request(_DELLINK, 0, payload, f"delete {name}", (errno.ENODEV,))


def _address(index: int, address: str, prefix: int) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    fields = {"family": int(family), "prefixlen": prefix, "index": index}
    if family == socket.AF_INET6:
        # Duplicates are our own bookkeeping's to avoid; detection would take a second.
        fields["flags"] = _NO_DAD
        return _encoded("ifaddrmsg", fields, [("IFA_ADDRESS", address), ("IFA_LOCAL", address)])
    return _encoded("ifaddrmsg", fields, [("IFA_LOCAL", address), ("IFA_ADDRESS", address)])


def add_address(index: int, address: str, prefix: int, what: str) -> Request:
    """Give an interface an address; it may be there already."""
    payload = _address(index, address, prefix)
    text = f"add address {address}/{prefix} to {what}"
    return Request(_NEWADDR, NLM_CREATE | NLM_REPLACE, payload, text)


def delete_address(index: int, address: str, prefix: int, what: str) -> Request:
    """Take an address off; its absence is no error."""
    payload = _address(index, address, prefix)
    text = f"delete address {address} of {what}"
    return Request(_DELADDR, 0, payload, text, (errno.EADDRNOTAVAIL, errno.ENODEV))


def _route(index: int, target: str, prefix: int, gateway: str) -> bytes:
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    fields: dict[str, Any] = {
        "family": int(family),
        "table": 254,
        "proto": 3,
        "scope": 0 if gateway else 253,
        "type": 1,
        "dst_len": prefix,
    }
    values: list[tuple[str, Any]] = [("RTA_OIF", index)]
    if prefix:
        values.append(("RTA_DST", target))
    if gateway:
        fields["flags"] = _ONLINK
        values.append(("RTA_GATEWAY", gateway))
    return _encoded("rtmsg", fields, values)


def add_route(index: int, target: str, prefix: int, gateway: str, what: str) -> Request:
    """A route by a gateway, or (without one) over the link itself; replaces the same target's."""
    payload = _route(index, target, prefix, gateway)
    text = f"add route to {target}/{prefix} by {gateway or what}"
    return Request(_NEWROUTE, NLM_CREATE | NLM_REPLACE, payload, text)


def delete_route(index: int, target: str, prefix: int, gateway: str) -> Request:
    """Its absence is no error."""
    payload = _route(index, target, prefix, gateway)
    text = f"delete route to {target}/{prefix}"
    return Request(_DELROUTE, 0, payload, text, (errno.ESRCH, errno.ENODEV))


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


def link_index(channel: Channel, name: str) -> int:
    """The index of an interface, 0 if there is none."""
    payload = _encoded("ifinfmsg", {}, [("IFLA_IFNAME", name)])
    found = channel.ask(Request(_GETLINK, 0, payload, f"find {name}", (errno.ENODEV,)))
    return _link(found[1]).ifindex if found else 0


def is_ready(channel: Channel, name: str) -> bool:
    """Whether an interface is operational, not only up."""
    payload = _encoded("ifinfmsg", {}, [("IFLA_IFNAME", name)])
    found = channel.ask(Request(_GETLINK, 0, payload, f"find {name}"))
    return found is not None and attributes(found[1], 16).get(16) == bytes([_OPERATIONAL])


def routes_of(channel: Channel) -> Iterator[str]:
    """The targets of the main table's routes, default routes left out."""
    for family, size in ((socket.AF_INET, 4), (socket.AF_INET6, 16)):
        header = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 254, 0, 0, 0, 0)
        for _, payload in channel.dump(Request(_GETROUTE, 0, header, "list routes")):
            prefix, table, kind = payload[1], payload[4], payload[7]
            target = attributes(payload, 12).get(1, b"")
            if table == 254 and kind == 1 and prefix and len(target) == size:
                yield f"{socket.inet_ntop(family, target)}/{prefix}"
