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
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from sagong.contracts.network import Counters
from sagong_network_bridge import links
from sagong_network_bridge.doors import Doors, Room
from sagong_network_bridge.interior import Plan
from sagong_network_bridge.locksmith import Setting
from sagong_network_bridge.netlink import Channel
from sagong_network_bridge.parents import Lower, new_interface
from sagong_network_bridge.resolver_sockets import RESOLVER, RESOLVER_SOCKETS, bound
from sagong_network_bridge.user_namespace import Maps

__all__ = ["Cell", "Cells", "Port", "carry_out", "is_veth"]

_LOOPBACK = 1
# As in Docker: whoever a container's process is, it may serve port 80 and ping.
_SETTINGS = (
    Setting("net.ipv4.ip_unprivileged_port_start", "0"),
    Setting("net.ipv4.ping_group_range", "0 2147483647"),
)
_MOST_PORTS = 1024
_READY, _MOMENT = 0.5, 0.0003
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

    def build(self, port: Port | None, *, resolver: bool, user: Maps | None = None) -> Cell:
        """A new namespace; nothing is left behind after an error."""
        pin = self._pins / f"{self._prefix}-{secrets.token_hex(6)}"
        cell = Cell(pin, owned=user is not None)
        sockets = ("route", *(RESOLVER_SOCKETS if resolver else ()))
        settings = (*_SETTINGS, *(_interface_settings(port) if port else ()))
        try:
            with self._doors.make(pin, sockets, settings, user) as room:
                self._furnish(cell, port, room, resolver=resolver)
        except BaseException:
            cell.close()
            raise
        return cell

    def _furnish(self, cell: Cell, port: Port | None, room: Room, *, resolver: bool) -> None:
        cell.channel = room.channel("route")
        cell.channel.send([links.change_link(_LOOPBACK, "loopback", up=True)])
        if port is not None:
            cell.port = port
            cell.veth, cell.index = self._plug(port, room.namespace, port.first, cell.channel)
        if resolver:
            cell.sockets, cell.resolver_port = self._resolver_sockets(cell.pin, 0, room)

    def plug(self, pin: Path, port: Port, interface: str) -> str:
        """A further interface in a pinned namespace; the host end's name ("" where there is none)."""
        with self._doors.open(pin, ("route",), _interface_settings(port)) as room:
            inner = room.channel("route")
            try:
                return self._plug(port, room.namespace, interface, inner)[0]
            finally:
                inner.close()

    def _plug(self, port: Port, namespace: int, interface: str, inner: Channel) -> tuple[str, int]:
        """The name of the host's end and the index of the inner one, where there are such.

        The inner end comes up first: a bridge takes a port into use at once if its carrier is
        there when it comes up, else whenever the kernel gets round to it, up to a second later.
        """
        if port.lower is not None:
            self._host.send([new_interface(port.lower, interface, port.ifindex, namespace)])
            return "", 0
        name = f"{self._prefix}v{secrets.token_hex(5)}"
        self._make(links.Veth(name, port.ifindex, namespace, interface, port.mtu), port)
        quiet = [links.keep_quiet(interface)] if port.ipv6 else []
        inner.send([*quiet, links.change_link(0, interface, up=True)])
        self._host.send([links.port_options(name, isolated=port.isolated, hairpin=port.hairpin)])
        return name, _wait_ready(inner, interface)

    def _make(self, veth: links.Veth, port: Port) -> None:
        try:
            self._host.send([links.new_veth(veth)])
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

    def drop(self, pin: Path) -> None:
        """Let a namespace go once nobody is in it; a pin that isn't there is no error."""
        self._doors.drop(pin)

    def discard(self, cell: Cell) -> None:
        """A cell that nobody has used; its interface goes with the namespace."""
        cell.close()
        self._doors.drop(cell.pin)


def _interface_settings(port: Port) -> tuple[Setting, ...]:
    """Defaults for interfaces that come into a namespace after."""
    return (
        Setting("net.ipv6.conf.default.disable_ipv6", "0" if port.ipv6 else "1", optional=True),
        Setting("net.ipv6.conf.default.accept_ra", "0", optional=True),
        Setting("net.ipv6.conf.default.accept_dad", "0", optional=True),
    )


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
