"""Sandboxes: joined, left, and taken over from a predecessor."""

from __future__ import annotations

import contextlib
from collections.abc import Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from sagong.contracts.network import JoinRequest, Sandbox
from sagong.errors import Conflict, SagongError
from sagong_network_bridge.assembly import Assembly, Tools
from sagong_network_bridge.joining import check_request
from sagong_network_bridge.loopback import Shortcut
from sagong_network_bridge.memberships import Memberships
from sagong_network_bridge.networks import Networks
from sagong_network_bridge.ports import Ports
from sagong_network_bridge.records import SandboxRecord
from sagong_network_bridge.register import Register
from sagong_network_bridge.services import Piece

__all__ = ["Sandboxes", "Tools"]


class Sandboxes:
    """All sandboxes of this machine."""

    def __init__(self, networks: Networks, ports: Ports, tools: Tools, *, machine: bool) -> None:
        self._networks = networks
        self._ports = ports
        self._tools = tools
        self.register = Register(tools.records)
        self._assembly = Assembly(networks, ports, self.register, tools, machine=machine)
        self.memberships = Memberships(networks, ports, self.register, self._assembly, tools)

    def adopt(self, record: SandboxRecord) -> None:
        """Take over a sandbox of a predecessor: its addresses and ports are taken again."""
        sandbox = record.sandbox
        self.register.adopt(record)
        for endpoint in sandbox.endpoints:
            for range_ in self._networks.ranges(endpoint.network):
                address = endpoint.ipv4 if range_.version == 4 else endpoint.ipv6
                if address:
                    with contextlib.suppress(Conflict):
                        range_.reserve(address, sandbox.id)
        for mapping in sandbox.ports:
            self._ports.restore(mapping, sandbox.id)

    @property
    def busy(self) -> bool:
        """Whether one is on a network, or something of one that was is still to be taken away."""
        joined = any(record.sandbox.mode == "networks" for record in self.register.all())
        return joined or self._assembly.leaving.busy

    def pieces(self) -> Iterator[Piece]:
        """What the firewall must know of all of them."""
        for record in self.register.all():
            yield from self._assembly.outside.pieces(record.sandbox, record.request)

    def shortcuts(self) -> Iterator[Shortcut]:
        """What [::1] of the machine leads to."""
        for record in self.register.all():
            yield from self._assembly.outside.shortcuts(record.sandbox, record.request)

    def cross(self) -> None:
        """After a start: ports that are held again lead clients of either version of IP."""
        for record in self.register.all():
            self._assembly.outside.cross_anew(record)

    async def reflect(self, networks: frozenset[str]) -> None:
        """Everybody on these networks may now reach itself by a service."""
        await self._assembly.outside.mirror(networks, self.register.all())

    async def join(self, request: JoinRequest) -> Sandbox:
        """Make a sandbox; the same id again returns it."""
        async with self.register.alone(request.id):
            known = self.register.find(request.id)
            if known is not None:
                return known.sandbox
            check_request(request)
            await self._assembly.leaving.wait_dropped(request.id)
            if request.mode == "host":
                sandbox = Sandbox(id=request.id, mode="host", names=request.names)
                return self.register.keep(SandboxRecord(request=request, sandbox=sandbox))
            return await self._assembly.make(self._identified(request))

    def _identified(self, request: JoinRequest) -> JoinRequest:
        """Networks by id, also where they were named."""
        attachments = (
            replace(a, network=self._networks.get(a.network).network.id)
            for a in request.attachments
        )
        return replace(request, attachments=tuple(attachments))

    async def leave(self, identity: str) -> None:
        """Remove a sandbox; unknown is no error. Its namespace goes, and its addresses, right after."""
        async with self.register.alone(identity):
            record = self.register.find(identity)
            if record is None:
                return
            self._tools.names.forget(identity)
            await self._assembly.outside.close(record)
            self.register.drop(identity)
            for mapping in record.sandbox.ports:
                self._ports.release(mapping, identity)
            for endpoint in record.sandbox.endpoints:
                self._assembly.announcements.left(endpoint)
            self._assembly.leaving.begin(record)

    async def wait_dropped(self) -> None:
        """Until nothing is left of those that have left."""
        await self._assembly.leaving.wait_dropped()

    async def close(self) -> None:
        """Leave what goes in its own time to the next start's sweep."""
        await self._assembly.leaving.close()

    async def reopened(self, identity: str) -> list[Any]:
        """Resolver sockets of a sandbox, opened anew."""
        record = self.register.find(identity)
        if record is None:
            return []
        pin, port = Path(record.sandbox.path), record.resolver_port
        sockets, found = await self._tools.run(self._tools.cells.reopen, pin, port)
        if found != port:
            self.register.keep(replace(record, resolver_port=found))
        return list(sockets)

    def resume_names(self) -> Coroutine[Any, Any, None]:
        """After a start: all names are known again; the returned work serves them to everybody."""
        adopted = [record for record in self.register.all() if record.resolver_port]
        for record in adopted:
            self._tools.names.adopt(self._assembly.order(record.sandbox, record.request))
        return self._resume([record.sandbox.id for record in adopted])

    async def _resume(self, adopted: Iterable[str]) -> None:
        for identity in adopted:
            async with self.register.alone(identity):
                record = self.register.find(identity)
                if record is not None and record.resolver_port:
                    with contextlib.suppress(OSError, SagongError):
                        sockets = await self.reopened(identity)
                        self._tools.names.serve(
                            self._assembly.order(record.sandbox, record.request), sockets
                        )
