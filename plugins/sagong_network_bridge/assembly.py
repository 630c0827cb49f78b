"""How a sandbox is put together: a namespace with addresses, routes, names and ports."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagong.contracts.network import Attachment, Endpoint, JoinRequest, Sandbox
from sagong.errors import Conflict, FailedPrecondition, ResourceExhausted, SagongError
from sagong.failures import no_room
from sagong_network_bridge.announcements import Announcements
from sagong_network_bridge.cells import Cell, Cells, carry_out
from sagong_network_bridge.crossings import Crossings
from sagong_network_bridge.departures import Departures
from sagong_network_bridge.firewall import Firewall
from sagong_network_bridge.interior import address_plan, free_interface, limit_plan, route_plan
from sagong_network_bridge.joining import Draft, interface_sysctls, is_published, routed_versions
from sagong_network_bridge.locksmith import USER
from sagong_network_bridge.loopback import Loopback
from sagong_network_bridge.names import Names, order_of
from sagong_network_bridge.netlink import Channel
from sagong_network_bridge.networks import Networks
from sagong_network_bridge.pool import Pool
from sagong_network_bridge.ports import Ports
from sagong_network_bridge.records import Records, SandboxRecord
from sagong_network_bridge.register import Register
from sagong_network_bridge.resolver_sockets import RESOLVER
from sagong_network_bridge.surroundings import Surroundings
from sagong_network_bridge.user_namespace import Maps

__all__ = ["Assembly", "Run", "Tools", "failure"]

Run = Callable[..., Coroutine[Any, Any, Any]]


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What sandboxes are made with."""

    cells: Cells
    pool: Pool
    firewall: Firewall
    names: Names
    records: Records
    loopback: Loopback
    crossings: Crossings
    host: Channel
    run: Run


