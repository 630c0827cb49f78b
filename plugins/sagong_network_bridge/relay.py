"""A program that carries connections and datagrams of one version of IP to containers of the other.

It is started by the plugin without any right and imports only the standard library. Published ports'
sockets come over the control channel, bound already, with the container's address and port behind
each. Who comes by them is seen by the container as this machine: there is no other way.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from sagong_network_bridge.orders import orders

__all__ = ["Relay", "main"]

_PIECE = 1 << 18
_MOST_CONNECTIONS = 8192
_MOST_FLOWS = 4096
# As long as docker-proxy, and conntrack about, remember who asked by udp.
_FLOW_SECONDS = 90.0
_TICK = 10.0
_IPV6_RECVPKTINFO, _IPV6_PKTINFO, _IP_PKTINFO = 49, 50, 8
_SPACE = 64

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Target(NamedTuple):
    """Where a port leads."""

    address: str
    port: int

    @property
    def family(self) -> socket.AddressFamily:
        """Of its address."""
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET


class _Side:
    """One socket of a connection: what the other one has sent and this one has not yet taken."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.waiting = memoryview(b"")
        self.reads = True
        self.writes = True
        self.connecting = False


class Connection:
    """A client and a container: bytes both ways, each way until its end."""

    def __init__(self, relay: Relay, identity: str, client: socket.socket, target: Target) -> None:
        self._relay = relay
        self.identity = identity
        beyond = socket.socket(target.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._sides = _Side(client), _Side(beyond)
        self._sides[1].connecting = True
        self._closed = False
        with contextlib.suppress(BlockingIOError):
            beyond.connect(target)
        for side in self._sides:
            side.channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch()

    def _watch(self) -> None:
        """Ask the selector for what can go on: reading only where the other side can take it."""
        for side, other in (self._sides, self._sides[::-1]):
            events = 0
            if side.connecting or side.waiting:
                events |= selectors.EVENT_WRITE
            if side.reads and not other.waiting and not other.connecting and not side.connecting:
                events |= selectors.EVENT_READ
            self._relay.watch(side.channel, events, self._ready)

    def _ready(self) -> None:
        if self._closed:
            return
        try:
            for side, other in (self._sides, self._sides[::-1]):
                self._step(side, other)
        except OSError:
            self.close()
            return
        if not any(side.reads or side.waiting for side in self._sides):
            self.close()
            return
        self._watch()

    @staticmethod
    def _step(side: _Side, other: _Side) -> None:
        if side.connecting:
            error = side.channel.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error))
            try:
                side.channel.getpeername()
            except OSError:
                return
            side.connecting = False
        if side.reads and not other.waiting and not other.connecting:
            with contextlib.suppress(BlockingIOError):
                data = side.channel.recv(_PIECE)
                other.waiting = memoryview(data)
                side.reads = bool(data)
        if other.connecting:
            return
        if other.waiting:
            with contextlib.suppress(BlockingIOError):
                other.waiting = other.waiting[other.channel.send(other.waiting) :]
        if not side.reads and not other.waiting and other.writes:
            other.writes = False
            other.channel.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Both ends at once."""
        self._closed = True
        for side in self._sides:
            self._relay.watch(side.channel, 0, self._ready)
            side.channel.close()
        self._relay.connections.discard(self)


class Flow:
    """A client's datagrams to a container, and the answers."""

    def __init__(
        self, relay: Relay, door: Datagrams, peer: Any, own: bytes, target: Target
    ) -> None:
        self._relay = relay
        self._door = door
        self._peer = peer
        self._own = own
        self.until = time.monotonic() + _FLOW_SECONDS
        self._channel = socket.socket(target.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._channel.connect(target)
        relay.watch(self._channel, selectors.EVENT_READ, self._answer)

    def send(self, data: bytes) -> None:
        """To the container; a refusal there is the client's to find out."""
        self.until = time.monotonic() + _FLOW_SECONDS
        with contextlib.suppress(OSError):
            self._channel.send(data)

    def _answer(self) -> None:
        with contextlib.suppress(OSError):
            data = self._channel.recv(65536)
            self.until = time.monotonic() + _FLOW_SECONDS
            self._door.answer(data, self._peer, self._own)

    def close(self) -> None:
        """Forget it."""
        self._relay.watch(self._channel, 0, self._answer)
        self._channel.close()


class Datagrams:
    """A published udp port."""

    def __init__(self, relay: Relay, door: socket.socket, target: Target) -> None:
        self._relay = relay
        self._door = door
        self._target = target
        self._six = door.family == socket.AF_INET6
        self._flows: dict[tuple[Any, bytes], Flow] = {}
        level, option = (
            (socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO)
            if self._six
            else (socket.IPPROTO_IP, _IP_PKTINFO)
        )
        door.setsockopt(level, option, 1)
        relay.watch(door, selectors.EVENT_READ, self._receive)

    def _receive(self) -> None:
        for _ in range(64):
            try:
                data, notes, _, peer = self._door.recvmsg(65536, _SPACE)
            except OSError:
                return
            if not self._relay.may_come(peer[0]):
                continue
            own = next((raw for _, kind, raw in notes if kind in (_IPV6_PKTINFO, _IP_PKTINFO)), b"")
            flow = self._flow(peer, own)
            if flow is not None:
                flow.send(data)

    def _flow(self, peer: Any, own: bytes) -> Flow | None:
        flow = self._flows.get((peer, own))
        if flow is None and len(self._flows) < _MOST_FLOWS:
            with contextlib.suppress(OSError):
                flow = self._flows[peer, own] = Flow(self._relay, self, peer, own, self._target)
        return flow

    def answer(self, data: bytes, peer: Any, own: bytes) -> None:
        """From the address that the client asked."""
        notes = []
        if own and self._six:
            notes = [(socket.IPPROTO_IPV6, _IPV6_PKTINFO, own)]
        elif own:
            _, _, address = struct.unpack("=I4s4s", own)
            notes = [(socket.IPPROTO_IP, _IP_PKTINFO, struct.pack("=I4s4s", 0, address, address))]
        self._door.sendmsg([data], notes, 0, peer)

    def expire(self, now: float) -> None:
        """Forget who has been silent."""
        for key in [key for key, flow in self._flows.items() if flow.until < now]:
            self._flows.pop(key).close()

    def close(self) -> None:
        """The port is published no more."""
        self.expire(float("inf"))
        self._relay.watch(self._door, 0, self._receive)
        self._door.close()


class Relay:
    """All doors, one loop."""

    def __init__(self, control: socket.socket, visitors: Iterable[str]) -> None:
        self._control = control
        self._visitors = [ipaddress.ip_network(text) for text in visitors]
        self._selector = selectors.DefaultSelector()
        self._doors: dict[str, list[socket.socket]] = {}
        self._datagrams: dict[str, list[Datagrams]] = {}
        self.connections: set[Connection] = set()
        self._open = True
        control.setblocking(False)
        self._selector.register(control, selectors.EVENT_READ, self._command)

    def run(self) -> None:
        """Until the plugin closes its end."""
        due = time.monotonic() + _TICK
        while self._open:
            for key, _ in self._selector.select(_TICK if self._datagrams else None):
                handler: Callable[[], None] = key.data
                handler()
            now = time.monotonic()
            if now >= due:
                due = now + _TICK
                for door in [each for several in self._datagrams.values() for each in several]:
                    door.expire(now)

    def watch(self, channel: socket.socket, events: int, handler: Callable[[], None]) -> None:
        """Have a handler called for these events of a socket; for none, no more."""
        known = channel in self._selector.get_map()
        if not events:
            if known:
                self._selector.unregister(channel)
        elif not known:
            self._selector.register(channel, events, handler)
        elif self._selector.get_key(channel).events != events:
            self._selector.modify(channel, events, handler)

    def may_come(self, address: str) -> bool:
        """Whether published ports are for this client."""
        if not self._visitors:
            return True
        client = ipaddress.ip_address(address.partition("%")[0])
        return client.is_loopback or any(client in block for block in self._visitors)

    def _command(self) -> None:
        try:
            for order, descriptors in orders(self._control):
                self._obey(order, [socket.socket(fileno=one) for one in descriptors])
        except EOFError:
            self._open = False

    def _obey(self, order: dict[str, Any], sockets: list[socket.socket]) -> None:
        identity = order["id"]
        self._close(identity)
        for door, (address, port) in zip(sockets, order["targets"], strict=True):
            door.setblocking(False)
            if door.type == socket.SOCK_STREAM:
                self._serve(identity, door, Target(address, port))
            else:
                made = Datagrams(self, door, Target(address, port))
                self._datagrams.setdefault(identity, []).append(made)
        if order.get("answer"):
            self._control.send(b"done")

    def _serve(self, identity: str, door: socket.socket, target: Target) -> None:
        self._doors.setdefault(identity, []).append(door)
        self.watch(door, selectors.EVENT_READ, lambda: self._accept(identity, door, target))

    def _accept(self, identity: str, door: socket.socket, target: Target) -> None:
        for _ in range(64):
            try:
                client, peer = door.accept()
            except OSError:
                return
            client.setblocking(False)
            if len(self.connections) >= _MOST_CONNECTIONS or not self.may_come(peer[0]):
                client.close()
                continue
            try:
                self.connections.add(Connection(self, identity, client, target))
            except OSError:
                client.close()

    def _close(self, identity: str) -> None:
        for door in self._doors.pop(identity, ()):
            self.watch(door, 0, self._command)
            door.close()
        for datagrams in self._datagrams.pop(identity, ()):
            datagrams.close()
        for connection in [one for one in self.connections if one.identity == identity]:
            connection.close()


def main(descriptor: int, visitors: tuple[str, ...]) -> None:
    """Serve what comes over the channel until it closes."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as comm:
        comm.write("sagong-relay")
    control = socket.socket(fileno=descriptor)
    try:
        Relay(control, visitors).run()
    except KeyboardInterrupt:
        sys.exit(0)
    os._exit(0)
