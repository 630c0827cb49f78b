"""Published ports of the host: which are taken, by us or by a program, and reservations of ours.

A reserved port is a bound socket: other programs can't take it, and packets are sent on by the
firewall before they would reach it. Only where the container has no address of the client's version
of IP do they: then it listens (`crossings`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

from sagong.contracts.network import PortMapping
from sagong.errors import Conflict, FailedPrecondition, InvalidArgument, ResourceExhausted

__all__ = ["Door", "Ports", "check_mapping"]

_KINDS = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}
# Seconds after which a port that a predecessor, or a program, still has is tried again.
_AGAIN = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_AT_ONCE = 50
_ANY = {4: "0.0.0.0", 6: "::"}


class Door(NamedTuple):
    """A port of the host on one address ("" is all of both IP versions)."""

    protocol: str
    host_ip: str
    port: int

    def clashes(self, host_ip: str) -> bool:
        """Whether the same port on that address is this one, too."""
        mine, other = _scope(self.host_ip), _scope(host_ip)
        if not mine or not other:
            return True
        return mine == other or (mine.version == other.version and 0 in (int(mine), int(other)))


def _scope(host_ip: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    return ipaddress.ip_address(host_ip) if host_ip else None


def check_mapping(mapping: PortMapping) -> None:
    """Refuse what can't be published."""
    if mapping.protocol not in _KINDS:
        raise InvalidArgument(f"protocol {mapping.protocol!r}: tcp, udp or sctp")
    if not 1 <= mapping.container_port <= 65535 or not 0 <= mapping.host_port <= 65535:
        raise InvalidArgument(
            f"port {mapping.host_port}:{mapping.container_port}: ports are 1 to 65535"
        )
    try:
        _scope(mapping.host_ip)
    except ValueError:
        raise InvalidArgument(f"host address {mapping.host_ip!r} is not an IP address") from None


class Ports:
    """All published ports of this instance."""

    def __init__(self, first: int, last: int) -> None:
        self._first, self._last = first, last
        self._next = first
        self._doors: dict[tuple[str, int], dict[Door, str]] = {}
        self._sockets: dict[tuple[Door, str], list[socket.socket]] = {}
        self._unreserved: set[tuple[Door, str]] = set()

    def take(self, mapping: PortMapping, owner: str) -> PortMapping:
        """Reserve a port, a free one if none is given; Conflict if it is taken."""
        check_mapping(mapping)
        if mapping.host_port:
            self._take(Door(mapping.protocol, mapping.host_ip, mapping.host_port), owner)
            return mapping
        count = self._last - self._first + 1
        for step in range(count):
            port = self._first + (self._next - self._first + step) % count
            door = Door(mapping.protocol, mapping.host_ip, port)
            with contextlib.suppress(Conflict):
                self._take(door, owner)
                self._next = port + 1
                return PortMapping(
                    container_port=mapping.container_port,
                    protocol=mapping.protocol,
                    host_ip=mapping.host_ip,
                    host_port=port,
                )
        raise ResourceExhausted(f"no free port from {self._first} to {self._last}")

    def _take(self, door: Door, owner: str) -> None:
        there = self._doors.get((door.protocol, door.port), {})
        for other, holder in there.items():
            if other == door and holder == owner:
                return
            if other.clashes(door.host_ip):
                shown = door.host_ip or "0.0.0.0"
                raise Conflict(
                    f"Bind for {shown}:{door.port} failed: port is already allocated",
                    detail={"sandbox": holder, "port": str(door.port)},
                )
        self._sockets[door, owner] = _reserved(door)
        self._doors.setdefault((door.protocol, door.port), {})[door] = owner

    def restore(self, mapping: PortMapping, owner: str) -> None:
        """Take again after a restart; it is reserved by `reserve`, soon after."""
        door = Door(mapping.protocol, mapping.host_ip, mapping.host_port)
        self._doors.setdefault((door.protocol, door.port), {})[door] = owner
        self._unreserved.add((door, owner))

    def held(self, door: tuple[str, str, int], owner: str, version: int) -> list[socket.socket]:
        """The sockets that hold an owner's port for clients of one version of IP."""
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        sockets = self._sockets.get((Door(*door), owner), [])
        return [held for held in sockets if held.family == family]

    async def reserve(self) -> AsyncIterator[None]:
        """Keep other programs off restored ports, once a predecessor has let go of them.

        A program that grabbed one meanwhile gets no packets. Each round is told.
        """
        for pause in (0.0, *_AGAIN):
            await asyncio.sleep(pause)
            for number, (door, owner) in enumerate(list(self._unreserved)):
                if (door, owner) not in self._unreserved:
                    continue
                with contextlib.suppress(Conflict, FailedPrecondition):
                    self._sockets[door, owner] = _reserved(door)
                    self._unreserved.discard((door, owner))
                if number % _AT_ONCE == _AT_ONCE - 1:
                    await asyncio.sleep(0)
            yield
            if not self._unreserved:
                return

    def release(self, mapping: PortMapping, owner: str) -> None:
        """Free a port; one that isn't taken is no error."""
        door = Door(mapping.protocol, mapping.host_ip, mapping.host_port)
        there = self._doors.get((door.protocol, door.port), {})
        if there.get(door) == owner:
            del there[door]
        if not there:
            self._doors.pop((door.protocol, door.port), None)
        self._unreserved.discard((door, owner))
        for reserved in self._sockets.pop((door, owner), []):
            reserved.close()

    def close(self) -> None:
        """Close all reservations."""
        for sockets in self._sockets.values():
            for reserved in sockets:
                reserved.close()
        self._sockets.clear()


def _reserved(door: Door) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for address in _addresses(door.host_ip):
            sockets += _bound(door, address)
    except BaseException:
        for reserved in sockets:
            reserved.close()
        raise
    return sockets


def _addresses(host_ip: str) -> Iterator[str]:
    if host_ip:
        yield host_ip
        return
    yield from (_ANY[4], _ANY[6])


def _bound(door: Door, address: str) -> Iterator[socket.socket]:
    """At most one socket: a machine without IPv6 or sctp can't have others take its ports either."""
    kind, protocol = _KINDS[door.protocol]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        reserved = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.ESOCKTNOSUPPORT):
            return
        raise
    try:
        _bind(reserved, door, address)
    except OSError as error:
        reserved.close()
        if error.errno == errno.EADDRNOTAVAIL and not door.host_ip:
            return
        raise _refusal(error, door, address) from None
    yield reserved


def _bind(reserved: socket.socket, door: Door, address: str) -> None:
    """A listener makes this fail, a connection that lingers doesn't; afterwards nobody else may."""
    if reserved.family == socket.AF_INET6:
        reserved.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if door.protocol == "tcp":
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind((address, door.port))
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)


def _refusal(error: OSError, door: Door, address: str) -> Conflict | FailedPrecondition:
    shown = f"[{address}]" if ":" in address else address
    where = f"{shown}:{door.port}/{door.protocol}"
    if error.errno == errno.EADDRINUSE:
        return Conflict(
            f"Bind for {shown}:{door.port} failed: port is already allocated "
            f"by a program of this machine",
            detail={"port": str(door.port)},
        )
    return FailedPrecondition(f"failed to bind host port for {where}: {error.strerror}")
