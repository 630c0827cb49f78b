"""Sandboxes: joined, changed, left; each kept in a record from the moment its caller is told."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from sagong.contracts.network import (
    Attachment,
    Endpoint,
    JoinRequest,
    Sandbox,
)
from sagong.errors import (
    Conflict,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    SagongError,
)
from sagong_network_bridge.cells import Cell, Cells, carry_out
from sagong_network_bridge.crossings import Crossings
from sagong_network_bridge.departures import Departures
from sagong_network_bridge.firewall import Firewall
from sagong_network_bridge.interior import (
    address_plan,
    free_interface,
    gateway_endpoints,
    limit_plan,
    removal_plan,
    route_plan,
)
from sagong_network_bridge.joining import (
    Draft,
    check_attachment,
    check_request,
    interface_sysctls,
    release_addresses,
)
from sagong_network_bridge.links import delete_link
from sagong_network_bridge.locksmith import USER
from sagong_network_bridge.loopback import Loopback, Shortcut
from sagong_network_bridge.names import Names, order_of
from sagong_network_bridge.netlink import Channel
from sagong_network_bridge.networks import Networks
from sagong_network_bridge.pool import Pool
from sagong_network_bridge.ports import Ports
from sagong_network_bridge.records import Records, SandboxRecord
from sagong_network_bridge.resolver_sockets import RESOLVER
from sagong_network_bridge.services import Piece
from sagong_network_bridge.surroundings import Surroundings
from sagong_network_bridge.user_namespace import Maps

__all__ = ["Sandboxes", "Tools"]

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


class Sandboxes:
    """All sandboxes of this machine."""

    def __init__(self, networks: Networks, ports: Ports, tools: Tools, *, machine: bool) -> None:
        self._networks = networks
        self._ports = ports
        self._tools = tools
        self._machine = machine
        self._known: dict[str, SandboxRecord] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._outside = Surroundings(
            networks,
            tools.firewall,
            (tools.loopback, tools.crossings),
            tools.host,
            tools.run,
        )
        self._leaving = Departures(networks, tools.cells, tools.host, tools.run)

    def adopt(self, record: SandboxRecord) -> None:
        """Take over a sandbox of a predecessor: its addresses and ports are taken again."""
        sandbox = record.sandbox
        self._known[sandbox.id] = record
        for endpoint in sandbox.endpoints:
            for range_ in self._networks.ranges(endpoint.network):
                address = endpoint.ipv4 if range_.version == 4 else endpoint.ipv6
                if address:
                    with contextlib.suppress(Conflict):
                        range_.reserve(address, sandbox.id)
        for mapping in sandbox.ports:
            self._ports.restore(mapping, sandbox.id)

    def records(self) -> list[SandboxRecord]:
        """All records."""
        return list(self._known.values())

    @property
    def busy(self) -> bool:
        """Whether one is on a network, or something of one that was is still to be taken away."""
        joined = any(record.sandbox.mode == "networks" for record in self._known.values())
        return joined or self._leaving.busy

    def get(self, identity: str) -> SandboxRecord:
        """One; NotFound names it."""
        record = self._known.get(identity)
        if record is None:
            raise NotFound(f"network sandbox {identity} not found")
        return record

    def some(self, ids: tuple[str, ...]) -> list[SandboxRecord]:
        """Those of them that there are; () is all."""
        return [self._known[i] for i in ids if i in self._known] if ids else self.records()

    def pieces(self) -> Iterator[Piece]:
        """What the firewall must know of all of them."""
        for record in self._known.values():
            yield from self._outside.pieces(record.sandbox, record.request)

    def shortcuts(self) -> Iterator[Shortcut]:
        """What [::1] of the machine leads to."""
        for record in self._known.values():
            yield from self._outside.shortcuts(record.sandbox, record.request)

    def cross(self) -> None:
        """After a start: ports that are held again lead clients of either version of IP."""
        for record in self._known.values():
            self._outside.cross_anew(record)

    async def reflect(self, networks: frozenset[str]) -> None:
        """Everybody on these networks may now reach itself by a service."""
        await self._outside.mirror(networks, self.records())

    def users(self, network: str) -> list[str]:
        """Sandboxes on a network, by name where they have one."""
        return [
            next(iter(record.sandbox.names), record.sandbox.id[:12])
            for record in self._known.values()
            if any(endpoint.network == network for endpoint in record.sandbox.endpoints)
        ]

    @contextlib.asynccontextmanager
    async def _alone(self, identity: str) -> Any:
        """One call at a time for a sandbox."""
        lock = self._locks.setdefault(identity, asyncio.Lock())
        async with lock:
            yield
        if identity not in self._known and not lock.locked():
            self._locks.pop(identity, None)

    async def join(self, request: JoinRequest) -> Sandbox:
        """Make a sandbox; the same id again returns it."""
        async with self._alone(request.id):
            known = self._known.get(request.id)
            if known is not None:
                return known.sandbox
            check_request(request)
            await self._leaving.wait_dropped(request.id)
            if request.mode == "host":
                sandbox = Sandbox(id=request.id, mode="host", names=request.names)
                return self._keep(SandboxRecord(request=request, sandbox=sandbox))
            return await self._make(self._identified(request))

    def _identified(self, request: JoinRequest) -> JoinRequest:
        """Networks by id, also where they were named."""
        attachments = (
            replace(a, network=self._networks.get(a.network).network.id)
            for a in request.attachments
        )
        return replace(request, attachments=tuple(attachments))

    def _keep(self, record: SandboxRecord) -> Sandbox:
        self._tools.records.keep_sandbox(record)
        self._known[record.sandbox.id] = record
        return record.sandbox

    async def _make(self, request: JoinRequest) -> Sandbox:
        draft = Draft(request, self._networks, self._ports)
        cell: Cell | None = None
        try:
            for attachment in request.attachments:
                await self._attach(draft, attachment, draft.endpoints)
            if any(self._networks.is_bridged(e.network) for e in draft.endpoints):
                for mapping in request.ports:
                    draft.publish(mapping)
            cell = await self._cell(draft, _maps(request))
            record = await self._furnish(request, draft, cell)
            return self._keep(record)
        except BaseException as error:
            await self._undo(request, draft, cell)
            draft.release()
            if isinstance(error, OSError):
                raise _failure(request.id, error) from error
            raise

    async def _attach(
        self, draft: Draft, attachment: Attachment, endpoints: Iterable[Endpoint]
    ) -> Endpoint:
        """Take addresses; who has just left may have had the last, or the one that is wanted."""
        interface = self._interface(attachment, endpoints)
        try:
            return draft.attach(attachment, interface)
        except (Conflict, ResourceExhausted):
            if not self._leaving.hold_addresses:
                raise
        draft.withdraw()
        await self._leaving.wait_dropped()
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
            self._outside.undo(sandbox, request)
            await self._tools.run(self._tools.cells.discard, cell)

    async def _cell(self, draft: Draft, user: Maps | None) -> Cell:
        """A namespace with the first endpoint's interface."""
        resolver = self._resolves(draft.endpoints)
        port = None
        if draft.endpoints:
            port = self._networks.port(self._networks.get(draft.endpoints[0].network))
            name = draft.endpoints[0].interface
            if user is None and name == port.first:
                return await self._tools.pool.take(port, resolver=resolver)
            port = port._replace(first=name)
        build = self._tools.cells.build
        cell: Cell = await self._tools.run(build, port, resolver=resolver, user=user)
        return cell

    def _resolves(self, endpoints: list[Endpoint]) -> bool:
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
            routed=self._routed(tuple(draft.endpoints), request),
        )

    def _routed(self, endpoints: tuple[Endpoint, ...], request: JoinRequest) -> tuple[int, ...]:
        """Versions of IP in which ports are reached at the sandbox's own address."""
        ways = gateway_endpoints(endpoints, self._networks.ranks(request))
        return tuple(
            version
            for version, endpoint in zip((4, 6), ways, strict=True)
            if endpoint is not None and self._networks.is_routed(endpoint.network, version)
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
        self._outside.limit(request, veths)
        if cell.sockets:
            sockets, cell.sockets = cell.sockets, []
            tools.names.serve(self._order(sandbox, request), sockets)
        await self._outside.open(sandbox, request, veths)
        cell.close()
        return SandboxRecord(
            request=request,
            sandbox=sandbox,
            pin=cell.pin.name,
            veths=veths,
            resolver_port=cell.resolver_port,
        )

    def _order(self, sandbox: Sandbox, request: JoinRequest) -> dict[str, Any]:
        networks = self._networks.all()
        labels = {network.id: network.name for network in networks}
        internal = frozenset(network.id for network in networks if network.internal)
        return order_of(sandbox, request, labels, internal)

    async def leave(self, identity: str) -> None:
        """Remove a sandbox; unknown is no error. Its namespace goes, and its addresses, right after."""
        async with self._alone(identity):
            record = self._known.get(identity)
            if record is None:
                return
            self._tools.names.forget(identity)
            await self._outside.close(record)
            self._tools.records.drop_sandbox(identity)
            del self._known[identity]
            for mapping in record.sandbox.ports:
                self._ports.release(mapping, identity)
            self._leaving.begin(record)

    async def wait_dropped(self) -> None:
        """Until nothing is left of those that have left."""
        await self._leaving.wait_dropped()

    async def close(self) -> None:
        """Leave what goes in its own time to the next start's sweep."""
        await self._leaving.close()

    async def connect(self, identity: str, attachment: Attachment) -> Sandbox:
        """Put a living sandbox on a further network; on it already is no error."""
        async with self._alone(identity):
            record = self.get(identity)
            if record.sandbox.mode != "networks":
                raise FailedPrecondition(
                    f"a sandbox of mode {record.sandbox.mode} can't be connected to networks"
                )
            network = self._networks.get(attachment.network).network.id
            if any(e.network == network for e in record.sandbox.endpoints):
                return record.sandbox
            check_attachment(attachment)
            return await self._connect(record, replace(attachment, network=network))

    async def _connect(self, record: SandboxRecord, attachment: Attachment) -> Sandbox:
        tools, identity = self._tools, record.sandbox.id
        draft = Draft(record.request, self._networks, self._ports)
        pin, veth = Path(record.sandbox.path), ""
        endpoint: Endpoint | None = None
        try:
            endpoint = await self._attach(draft, attachment, record.sandbox.endpoints)
            port = self._networks.port(self._networks.get(attachment.network))
            veth = await tools.run(tools.cells.plug, pin, port, endpoint.interface)
            attachments = (*record.request.attachments, attachment)
            changed = replace(
                record,
                request=replace(record.request, attachments=attachments),
                sandbox=replace(record.sandbox, endpoints=(*record.sandbox.endpoints, endpoint)),
                veths=record.veths | ({attachment.network: veth} if veth else {}),
            )
            plans = address_plan((endpoint,)), limit_plan((endpoint,), record.request.egress_bps)
            await tools.run(tools.cells.configure, pin, *plans)
            if own := interface_sysctls((attachment,), (endpoint,)):
                await tools.run(tools.cells.set_sysctls, pin, own)
            self._outside.limit(record.request, {endpoint.network: veth} if veth else {})
            changed = await self._with_resolver(changed)
            return await self._changed(record, changed)
        except BaseException as error:
            draft.release()
            if veth:
                await tools.run(tools.host.send, [delete_link(veth)])
            elif endpoint is not None:
                await self._unplug(pin, endpoint)
            if isinstance(error, OSError):
                raise _failure(identity, error) from error
            raise

    async def _with_resolver(self, record: SandboxRecord) -> SandboxRecord:
        """The first network with names brings the resolver."""
        endpoints = list(record.sandbox.endpoints)
        if record.resolver_port or not self._resolves(endpoints):
            return record
        pin = Path(record.sandbox.path)
        sockets, port = await self._tools.run(self._tools.cells.reopen, pin, 0)
        changed = replace(record, resolver_port=port, sandbox=replace(record.sandbox, dns=RESOLVER))
        self._tools.names.serve(self._order(changed.sandbox, changed.request), sockets)
        return changed

    async def _changed(self, before: SandboxRecord, after: SandboxRecord) -> Sandbox:
        """Routes, names and ports follow the endpoints; then it is recorded."""
        tools = self._tools
        pin = Path(after.sandbox.path)
        ranks = self._networks.ranks(before.request), self._networks.ranks(after.request)
        old = gateway_endpoints(before.sandbox.endpoints, ranks[0])
        new = gateway_endpoints(after.sandbox.endpoints, ranks[1])
        if old != new:
            plan = route_plan(before.sandbox.endpoints, after.sandbox.endpoints, ranks)
            await tools.run(tools.cells.configure, pin, plan)
            self._outside.change(before, after)
        routed = self._routed(after.sandbox.endpoints, after.request)
        after = replace(after, sandbox=replace(after.sandbox, routed=routed))
        if after.resolver_port:
            tools.names.tell(self._order(after.sandbox, after.request))
        return self._keep(after)

    async def disconnect(self, identity: str, wanted: str, *, force: bool) -> Sandbox:
        """Take a sandbox off a network; not on it is no error."""
        async with self._alone(identity):
            if force and identity not in self._known:
                return Sandbox(id=identity)
            record = self.get(identity)
            network = self._network_id(wanted)
            gone = [e for e in record.sandbox.endpoints if e.network == network]
            if not gone:
                return record.sandbox
            return await self._disconnect(record, gone[0])

    def _network_id(self, wanted: str) -> str:
        try:
            return self._networks.get(wanted).network.id
        except (NotFound, InvalidArgument):
            return wanted

    async def _disconnect(self, record: SandboxRecord, gone: Endpoint) -> Sandbox:
        network = gone.network
        rest = tuple(e for e in record.sandbox.endpoints if e.network != network)
        wishes = record.request.attachments
        kept = tuple(a for a in wishes if self._network_id(a.network) != network)
        veths = {key: veth for key, veth in record.veths.items() if key != network}
        changed = replace(
            record,
            request=replace(record.request, attachments=kept),
            sandbox=replace(record.sandbox, endpoints=rest),
            veths=veths,
        )
        sandbox = await self._changed(record, changed)
        if network in record.veths:
            with contextlib.suppress(OSError):
                removal = [delete_link(record.veths[network])]
                await self._tools.run(self._tools.host.send, removal)
        else:
            await self._unplug(Path(sandbox.path), gone)
        release_addresses(gone, sandbox.id, self._networks)
        return sandbox

    async def _unplug(self, pin: Path, endpoint: Endpoint) -> None:
        """Take away an interface that has no end on the host."""
        with contextlib.suppress(OSError):
            removal = removal_plan(endpoint.interface)
            await self._tools.run(self._tools.cells.configure, pin, removal)

    async def reopened(self, identity: str) -> list[Any]:
        """Resolver sockets of a sandbox, opened anew."""
        record = self._known.get(identity)
        if record is None:
            return []
        pin, port = Path(record.sandbox.path), record.resolver_port
        sockets, found = await self._tools.run(self._tools.cells.reopen, pin, port)
        if found != port:
            self._keep(replace(record, resolver_port=found))
        return list(sockets)

    def resume_names(self) -> Coroutine[Any, Any, None]:
        """After a start: all names are known again; the returned work serves them to everybody."""
        adopted = [record for record in self._known.values() if record.resolver_port]
        for record in adopted:
            self._tools.names.adopt(self._order(record.sandbox, record.request))
        return self._resume([record.sandbox.id for record in adopted])

    async def _resume(self, adopted: Iterable[str]) -> None:
        for identity in adopted:
            async with self._alone(identity):
                record = self._known.get(identity)
                if record is not None and record.resolver_port:
                    with contextlib.suppress(OSError, SagongError):
                        sockets = await self.reopened(identity)
                        self._tools.names.serve(
                            self._order(record.sandbox, record.request), sockets
                        )


def _maps(request: JoinRequest) -> Maps | None:
    user = request.user_namespace
    return Maps(user.uid_map, user.gid_map) if user is not None else None


def _failure(identity: str, error: OSError) -> SagongError:
    """What a failed system call means for the sandbox; a full disk is not its fault."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = f" of {error.filename}" if isinstance(error.filename, str) else ""
        return ResourceExhausted(f"sandbox {identity}: the disk{place} is full: free space there")
    return FailedPrecondition(f"sandbox {identity}: {error}")