class Assembly:
    """Makes sandboxes whole, and has what those that change are changed by."""

    def __init__(
        self, networks: Networks, ports: Ports, register: Register, tools: Tools, *, machine: bool
    ) -> None:
        self._networks = networks
        self._ports = ports
        self._register = register
        self._tools = tools
        self._machine = machine
        self.outside = Surroundings(
            networks,
            tools.firewall,
            (tools.loopback, tools.crossings),
            tools.host,
            tools.run,
        )
        self.announcements = Announcements()
        self.leaving = Departures(networks, tools.cells, tools.host, tools.run)

    async def make(self, request: JoinRequest) -> Sandbox:
        """A whole one, or nothing of it."""
        draft = Draft(request, self._networks, self._ports)
        cell: Cell | None = None
        try:
            for attachment in request.attachments:
                await self.attach(draft, attachment, draft.endpoints)
            if is_published(self._networks, request, tuple(draft.endpoints)):
                draft.publish(request.ports, draft.endpoints)
            cell = await self._cell(draft, _maps(request))
            record = await self._furnish(request, draft, cell)
            return self._register.keep(record)
        except BaseException as error:
            await self._undo(request, draft, cell)
            draft.release()
            if isinstance(error, OSError):
                raise failure(request.id, error) from error
            raise

    async def attach(
        self, draft: Draft, attachment: Attachment, endpoints: Iterable[Endpoint]
    ) -> Endpoint:
        """Take addresses; who has just left may have had the last, or the one that is wanted."""
        interface = self._interface(attachment, endpoints)
        try:
            return draft.attach(attachment, interface)
        except (Conflict, ResourceExhausted):
            if not self.leaving.hold_addresses:
                raise
        draft.withdraw()
        await self.leaving.wait_dropped()
        return draft.attach(attachment, interface)

    def _interface(self, attachment: Attachment, endpoints: Iterable[Endpoint]) -> str:
        """The name of a further interface."""
        name = attachment.interface
        if name and any(endpoint.interface == name for endpoint in endpoints):
            raise Conflict(f"interface name {name} is taken in this sandbox")
        network = self._networks.get(attachment.network)
        return name or free_interface(endpoints, self._networks.prefix(network))

    async def _undo(self, request: JoinRequest, draft: Draft, cell: Cell | None) -> None:
        """Nothing is left behind after an error, whichever step it was."""
        sandbox = self._sandbox(request, draft, cell) if cell is not None else None
        self._tools.names.forget(request.id)
        if sandbox is not None and cell is not None:
            self.outside.undo(sandbox, request)
            await self._tools.run(self._tools.cells.discard, [cell])

    async def _cell(self, draft: Draft, user: Maps | None) -> Cell:
        """A namespace with the first endpoint's interface."""
        resolver = self.resolves(draft.endpoints)
        port = None
        if draft.endpoints:
            port = self._networks.port(self._networks.get(draft.endpoints[0].network))
            name = draft.endpoints[0].interface
            if user is None and name == port.first:
                return await self._tools.pool.take(port, resolver=resolver)
            port = port._replace(first=name)
        build = self._tools.cells.build
        cells: list[Cell] = await self._tools.run(build, port, resolver=resolver, user=user)
        return cells[0]

    def resolves(self, endpoints: Iterable[Endpoint]) -> bool:
        """Whether one on these networks has names to ask for."""
        records = (self._networks.get(endpoint.network) for endpoint in endpoints)
        return any(self._networks.resolves(r, machine=self._machine) for r in records)

    def _sandbox(self, request: JoinRequest, draft: Draft, cell: Cell) -> Sandbox:
        return Sandbox(
            id=request.id,
            path=str(cell.pin),
            mode=request.mode,
            endpoints=tuple(draft.endpoints),
            ports=tuple(draft.mappings),
            dns=RESOLVER if cell.resolver_port else "",
            names=request.names,
            user_path=str(cell.pin) + USER if cell.owned else "",
            routed=routed_versions(self._networks, request, tuple(draft.endpoints)),
        )

    async def _furnish(self, request: JoinRequest, draft: Draft, cell: Cell) -> SandboxRecord:
        """From a bare cell to a sandbox: further interfaces, addresses, names, ports."""
        tools = self._tools
        sandbox = self._sandbox(request, draft, cell)
        veths = {endpoint.network: cell.veth for endpoint in draft.endpoints[:1] if cell.veth}
        for endpoint in draft.endpoints[1:]:
            port = self._networks.port(self._networks.get(endpoint.network))
            plug = tools.cells.plug
            veth = await tools.run(plug, cell.pin, port, endpoint.interface)
            if veth:
                veths[endpoint.network] = veth
        await self.announce(cell.pin, sandbox.endpoints)
        assert cell.channel is not None
        ranks = self._networks.ranks(request)
        carry_out(
            cell.channel,
            address_plan(sandbox.endpoints),
            route_plan((), sandbox.endpoints, (ranks, ranks)),
            limit_plan(sandbox.endpoints, request.egress_bps),
            known={cell.port.first: cell.index} if cell.port is not None else {},
        )
        own = interface_sysctls(request.attachments, sandbox.endpoints)
        if request.sysctls or own:
            await tools.run(tools.cells.set_sysctls, cell.pin, (*request.sysctls, *own))
        self.outside.limit(request, veths)
        if cell.sockets:
            sockets, cell.sockets = cell.sockets, []
            tools.names.serve(self.order(sandbox, request), sockets)
        await self.outside.open(sandbox, request, veths)
        cell.close()
        return SandboxRecord(
            request=request,
            sandbox=sandbox,
            pin=cell.pin.name,
            veths=veths,
            resolver_port=cell.resolver_port,
        )

    async def announce(self, pin: Path, endpoints: tuple[Endpoint, ...]) -> None:
        """Before they get their hardware addresses."""
        lower = self._networks.lower
        told = self.announcements.settings(endpoints, lambda network: lower(network) is not None)
        if told:
            await self._tools.run(self._tools.cells.set_sysctls, pin, told)

    def order(self, sandbox: Sandbox, request: JoinRequest) -> dict[str, Any]:
        """What the resolver must know of one."""
        networks = self._networks.all()
        labels = {network.id: network.name for network in networks}
        internal = frozenset(network.id for network in networks if network.internal)
        return order_of(sandbox, request, labels, internal)


def _maps(request: JoinRequest) -> Maps | None:
    user = request.user_namespace
    return Maps(user.uid_map, user.gid_map) if user is not None else None


def failure(identity: str, error: OSError) -> SagongError:
    """What a failed system call means for the sandbox; a full disk is not its fault."""
    what = f"sandbox {identity}"
    return no_room(what, error) or FailedPrecondition(f"{what}: {error}")
