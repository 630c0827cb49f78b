"""Sandboxes that live are put on further networks, and taken off: routes, names and ports follow."""

from __future__ import annotations

import contextlib
from pathlib import Path

from msgspec.structs import replace

from sagong.contracts.network import Attachment, Endpoint, Sandbox
from sagong.errors import FailedPrecondition, InvalidArgument, NotFound
from sagong_network_bridge.assembly import Assembly, Tools, failure
from sagong_network_bridge.interior import (
    address_plan,
    gateway_endpoints,
    limit_plan,
    removal_plan,
    route_plan,
)
from sagong_network_bridge.joining import (
    Draft,
    check_attachment,
    interface_sysctls,
    is_published,
    release_addresses,
    routed_versions,
)
from sagong_network_bridge.links import delete_link
from sagong_network_bridge.networks import Networks
from sagong_network_bridge.ports import Ports
from sagong_network_bridge.records import SandboxRecord
from sagong_network_bridge.register import Register
from sagong_network_bridge.resolver_sockets import RESOLVER

__all__ = ["Memberships"]


class Memberships:
    """Which networks a living sandbox is on."""

    def __init__(
        self, networks: Networks, ports: Ports, register: Register, assembly: Assembly, tools: Tools
    ) -> None:
        self._networks = networks
        self._ports = ports
        self._register = register
        self._assembly = assembly
        self._tools = tools

    async def connect(self, identity: str, attachment: Attachment) -> Sandbox:
        """Put a living sandbox on a further network; on it already is no error."""
        async with self._register.alone(identity):
            record = self._register.get(identity)
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
            endpoint = await self._assembly.attach(draft, attachment, record.sandbox.endpoints)
            port = self._networks.port(self._networks.get(attachment.network))
            veth = await tools.run(tools.cells.plug, pin, port, endpoint.interface)
            attachments = (*record.request.attachments, attachment)
            changed = replace(
                record,
                request=replace(record.request, attachments=attachments),
                sandbox=replace(record.sandbox, endpoints=(*record.sandbox.endpoints, endpoint)),
                veths=record.veths | ({attachment.network: veth} if veth else {}),
            )
            await self._assembly.announce(pin, (endpoint,))
            plans = address_plan((endpoint,)), limit_plan((endpoint,), record.request.egress_bps)
            await tools.run(tools.cells.configure, pin, *plans)
            if own := interface_sysctls((attachment,), (endpoint,)):
                await tools.run(tools.cells.set_sysctls, pin, own)
            self._assembly.outside.limit(record.request, {endpoint.network: veth} if veth else {})
            changed = await self._with_resolver(changed)
            return await self._changed(record, changed)
        except BaseException as error:
            draft.release()
            if veth:
                await tools.run(tools.host.send, [delete_link(veth)])
            elif endpoint is not None:
                await self._unplug(pin, endpoint)
            if isinstance(error, OSError):
                raise failure(identity, error) from error
            raise

    async def _with_resolver(self, record: SandboxRecord) -> SandboxRecord:
        """The first network with names brings the resolver."""
        endpoints = record.sandbox.endpoints
        if record.resolver_port or not self._assembly.resolves(endpoints):
            return record
        pin = Path(record.sandbox.path)
        sockets, port = await self._tools.run(self._tools.cells.reopen, pin, 0)
        changed = replace(record, resolver_port=port, sandbox=replace(record.sandbox, dns=RESOLVER))
        self._tools.names.serve(self._assembly.order(changed.sandbox, changed.request), sockets)
        return changed

    async def _changed(self, before: SandboxRecord, after: SandboxRecord) -> Sandbox:
        """Routes, names and ports follow the endpoints; then it is recorded."""
        draft = Draft(after.request, self._networks, self._ports)
        try:
            after = self._rewired(before, after, draft)
            await self._reroute(before, after)
            if after.resolver_port:
                self._tools.names.tell(self._assembly.order(after.sandbox, after.request))
            sandbox = self._register.keep(after)
        except BaseException:
            draft.release()
            raise
        for mapping in set(before.sandbox.ports) - set(sandbox.ports):
            self._ports.release(mapping, sandbox.id)
        return sandbox

    def _rewired(self, before: SandboxRecord, after: SandboxRecord, draft: Draft) -> SandboxRecord:
        """Ports are the machine's as long as there is a way to the sandbox, and others' else."""
        request, endpoints = after.request, after.sandbox.endpoints
        ports = before.sandbox.ports
        if not is_published(self._networks, request, endpoints):
            ports = ()
        elif not ports:
            draft.publish(request.ports, endpoints)
            ports = tuple(draft.mappings)
        routed = routed_versions(self._networks, request, endpoints)
        return replace(after, sandbox=replace(after.sandbox, ports=ports, routed=routed))

    async def _reroute(self, before: SandboxRecord, after: SandboxRecord) -> None:
        ranks = self._networks.ranks(before.request), self._networks.ranks(after.request)
        old = gateway_endpoints(before.sandbox.endpoints, ranks[0])
        new = gateway_endpoints(after.sandbox.endpoints, ranks[1])
        if old != new:
            plan = route_plan(before.sandbox.endpoints, after.sandbox.endpoints, ranks)
            pin = Path(after.sandbox.path)
            await self._tools.run(self._tools.cells.configure, pin, plan)
            await self._assembly.outside.change(before, after)

    async def disconnect(self, identity: str, wanted: str, *, force: bool) -> Sandbox:
        """Take a sandbox off a network; not on it is no error."""
        async with self._register.alone(identity):
            if force and self._register.find(identity) is None:
                return Sandbox(id=identity)
            record = self._register.get(identity)
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
        self._assembly.announcements.left(gone)
        release_addresses(gone, sandbox.id, self._networks)
        return sandbox

    async def _unplug(self, pin: Path, endpoint: Endpoint) -> None:
        """Take away an interface that has no end on the host."""
        with contextlib.suppress(OSError):
            removal = removal_plan(endpoint.interface)
            await self._tools.run(self._tools.cells.configure, pin, removal)
