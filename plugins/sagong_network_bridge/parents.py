"""Networks of drivers macvlan and ipvlan: sandboxes with interfaces of their own on the machine's.

Option `parent` names it; `NAME.ID` is made as a VLAN of NAME if it isn't there, and without the
option it is an interface that leads nowhere. What is made here carries this instance's alias and
goes with its network. The machine itself doesn't reach such sandboxes by that interface: Linux
passes nothing between a macvlan and its parent. Interfaces of ipvlan have their parent's hardware
address; in its modes l3 and l3s there are no neighbours, and the way out is the link itself.
"""

from __future__ import annotations

import errno
import secrets
import struct
from typing import NamedTuple

from sagong.contracts.network import Network
from sagong.errors import InvalidArgument
from sagong.model.numbers import natural
from sagong_network_bridge import links
from sagong_network_bridge.netlink import (
    NLM_CREATE,
    NLM_EXCL,
    Channel,
    Request,
    attribute,
    nested,
)

__all__ = [
    "ON_PARENTS",
    "Lower",
    "Parents",
    "check_parent",
    "lower_of",
    "new_interface",
    "parent_name",
]

_MACVLAN = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
_IPVLAN = {"l2": 0, "l3": 1, "l3s": 2}
_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}
# By driver: its options, the values that each takes, and the one that stands for none.
_OPTIONS = {
    "macvlan": (("macvlan_mode", _MACVLAN, "bridge"),),
    "ipvlan": (("ipvlan_mode", _IPVLAN, "l2"), ("ipvlan_flag", _FLAGS, "bridge")),
}
ON_PARENTS = frozenset(_OPTIONS)
_PARENT = "parent"
_NEWLINK = 16
_NAME, _LINK, _INFO, _NAMESPACE = 3, 5, 18, 28
_HEADER = struct.Struct("=BxHiII")
_LAST_VLAN = 4094


class Lower(NamedTuple):
    """What kind of interface is made on a parent: the driver, and the numbers of its options."""

    kind: str
    numbers: tuple[int, ...]

    @property
    def on_link(self) -> bool:
        """Whether the link itself leads everywhere, since nobody there answers for a gateway."""
        return self.kind == "ipvlan" and self.numbers[0] != _IPVLAN["l2"]

    @property
    def own_mac(self) -> bool:
        """Whether its interfaces have hardware addresses of their own."""
        return self.kind == "macvlan"


def lower_of(network: Network) -> Lower:
    """Of a network whose driver is in ON_PARENTS; InvalidArgument names an option that can't be."""
    given = dict(network.options)
    numbers = []
    for key, known, plain in _OPTIONS[network.driver]:
        value = given.get(key) or plain
        if value not in known:
            raise InvalidArgument(f"option {key}={value}: one of {', '.join(known)}")
        numbers.append(known[value])
    return Lower(network.driver, tuple(numbers))


def parent_name(network: Network, prefix: str) -> str:
    """The interface below the sandboxes' ones."""
    digits = 15 - len(prefix) - 1
    return dict(network.options).get(_PARENT) or f"{prefix}-{network.id[:digits]}"


def check_parent(network: Network) -> None:
    """Refuse options that can't be, by name."""
    lower_of(network)
    parent = dict(network.options).get(_PARENT, "")
    if len(parent.encode()) > 15 or "/" in parent or any(c.isspace() for c in parent):
        raise InvalidArgument(f"option {_PARENT}={parent}: the name of an interface")


def _requested(kind: str, name: str, more: bytes, data: bytes = b"") -> Request:
    info = nested(_INFO, attribute(1, kind.encode() + b"\0"), nested(2, data) if data else b"")
    payload = _HEADER.pack(0, 0, 0, 0, 0) + attribute(_NAME, name.encode() + b"\0") + more + info
    return Request(_NEWLINK, NLM_CREATE | NLM_EXCL, payload, f"make {kind} {name}")


def new_interface(lower: Lower, name: str, parent: int, namespace: int = -1) -> Request:
    """An interface on another one, made inside a namespace."""
    where = attribute(_LINK, struct.pack("=I", parent))
    if namespace >= 0:
        where += attribute(_NAMESPACE, struct.pack("=I", namespace))
    # IFLA_MACVLAN_MODE has 32 bits, IFLA_IPVLAN_MODE and IFLA_IPVLAN_FLAGS have 16.
    form = "=I" if lower.kind == "macvlan" else "=H"
    values = (attribute(n, struct.pack(form, v)) for n, v in enumerate(lower.numbers, start=1))
    return _requested(lower.kind, name, where, b"".join(values))


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
        if network.driver == "ipvlan":
            self._try(network, name)
        return name

    def _try(self, network: Network, name: str) -> None:
        """That the kernel can is seen when the network is made, not with its first sandbox."""
        trial = f"{self._prefix}t{secrets.token_hex(4)}"
        try:
            self._host.send([new_interface(lower_of(network), trial, self.index(name))])
        except OSError as error:
            why = {
                errno.EOPNOTSUPP: "this kernel makes none (module ipvlan)",
                errno.EBUSY: "it carries interfaces of another kind (macvlan, a bridge)",
            }.get(error.errno or 0, error.strerror)
            raise InvalidArgument(f"an ipvlan interface on {name}: {why}") from None
        self._host.send([links.delete_link(trial)])

    def _make(self, network: Network, name: str) -> None:
        lower, dot, vlan = name.rpartition(".")
        if not dict(network.options).get(_PARENT):
            # A bridge without ports: every machine that has networks can make one.
            request = links.new_bridge(name)
        elif dot and 0 < (natural(vlan) or 0) <= _LAST_VLAN and self.index(lower):
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
