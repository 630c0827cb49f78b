"""Namespaces being built: a pinned one with loopback, an interface and resolver sockets inside.

All of it is I/O of a few hundred microseconds in worker threads; the firewall and the records know
of a cell only once a sandbox has it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import re
import secrets
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from sagong_network_bridge import expressions as ex
from sagong_network_bridge import links
from sagong_network_bridge.expressions import Hook
from sagong_network_bridge.interior import Plan
from sagong_network_bridge.namespaces import Home, unpin, write_sysctl
from sagong_network_bridge.netlink import NETFILTER, ROUTE, Channel
from sagong_network_bridge.nft import BaseChain, Nftables, Rule
from sagong_network_bridge.parents import new_macvlan

__all__ = ["RESOLVER", "Cell", "Cells", "Port", "carry_out", "is_veth"]

RESOLVER = "127.0.0.11"
_LOOPBACK = 1
_CHECKSUMS = {6: 16, 17: 6}
_MOST_PORTS = 1024
_READY, _MOMENT = 0.5, 0.0003


class Port(NamedTuple):
    """What an interface on a network must be like."""

    network: str
    bridge: str
    ifindex: int
    ipv6: bool = False
    isolated: bool = False
    hairpin: bool = False
    mtu: int = 0
    macvlan: int = 0


@dataclass
class Cell:
    """A namespace with one interface or none, its sockets still in our hands."""

    pin: Path
    port: Port | None = None
    veth: str = ""
    channel: Channel | None = None
    resolver_port: int = 0
    sockets: list[socket.socket] = field(default_factory=list)

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

    def __init__(self, prefix: str, pins: Path, home: Home, host: Channel) -> None:
        self._prefix = prefix
        self._pins = pins
        self._home = home
        self._host = host

    def build(self, port: Port | None, *, resolver: bool) -> Cell:
        """A new namespace; nothing is left behind after an error."""
        pin = self._pins / f"{self._prefix}-{secrets.token_hex(6)}"
        cell = Cell(pin)
        try:
            with self._home.new(pin) as descriptor:
                self._furnish(cell, port, descriptor, resolver=resolver)
        except BaseException:
            cell.close()
            raise
        return cell

    def _furnish(self, cell: Cell, port: Port | None, namespace: int, *, resolver: bool) -> None:
        cell.channel = Channel(ROUTE)
        # As in Docker: whoever a container's process is, it may serve port 80 and ping.
        write_sysctl("net.ipv4.ip_unprivileged_port_start", "0")
        write_sysctl("net.ipv4.ping_group_range", "0 2147483647")
        cell.channel.send([links.change_link(_LOOPBACK, "loopback", up=True)])
        if port is not None:
            cell.port = port
            cell.veth = self._plug(port, namespace, "eth0", cell.channel)
        if resolver:
            cell.sockets, cell.resolver_port = _resolver_sockets(0)

    def plug(self, pin: Path, port: Port, interface: str) -> str:
        """A further interface in a pinned namespace; the host end's name ("" of a macvlan)."""
        with self._home.inside(pin) as descriptor:
            inner = Channel(ROUTE)
            try:
                return self._plug(port, descriptor, interface, inner)
            finally:
                inner.close()

    def _plug(self, port: Port, namespace: int, interface: str, inner: Channel) -> str:
        """The thread is inside: defaults for new interfaces are this namespace's.

        The inner end comes up first: a bridge takes a port into use at once if its carrier is there
        when it comes up, else whenever the kernel gets round to it, up to a second later.
        """
        with contextlib.suppress(FileNotFoundError):
            write_sysctl("net.ipv6.conf.default.disable_ipv6", "0" if port.ipv6 else "1")
            write_sysctl("net.ipv6.conf.default.accept_ra", "0")
            write_sysctl("net.ipv6.conf.default.accept_dad", "0")
        if port.macvlan:
            self._host.send([new_macvlan(interface, port.ifindex, namespace, port.macvlan)])
            return ""
        name = f"{self._prefix}v{secrets.token_hex(5)}"
        self._make(links.Veth(name, port.ifindex, namespace, interface, port.mtu), port)
        inner.send([links.change_link(links.link_index(inner, interface), interface, up=True)])
        host_index = links.link_index(self._host, name)
        options = links.port_options(host_index, name, isolated=port.isolated, hairpin=port.hairpin)
        self._host.send([options])
        _wait_ready(inner, interface)
        return name

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
        with self._home.inside(pin):
            channel = Channel(ROUTE)
            try:
                carry_out(channel, *plans)
            finally:
                channel.close()

    def set_sysctls(self, pin: Path, values: tuple[tuple[str, str], ...]) -> None:
        """Write `net.…` settings inside a pinned namespace."""
        with self._home.inside(pin):
            for name, value in values:
                write_sysctl(name, value)

    def reopen(self, pin: Path, port: int) -> tuple[list[socket.socket], int]:
        """Resolver sockets of a namespace whose former ones are lost; the port may have changed."""
        with self._home.inside(pin):
            return _resolver_sockets(port)

    def discard(self, cell: Cell) -> None:
        """A cell that nobody has used; its interface goes with the namespace."""
        cell.close()
        unpin(cell.pin)


