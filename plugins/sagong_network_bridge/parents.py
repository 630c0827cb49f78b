"""Networks of driver macvlan: sandboxes with interfaces of their own on one of the machine's.

Option `parent` names it; `NAME.ID` is made as a VLAN of NAME if it isn't there, and without the
option it is an interface that leads nowhere. What is made here carries this instance's alias and
goes with its network. The machine itself doesn't reach such sandboxes by that interface: Linux
passes nothing between a macvlan and its parent.
"""

from __future__ import annotations

import errno
import struct

from sagong.contracts.network import Network
from sagong.errors import InvalidArgument
from sagong_network_bridge import links
from sagong_network_bridge.netlink import (
    NLM_CREATE,
    NLM_EXCL,
    Channel,
    Request,
    attribute,
    nested,
)

__all__ = ["MODES", "Parents", "check_parent", "mode_of", "new_macvlan", "parent_name"]

MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
_PARENT, _MODE = "parent", "macvlan_mode"
_NEWLINK = 16
_NAME, _LINK, _INFO, _NAMESPACE = 3, 5, 18, 28
_HEADER = struct.Struct("=BxHiII")
_LAST_VLAN = 4094


def mode_of(network: Network) -> int:
    """The kernel's number of the network's macvlan mode."""
    return MODES[dict(network.options).get(_MODE) or "bridge"]


def parent_name(network: Network, prefix: str) -> str:
    """The interface below the sandboxes' ones."""
    digits = 15 - len(prefix) - 1
    return dict(network.options).get(_PARENT) or f"{prefix}-{network.id[:digits]}"


def check_parent(network: Network) -> None:
    """Refuse options that can't be, by name."""
    options = dict(network.options)
    parent, mode = options.get(_PARENT, ""), options.get(_MODE) or "bridge"
    if mode not in MODES:
        raise InvalidArgument(f"option {_MODE}={mode}: one of {', '.join(MODES)}")
    if len(parent.encode()) > 15 or "/" in parent or any(c.isspace() for c in parent):
        raise InvalidArgument(f"option {_PARENT}={parent}: the name of an interface")


def _requested(kind: str, name: str, more: bytes, data: bytes = b"") -> Request:
    info = nested(_INFO, attribute(1, kind.encode() + b"\0"), nested(2, data) if data else b"")
    payload = _HEADER.pack(0, 0, 0, 0, 0) + attribute(_NAME, name.encode() + b"\0") + more + info
    return Request(_NEWLINK, NLM_CREATE | NLM_EXCL, payload, f"make {kind} {name}")


def new_macvlan(name: str, parent: int, namespace: int, mode: int) -> Request:
    """An interface on another one, made inside a namespace."""
    where = attribute(_LINK, struct.pack("=I", parent))
    where += attribute(_NAMESPACE, struct.pack("=I", namespace))
    return _requested("macvlan", name, where, attribute(1, struct.pack("=I", mode)))


class Parents:
    """Interfaces below macvlan networks."""

    def __init__(self, prefix: str, host: Channel) -> None:
        self._prefix = prefix
        self._host = host

    def index(self, name: str) -> int:
        """Its number now; 0 if it is gone."""
        return links.link_index(self._host, name)

    def ensure(self, network: Network) -> str:
        """The network's parent, made if that is ours to do; InvalidArgument if it is missing."""
        name = parent_name(network, self._prefix)
        if not self.index(name):
            self._make(network, name)
        return name

    def _make(self, network: Network, name: str) -> None:
        lower, dot, vlan = name.rpartition(".")
        if not dict(network.options).get(_PARENT):
            # A bridge without ports: every machine that has networks can make one.
            request = links.new_bridge(name)
        elif dot and vlan.isdigit() and 0 < int(vlan) <= _LAST_VLAN and self.index(lower):
            where = attribute(_LINK, struct.pack("=I", self.index(lower)))
            request = _requested("vlan", name, where, attribute(1, struct.pack("=H", int(vlan))))
        else:
            raise InvalidArgument(
                f"option {_PARENT}={name}: there is no such interface on this machine"
            )
        try:
            self._host.send([request])
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                raise InvalidArgument(
                    f"option {_PARENT}={name}: this kernel makes no VLANs (module 8021q)"
                ) from None
            raise
        alias = f"sagong {self._prefix} {network.id}"
        self._host.send([links.change_link(self.index(name), name, up=True, alias=alias)])

    def remove(self, network: Network) -> None:
        """Delete the parent if it was made here."""
        name = parent_name(network, self._prefix)
        found = links.find_link(self._host, name)
        if found is not None and found.alias == f"sagong {self._prefix} {network.id}":
            self._host.send([links.delete_link(name)])
