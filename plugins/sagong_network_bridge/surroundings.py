"""What the machine around sandboxes must do for them: open ports, send back, shape, forget flows.

The firewall's elements, the program for `[::1]`, crossings and the bridges' ports follow a sandbox's
record; nothing of them is kept anywhere else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any

from sagong.contracts.network import JoinRequest, Sandbox
from sagong_network_bridge import shaping
from sagong_network_bridge.conntrack import forget_datagrams
from sagong_network_bridge.crossings import Crossings, crossings
from sagong_network_bridge.firewall import Firewall
from sagong_network_bridge.interior import Ranks, gateway_endpoints
from sagong_network_bridge.joining import pieces_of
from sagong_network_bridge.links import link_index, port_options
from sagong_network_bridge.loopback import Loopback, Shortcut, shortcuts
from sagong_network_bridge.netlink import Channel
from sagong_network_bridge.networks import Networks
from sagong_network_bridge.records import SandboxRecord
from sagong_network_bridge.services import Piece

__all__ = ["Surroundings"]

Run = Callable[..., Coroutine[Any, Any, Any]]


class Surroundings:
    """The machine's side of all sandboxes."""

    def __init__(
        self,
        networks: Networks,
        firewall: Firewall,
        ways: tuple[Loopback, Crossings],
        host: Channel,
        run: Run,
    ) -> None:
        self._networks = networks
        self._loopback, self._crossings = ways
        self._firewall = firewall
        self._host = host
        self._run = run

    def pieces(self, sandbox: Sandbox, request: JoinRequest) -> Iterator[Piece]:
        """What the firewall must know of one."""
        return pieces_of(sandbox, self._networks.ranks(request), self._networks.direct)

    def shortcuts(self, sandbox: Sandbox, request: JoinRequest) -> tuple[Shortcut, ...]:
        """What [::1] of the machine leads to for one."""
        return shortcuts(sandbox, self._networks.ranks(request), self._networks.is_routed)

    def cross(self, sandbox: Sandbox, request: JoinRequest) -> None:
        """Lead clients of the version of IP that one has not."""
        ranks = self._networks.ranks(request)
        self._crossings.put(sandbox.id, crossings(sandbox, ranks, self._networks.is_routed))

    def cross_anew(self, record: SandboxRecord) -> None:
        """The same where ports are held again that were not."""
        self._crossings.drop(record.sandbox.id)
        self.cross(record.sandbox, record.request)

    async def open(self, sandbox: Sandbox, request: JoinRequest, veths: dict[str, str]) -> None:
        """For one that has just been made."""
        self._reflect(sandbox, self._networks.ranks(request), veths)
        self._firewall.alter("sandboxes", new=self.pieces(sandbox, request))
        self._loopback.put(self.shortcuts(sandbox, request))
        self.cross(sandbox, request)
        await self._forget_datagrams(sandbox, leaving=False)

    async def close(self, record: SandboxRecord) -> None:
        """For one that leaves."""
        self._firewall.alter("sandboxes", gone=self.pieces(record.sandbox, record.request))
        self._loopback.remove(self.shortcuts(record.sandbox, record.request))
        self._crossings.drop(record.sandbox.id)
        await self._forget_datagrams(record.sandbox, leaving=True)

    def undo(self, sandbox: Sandbox, request: JoinRequest) -> None:
        """For one that could not be made, however far it came."""
        self._crossings.drop(sandbox.id)
        self._loopback.remove(self.shortcuts(sandbox, request))
        with contextlib.suppress(OSError):
            self._firewall.alter("sandboxes", gone=self.pieces(sandbox, request))

    async def change(self, before: SandboxRecord, after: SandboxRecord) -> None:
        """For one whose default route goes by another network."""
        self._reflect(after.sandbox, self._networks.ranks(after.request), after.veths)
        was = self.pieces(before.sandbox, before.request)
        now = self.pieces(after.sandbox, after.request)
        self._firewall.alter("sandboxes", was, now)
        self._loopback.remove(self.shortcuts(before.sandbox, before.request))
        self._loopback.put(self.shortcuts(after.sandbox, after.request))
        self.cross(after.sandbox, after.request)
        if after.sandbox.ports and not before.sandbox.ports:
            await self._forget_datagrams(after.sandbox, leaving=False)

    def _reflect(self, sandbox: Sandbox, ranks: Ranks, veths: dict[str, str]) -> None:
        """Who publishes ports may call itself by them: its bridge must send packets back to it."""
        if not sandbox.ports:
            return
        found = {e.network for e in gateway_endpoints(sandbox.endpoints, ranks) if e}
        for network in found & veths.keys():
            self._mirror(network, veths[network])

    def _mirror(self, network: str, veth: str) -> None:
        port = self._networks.port(self._networks.get(network))
        self._host.send([port_options(veth, isolated=port.isolated, hairpin=True)])

    async def mirror(self, networks: frozenset[str], records: Iterable[SandboxRecord]) -> None:
        """Everybody on these networks may now reach itself by a service."""
        for record in records:
            for network in networks & record.veths.keys():
                await self._run(self._mirror, network, record.veths[network])

    def limit(self, request: JoinRequest, veths: dict[str, str]) -> None:
        """What comes to a sandbox by these interfaces is at most so much."""
        for veth in veths.values() if request.ingress_bps else ():
            index = link_index(self._host, veth)
            self._host.send([shaping.limit(index, request.ingress_bps, veth)])

    async def _forget_datagrams(self, sandbox: Sandbox, *, leaving: bool) -> None:
        """Flows past a port just published, and flows to a container that goes."""
        ports = frozenset(p.host_port for p in sandbox.ports if p.protocol == "udp")
        if not ports:
            return
        found = (a for e in sandbox.endpoints for a in (e.ipv4, e.ipv6) if a)
        addresses = frozenset(found) if leaving else frozenset()
        with contextlib.suppress(OSError):
            await self._run(forget_datagrams, ports, addresses)
