"""Namespaces being built: a pinned one with loopback, an interface and resolver sockets inside.

All of it is I/O of a few hundred microseconds in worker threads, by sockets that the locksmith opened
inside; the firewall and the records know of a cell only once a sandbox has it.
"""

from __future__ import annotations

import errno
import functools
import re
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from sagong.contracts.network import Counters
from sagong_network_bridge import links
from sagong_network_bridge.doors import MOST, Doors, Room
from sagong_network_bridge.interior import Plan
from sagong_network_bridge.locksmith import Setting
from sagong_network_bridge.netlink import Channel, Request
from sagong_network_bridge.parents import Lower, new_interface
from sagong_network_bridge.resolver_sockets import RESOLVER, RESOLVER_SOCKETS, bound
from sagong_network_bridge.user_namespace import Maps

__all__ = ["MOST", "Cell", "Cells", "Port", "carry_out", "is_veth"]

_LOOPBACK = 1
# As in Docker: whoever a container's process is, it may serve port 80 and ping.
_SETTINGS = (
    Setting("net.ipv4.ip_unprivileged_port_start", "0"),
    Setting("net.ipv4.ping_group_range", "0 2147483647"),
)
_MOST_PORTS = 1024
_READY, _MOMENT = 0.5, 0.0003
# Pins in one request: their names fit into a message many times over.
_AT_ONCE = 64
_NONE: Mapping[str, int] = MappingProxyType({})


class Port(NamedTuple):
    """What an interface on a network must be like."""

    network: str
    bridge: str
    ifindex: int
    ipv6: bool = False
    isolated: bool = False
    hairpin: bool = False
    mtu: int = 0
    lower: Lower | None = None
    first: str = "eth0"


class Plug(NamedTuple):
    """Where an interface goes: the namespace, its name there, and a channel inside."""

    namespace: int
    interface: str
    inner: Channel