def carry_out(channel: Channel, *plans: Plan) -> None:
    """Do plans by a channel of the namespace, in one batch."""
    index_of = functools.cache(functools.partial(links.link_index, channel))
    channel.send([request for plan in plans for request in plan(index_of)])


def _wait_ready(inner: Channel, interface: str) -> None:
    """The inner end sends only once the kernel has noticed its carrier, in a moment."""
    deadline = time.monotonic() + _READY
    while not links.is_ready(inner, interface) and time.monotonic() < deadline:
        time.sleep(_MOMENT)


def is_veth(name: str, prefix: str) -> bool:
    """Whether an interface of the host has a name that is made here."""
    return re.fullmatch(f"{re.escape(prefix)}v[0-9a-f]{{10}}", name) is not None


def _resolver_sockets(port: int) -> tuple[list[socket.socket], int]:
    """UDP and TCP on one port of the resolver's address, which port 53 is rewritten to."""
    for wanted in (port, 0, 0, 0):
        sockets: list[socket.socket] = []
        try:
            found = wanted
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                served = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC)
                sockets.append(served)
                # The predecessor of a killed plugin may be about to close its own.
                served.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                served.bind((RESOLVER, found))
                found = served.getsockname()[1]
            sockets[1].listen(16)
            if found != port:
                _rewrite(found, fresh=not port)
        except OSError as error:
            for served in sockets:
                served.close()
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return sockets, found
    raise OSError(errno.EADDRINUSE, f"no port of {RESOLVER} is free for the resolver")


def _rewrite(port: int, *, fresh: bool) -> None:
    """Rewrite port 53 of the resolver's address to `port` and back, without connection tracking.

    A container may serve port 53 on all its addresses itself, so the resolver must not hold it.
    Closing a channel that deleted something waits 12 ms: not for a `fresh` namespace.
    """
    channel = Channel(NETFILTER)
    table = Nftables(channel, "sagong_resolver", 2)
    chain = BaseChain("output", "filter", Hook.OUTPUT, -450)
    address = socket.inet_aton(RESOLVER)
    raw, plain = port.to_bytes(2, "big"), (53).to_bytes(2, "big")
    requests = [table.add_table(), table.add_base_chain(chain)]
    if not fresh:
        requests.append(table.flush_chain(chain.name))
    for protocol, checksum in _CHECKSUMS.items():
        match = ex.protocol(0) + ex.compare(0, bytes([protocol]))
        there = ex.destination(0, 4) + ex.compare(0, address) + match
        there += ex.payload(0, "transport", 2, 2) + ex.compare(0, plain)
        there += ex.immediate(0, raw) + ex.set_payload(0, 2, 2, checksum)
        back = ex.source(0, 4) + ex.compare(0, address) + match
        back += ex.payload(0, "transport", 0, 2) + ex.compare(0, raw)
        back += ex.immediate(0, plain) + ex.set_payload(0, 0, 2, checksum)
        requests += [table.add_rule(Rule("output", rule)) for rule in (there, back)]
    try:
        table.commit(requests)
    finally:
        channel.close()
