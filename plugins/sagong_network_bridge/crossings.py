"""Published ports for clients of the version of IP that their container has not.

No address translation leads from one version to the other. Where a container has IPv4 alone, say, the
sockets that hold its ports on IPv6 listen, and a program (`relay`) carries what comes by them. It is
started when the first client comes: until then this process waits for it, and nothing more.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, NamedTuple

from sagong.contracts.network import Endpoint, Sandbox
from sagong_network_bridge.interior import Ranks, gateway_endpoints
from sagong_network_bridge.joining import Routed
from sagong_network_bridge.orders import MOST_SOCKETS
from sagong_network_bridge.outwork import Outwork
from sagong_network_bridge.ports import Ports

__all__ = ["Crossing", "Crossings", "crossings"]

_BACKLOG = 512
_AGAIN = 0.2


class Crossing(NamedTuple):
    """A port of the host whose clients of one version are led to an address of the other."""

    protocol: str
    host_ip: str
    host_port: int
    version: int
    address: str
    port: int


def crossings(sandbox: Sandbox, ranks: Ranks, routed: Routed) -> tuple[Crossing, ...]:
    """Those that a sandbox needs; pure."""
    by4, by6 = gateway_endpoints(sandbox.endpoints, ranks)
    found: list[Crossing] = []
    for version, own, other in ((6, by6, by4), (4, by4, by6)):
        if own is not None or other is None or routed(other.network, 10 - version):
            continue
        found += _to(sandbox, version, other)
    return tuple(found[:MOST_SOCKETS])


def _to(sandbox: Sandbox, version: int, endpoint: Endpoint) -> Iterator[Crossing]:
    address = endpoint.ipv4 if version == 6 else endpoint.ipv6
    for mapping in sandbox.ports:
        here = (6 if ":" in mapping.host_ip else 4) if mapping.host_ip else version
        if here == version and mapping.protocol in ("tcp", "udp"):
            yield Crossing(
                mapping.protocol,
                mapping.host_ip,
                mapping.host_port,
                version,
                address,
                mapping.container_port,
            )


class Crossings:
    """All of them, and the program once there was a client."""

    def __init__(
        self,
        ports: Ports,
        visitors: Iterable[str],
        log: logging.Logger,
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
    ) -> None:
        self._ports = ports
        self._log = log
        self._spawn = spawn
        self._relay = Outwork("relay", tuple(visitors), log, self._ended)
        self._open: dict[str, tuple[Crossing, ...]] = {}
        self._watched: dict[str, list[socket.socket]] = {}
        self._closed = False

    def put(self, identity: str, wanted: tuple[Crossing, ...]) -> None:
        """Lead a sandbox's clients so; those whose port is not held yet are left out."""
        if self._open.get(identity, ()) == wanted:
            return
        self.drop(identity)
        if wanted:
            self._open[identity] = wanted
            self._lead(identity)

    def _doors(self, identity: str) -> list[tuple[socket.socket, Crossing]]:
        found = []
        for crossing in self._open.get(identity, ()):
            for door in self._ports.held(crossing[:3], identity, crossing.version):
                if crossing.protocol == "tcp":
                    # Who listens keeps others off; what lingers of a connection, which has this from
                    # its listener, must keep nobody off.
                    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    door.listen(_BACKLOG)
                found.append((door, crossing))
        return found

    def _lead(self, identity: str) -> None:
        doors = self._doors(identity)
        if self._relay.runs:
            self._tell(identity, doors)
            return
        loop = asyncio.get_running_loop()
        self._watched[identity] = [door for door, _ in doors]
        for door, _ in doors:
            door.setblocking(False)
            loop.add_reader(door, self._begin)

    def _tell(self, identity: str, doors: list[tuple[socket.socket, Crossing]]) -> None:
        targets = [(crossing.address, crossing.port) for _, crossing in doors]
        self._relay.send({"id": identity, "targets": targets}, [door for door, _ in doors])

    def _begin(self) -> None:
        """The first client: from now on all are the program's."""
        self._unwatch()
        try:
            self._relay.begin()
        except OSError as error:
            self._log.warning("published ports lead to no other version of IP: %s", error)
            return
        for identity in self._open:
            self._tell(identity, self._doors(identity))

    def _unwatch(self, identity: str = "") -> None:
        loop = asyncio.get_running_loop()
        for one in [identity] if identity else list(self._watched):
            for door in self._watched.pop(one, ()):
                if door.fileno() >= 0:
                    loop.remove_reader(door)

    def _ended(self) -> None:
        """It died on its own, with all connections; the ports wait for the next client."""
        if not self._closed:
            self._spawn(self._resume(), "relay")

    async def _resume(self) -> None:
        await asyncio.sleep(_AGAIN)
        if not self._closed and not self._relay.runs:
            for identity in self._open:
                self._lead(identity)

    def drop(self, identity: str) -> None:
        """A sandbox publishes no more, or elsewhere; to be said before its ports are let go."""
        if self._open.pop(identity, None) is not None:
            self._unwatch(identity)
            # The program's descriptors would keep the ports from who takes them next.
            self._relay.ask({"id": identity, "targets": [], "answer": True})

    def close(self) -> None:
        """End the program and with it what goes on."""
        self._closed = True
        self._unwatch()
        self._relay.close()