@dataclass
class Cell:
    """A namespace with one interface or none, its sockets still in our hands.

    `owned`: by a user namespace of its own. `index` is the interface's, 0 where it is not known.
    """

    pin: Path
    port: Port | None = None
    veth: str = ""
    index: int = 0
    channel: Channel | None = None
    resolver_port: int = 0
    sockets: list[socket.socket] = field(default_factory=list)
    owned: bool = False

    def close(self) -> None:
        """Let go of all that holds the namespace, apart from its pin."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        for served in self.sockets:
            served.close()
        self.sockets = []


class Cells:
    """Builds them; every method blocks and belongs into a worker thread."""

    def __init__(self, prefix: str, pins: Path, doors: Doors, host: Channel) -> None:
        self._prefix = prefix
        self._pins = pins
        self._doors = doors
        self._host = host

    def build(
        self, port: Port | None, count: int = 1, *, resolver: bool, user: Maps | None = None
    ) -> list[Cell]:
        """New namespaces of one form, at most `MOST`; nothing is left behind after an error.

        What is done for all of them is done in one message where that goes: each is an exchange
        with the deputy or the kernel otherwise, and threads that wait for one another.
        """
        pins = [self._pins / f"{self._prefix}-{secrets.token_hex(6)}" for _ in range(count)]
        cells = [Cell(pin, port, owned=user is not None) for pin in pins]
        sockets = ("route", *(RESOLVER_SOCKETS if resolver else ()))
        settings = (*_SETTINGS, *(_interface_settings(port) if port else ()))
        try:
            with self._doors.make(pins, sockets, settings, user) as rooms:
                pairs = list(zip(cells, rooms, strict=True))
                self._furnish(pairs, port)
                for cell, room in pairs if resolver else ():
                    cell.sockets, cell.resolver_port = self._resolver_sockets(cell.pin, 0, room)
        except BaseException:
            for cell in cells:
                cell.close()
            raise
        return cells

    def _furnish(self, pairs: list[tuple[Cell, Room]], port: Port | None) -> None:
        """Loopback, and the interface where there is one."""
        begin = links.change_link(_LOOPBACK, "loopback", up=True)
        for cell, room in pairs:
            cell.channel = room.channel("route")
        if port is None:
            for cell, _ in pairs:
                _channel(cell).send([begin])
            return
        plugs = [Plug(room.namespace, port.first, _channel(cell)) for cell, room in pairs]
        for (cell, _), end in zip(pairs, self._plug(port, plugs, [begin]), strict=True):
            cell.veth, cell.index = end

    def plug(self, pin: Path, port: Port, interface: str) -> str:
        """A further interface in a pinned namespace; the host end's name ("" where there is none)."""
        with self._doors.open(pin, ("route",), _interface_settings(port)) as room:
            inner = room.channel("route")
            try:
                (end,) = self._plug(port, [Plug(room.namespace, interface, inner)])
                return end[0]
            finally:
                inner.close()

    def _plug(
        self, port: Port, plugs: list[Plug], before: Sequence[Request] = ()
    ) -> list[tuple[str, int]]:
        """The name of each host's end and the index of the inner one, where there are such.

        `before` is done inside first. The inner end comes up first: a bridge takes a port into use
        at once if its carrier is there when it comes up, else whenever the kernel gets round to
        it, up to a second later.
        """
        if port.lower is not None:
            for plug in plugs:
                plug.inner.send(before)
                new = new_interface(port.lower, plug.interface, port.ifindex, plug.namespace)
                self._host.send([new])
            return [("", 0)] * len(plugs)
        names = [f"{self._prefix}v{secrets.token_hex(5)}" for _ in plugs]
        self._make(port, [_veth(port, *pair) for pair in zip(names, plugs, strict=True)])
        for plug in plugs:
            quiet = [links.keep_quiet(plug.interface)] if port.ipv6 else []
            plug.inner.send([*before, *quiet, links.change_link(0, plug.interface, up=True)])
        options = {"isolated": port.isolated, "hairpin": port.hairpin}
        self._host.send([links.port_options(name, **options) for name in names])
        indexes = [_wait_ready(plug.inner, plug.interface) for plug in plugs]
        return list(zip(names, indexes, strict=True))

    def _make(self, port: Port, veths: list[links.Veth]) -> None:
        try:
            self._host.send([links.new_veth(veth) for veth in veths])
        except OSError as error:
            if error.errno == errno.EXFULL:
                raise OSError(
                    error.errno,
                    f"bridge {port.bridge} has {_MOST_PORTS} interfaces, the most that Linux allows",
                ) from None
            raise

    def configure(self, pin: Path, *plans: Plan) -> None:
        """Carry out plans inside a pinned namespace."""
        with self._doors.open(pin, ("route",)) as room:
            channel = room.channel("route")
            try:
                carry_out(channel, *plans)
            finally:
                channel.close()

    def counters(self, pin: Path) -> dict[str, Counters]:
        """Of the interfaces inside a pinned namespace, by name."""
        with self._doors.open(pin, ("route",)) as room:
            channel = room.channel("route")
            try:
                return {found.interface: found for found in links.counters_of(channel)}
            finally:
                channel.close()

    def set_sysctls(self, pin: Path, values: tuple[tuple[str, str], ...]) -> None:
        """Write `net.…` settings inside a pinned namespace."""
        settings = tuple(Setting(name, value) for name, value in values)
        with self._doors.open(pin, (), settings):
            pass

    def reopen(self, pin: Path, port: int) -> tuple[list[socket.socket], int]:
        """Resolver sockets of a namespace whose former ones are lost; the port may have changed."""
        with self._doors.open(pin, RESOLVER_SOCKETS) as room:
            return self._resolver_sockets(pin, port, room)

    def _resolver_sockets(
        self, pin: Path, port: int, room: Room
    ) -> tuple[list[socket.socket], int]:
        """UDP and TCP on one port of the resolver's address, which port 53 is rewritten to."""
        found = bound(room, port)
        for _ in range(3):
            if found is not None:
                break
            with self._doors.open(pin, RESOLVER_SOCKETS) as again:
                found = bound(again, 0)
        if found is None:
            raise OSError(errno.EADDRINUSE, f"no port of {RESOLVER} is free for the resolver")
        return found

    def drop(self, pins: Sequence[Path]) -> None:
        """Let namespaces go once nobody is in them; a pin that isn't there is no error."""
        for at in range(0, len(pins), _AT_ONCE):
            self._doors.drop(pins[at : at + _AT_ONCE])

    def discard(self, cells: Sequence[Cell]) -> None:
        """Cells that nobody has used; their interfaces go with the namespaces."""
        for cell in cells:
            cell.close()
        self.drop([cell.pin for cell in cells])


def _channel(cell: Cell) -> Channel:
    assert cell.channel is not None
    return cell.channel


def _veth(port: Port, name: str, plug: Plug) -> links.Veth:
    return links.Veth(name, port.ifindex, plug.namespace, plug.interface, port.mtu)


def _interface_settings(port: Port) -> tuple[Setting, ...]:
    """Defaults for interfaces that come into a namespace after.

    Each is looked for among those of all namespaces of the machine: none is set in vain.
    """
    if not port.ipv6:
        return (_ipv6("disable_ipv6", "1"),)
    return _ipv6("disable_ipv6", "0"), _ipv6("accept_ra", "0"), _ipv6("accept_dad", "0")


def _ipv6(name: str, value: str) -> Setting:
    return Setting(f"net.ipv6.conf.default.{name}", value, optional=True)


def carry_out(channel: Channel, *plans: Plan, known: Mapping[str, int] = _NONE) -> None:
    """Do plans by a channel of the namespace, in one batch; `known` are indexes of interfaces."""

    @functools.cache
    def index_of(name: str) -> int:
        return known.get(name) or links.link_index(channel, name)

    channel.send([request for plan in plans for request in plan(index_of)])


def _wait_ready(inner: Channel, interface: str) -> int:
    """The inner end sends only once the kernel has noticed its carrier, in a moment; its index."""
    deadline = time.monotonic() + _READY
    while True:
        index, ready = links.readiness(inner, interface)
        if ready or time.monotonic() >= deadline:
            return index
        time.sleep(_MOMENT)


def is_veth(name: str, prefix: str) -> bool:
    """Whether an interface of the host has a name that is made here."""
    return re.fullmatch(f"{re.escape(prefix)}v[0-9a-f]{{10}}", name) is not None
