"""The fake network broken in one way each: the network suite must catch every one."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from msgspec.structs import replace
from tests.conformance.fake_network import FakeNetworks, FakeProbe

from sagong.conformance.network_lab import ELSEWHERE
from sagong.contracts.network import (
    Attachment,
    ConnectRequest,
    CountersList,
    CountersQuery,
    DisconnectRequest,
    Endpoint,
    JoinRequest,
    Network,
    NetworkRef,
    PortMapping,
    Rules,
    Sandbox,
    SandboxCounters,
    SandboxRef,
    ServicePort,
    Subnet,
)
from sagong.errors import Conflict, FailedPrecondition

__all__ = ["MUTATIONS", "PROBES"]


class KeepsPortsWithoutAWay(FakeNetworks):
    caught_by = "ports_are_published_while_a_network_leads_there"

    async def disconnect(self, request: DisconnectRequest) -> Sandbox:
        before = await self.inspect(SandboxRef(id=request.id))
        gone = replace(await super().disconnect(request), ports=before.ports)
        self.memory.sandboxes[request.id] = (self.memory.sandboxes[request.id][0], gone)
        return gone


class AnyNameGoes(FakeNetworks):
    caught_by = "network_name_is_unique"

    async def create(self, network: Network) -> Network:
        taken = any(n.name == network.name for n in self.memory.networks.values())
        return await super().create(replace(network, name=f"{network.name}2") if taken else network)


class SubnetsMayOverlap(FakeNetworks):
    caught_by = "overlapping_subnet_is_a_conflict"

    def overlaps(self, space: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
        return False


class ForgetsLabels(FakeNetworks):
    caught_by = "network_is_listed_as_created"

    async def create(self, network: Network) -> Network:
        return await super().create(replace(network, labels=()))


class GatewayAnywhere(FakeNetworks):
    caught_by = "wrong_networks_are_refused"

    def with_gateway(self, subnet: Subnet) -> Subnet:
        return replace(super().with_gateway(replace(subnet, gateway="")), gateway=subnet.gateway)


class DeletesUsedNetworks(FakeNetworks):
    caught_by = "network_in_use_is_not_deleted"

    def users(self, network: str) -> list[str]:
        return []


class DeletesDefaults(FakeNetworks):
    caught_by = "three_networks_exist_from_the_start"

    async def delete(self, network: NetworkRef) -> None:
        self.memory.networks.pop(network.id, None)


class UnknownDeleteFails(FakeNetworks):
    caught_by = "deleted_network_is_gone"

    async def delete(self, network: NetworkRef) -> None:
        if network.id not in self.memory.networks:
            raise FailedPrecondition("no such network")
        await super().delete(network)


class AddressesTwice(FakeNetworks):
    caught_by = "sandboxes_at_once_get_different_addresses"

    def taken(self) -> dict[str, str]:
        return {s.gateway: "" for n in self.memory.networks.values() for s in n.subnets}


class IgnoresGivenAddress(FakeNetworks):
    caught_by = "given_address_is_had"

    def endpoint(self, attachment: Attachment, interface: str) -> Endpoint:
        return super().endpoint(replace(attachment, ipv4=""), interface)


class IgnoresHardwareAddress(FakeNetworks):
    caught_by = "given_hardware_address_is_had"

    def endpoint(self, attachment: Attachment, interface: str) -> Endpoint:
        return super().endpoint(replace(attachment, mac=""), interface)


class TakesAnyNameserver(FakeNetworks):
    caught_by = "wrong_joins_are_refused"

    def check_request(self, request: JoinRequest) -> None:
        super().check_request(replace(request, nameservers=()))


class InterfacesKeepTheirOwnNames(FakeNetworks):
    caught_by = "interface_has_the_name_asked_for"

    def named(self, attachment: Attachment, endpoints: Iterable[Endpoint]) -> str:
        return super().named(replace(attachment, interface=""), endpoints)


class NoLinkLocals(FakeNetworks):
    caught_by = "link_local_addresses_are_set"

    def endpoint(self, attachment: Attachment, interface: str) -> Endpoint:
        return super().endpoint(replace(attachment, link_locals=()), interface)


class TwoOfOneName(FakeNetworks):
    caught_by = "wrong_interfaces_are_refused"

    def named(self, attachment: Attachment, endpoints: Iterable[Endpoint]) -> str:
        return attachment.interface or super().named(attachment, endpoints)


class AnyInterfaceGoes(FakeNetworks):
    caught_by = "wrong_interfaces_are_refused"

    def check_interface(self, attachment: Attachment) -> None:
        return


class AlwaysIPv4(FakeNetworks):
    caught_by = "network_of_ipv6_alone"

    async def create(self, network: Network) -> Network:
        return await super().create(replace(network, ipv4=True))


class AnyParentGoes(FakeNetworks):
    caught_by = "wrong_macvlans_are_refused"

    def check_macvlan(self, options: dict[str, str]) -> None:
        return


class MacvlanPublishes(FakeNetworks):
    caught_by = "macvlan_publishes_nothing"

    def publishes(self, endpoints: Iterable[Endpoint]) -> bool:
        return True


class GivesTakenAddress(FakeNetworks):
    caught_by = "taken_address_is_a_conflict"

    def given(self, wish: str, space: ipaddress.IPv4Network | ipaddress.IPv6Network) -> str:
        try:
            return super().given(wish, space)
        except Conflict:
            return wish


class GivesReserved(FakeNetworks):
    caught_by = "range_and_reservations_are_kept"

    def free(self, subnet: Subnet) -> str:
        return super().free(replace(subnet, ip_range=""))


class FailedJoinKeepsPorts(FakeNetworks):
    caught_by = "failed_join_leaves_nothing"

    async def join(self, request: JoinRequest) -> Sandbox:
        ports = [self.port(mapping, []) for mapping in request.ports]
        try:
            return await super().join(request)
        except Exception:
            ghost = Sandbox(id=f"ghost {request.id}", ports=tuple(ports))
            self.memory.sandboxes[ghost.id] = (request, ghost)
            raise


class KeepsTheMachinesOwner(FakeNetworks):
    caught_by = "a_user_namespace_owns_the_sandbox"

    async def join(self, request: JoinRequest) -> Sandbox:
        return await super().join(replace(request, user_namespace=None))


class ForgetsTheOwner(FakeNetworks):
    caught_by = "an_owned_sandbox_survives_a_crash"

    def kill(self) -> None:
        for identity, (request, sandbox) in self.memory.sandboxes.items():
            self.memory.sandboxes[identity] = (request, replace(sandbox, user_path=""))


class JoinsTwice(FakeNetworks):
    caught_by = "same_join_again_returns_it"

    async def join(self, request: JoinRequest) -> Sandbox:
        self.memory.sandboxes.pop(request.id, None)
        sandbox = await super().join(request)
        again = replace(sandbox, path=f"{sandbox.path}{next(self.counter)}")
        self.memory.sandboxes[request.id] = (request, again)
        return again


class LeavesPortZero(FakeNetworks):
    caught_by = "free_port_is_filled_in"

    def port(self, mapping: PortMapping, others: list[PortMapping]) -> PortMapping:
        return mapping if not mapping.host_port else super().port(mapping, others)


class PortOfOneAddressIsFree(FakeNetworks):
    caught_by = "taken_port_is_a_conflict"

    def clash(self, one: PortMapping, other: PortMapping) -> bool:
        return super().clash(one, other) and one.host_ip == other.host_ip


class ProtocolsShareAPort(FakeNetworks):
    caught_by = "port_is_taken_by_protocol_and_address"

    def clash(self, one: PortMapping, other: PortMapping) -> bool:
        return super().clash(replace(one, protocol="tcp"), replace(other, protocol="tcp"))


class LeaveKeeps(FakeNetworks):
    caught_by = "left_sandbox_is_gone"

    async def leave(self, sandbox: SandboxRef) -> None:
        return None


class ConnectsTwice(FakeNetworks):
    caught_by = "connect_and_disconnect"

    async def connect(self, request: ConnectRequest) -> Sandbox:
        away = DisconnectRequest(id=request.id, network=request.attachment.network)
        await self.disconnect(away)
        sandbox = await super().connect(request)
        moved = replace(sandbox.endpoints[-1], interface=f"eth{next(self.counter)}")
        sandbox = replace(sandbox, endpoints=(*sandbox.endpoints[:-1], moved))
        self.memory.sandboxes[request.id] = (self.memory.sandboxes[request.id][0], sandbox)
        return sandbox


class ForceStillFails(FakeNetworks):
    caught_by = "unknown_sandbox_is_not_connected"

    async def disconnect(self, request: DisconnectRequest) -> Sandbox:
        return await super().disconnect(replace(request, force=False))


class CountsAsTheMachineSeesIt(FakeNetworks):
    caught_by = "counters_grow_with_traffic"

    def passed(self, sandbox: Sandbox, network: str, rx: int, tx: int) -> None:
        super().passed(sandbox, network, tx, rx)


class CountsOnlyTheFirstInterface(FakeNetworks):
    caught_by = "counters_are_of_each_endpoint"

    def counted(self, sandbox: Sandbox) -> SandboxCounters:
        return super().counted(replace(sandbox, endpoints=sandbox.endpoints[:1]))


class CountsFromTheStart(FakeNetworks):
    caught_by = "counters_go_on_over_a_crash"

    def kill(self) -> None:
        self.memory.traffic.clear()


class CountsTheUnknown(FakeNetworks):
    caught_by = "counters_are_of_those_asked_for"

    async def counters(self, query: CountersQuery) -> CountersList:
        unknown = set(query.ids) - self.memory.sandboxes.keys()
        found = (await super().counters(query)).sandboxes
        return CountersList(sandboxes=(*found, *(SandboxCounters(id=i) for i in unknown)))


class InternalHasAGateway(FakeNetworks):
    caught_by = "internal_network_has_no_gateway"

    def endpoint(self, attachment: Attachment, interface: str) -> Endpoint:
        subnet = self.network(attachment.network).subnets[0]
        return replace(super().endpoint(attachment, interface), gateway4=subnet.gateway)


class LosesSandboxes(FakeNetworks):
    caught_by = "everything_survives_a_crash"

    def kill(self) -> None:
        self.memory.sandboxes.clear()


class OldRulesWin(FakeNetworks):
    caught_by = "services_lead_to_their_backends"

    def newer(self, rules: Rules) -> bool:
        return True


class TakesAnyRules(FakeNetworks):
    caught_by = "wrong_rules_are_refused"

    def check_service(self, service: ServicePort) -> None:
        return None


class EverybodyReachesAll(FakeProbe):
    caught_by = "networks_are_isolated_from_each_other"

    def connected(self, source: Sandbox | None, network: str) -> bool:
        return True


class FirstBackendOnly(FakeProbe):
    caught_by = "services_lead_to_their_backends"

    def backend(self, service: ServicePort, client: str) -> str:
        return service.backends[0] if service.backends else ""


class NobodySticks(FakeProbe):
    caught_by = "sticky_service_keeps_its_clients"

    def backend(self, service: ServicePort, client: str) -> str:
        return super().backend(replace(service, affinity_seconds=0), client)


class PoliciesAreIgnored(FakeProbe):
    caught_by = "policies_let_only_peers_in"

    def allowed(
        self, source: Sandbox | None, target: Sandbox, address: str, port: int, protocol: str
    ) -> bool:
        return True


class NamesAreEverywhere(FakeProbe):
    caught_by = "names_resolve_when_join_returns"

    async def resolve(self, sandbox: Sandbox, name: str) -> tuple[str, ...]:
        everybody = (other for _, other in self.networks.all())
        return tuple(
            endpoint.ipv4
            for other in everybody
            for endpoint in other.endpoints
            if name.lower() in {n.lower() for n in (*other.names, *endpoint.aliases)}
        )


class FirstNetworkRoutes(FakeProbe):
    caught_by = "highest_priority_has_the_default_route"

    async def gateway(self, sandbox: Sandbox) -> str:
        current = self.current(sandbox)
        assert current is not None
        return current.endpoints[0].gateway4


class LatestOfEqualsRoutes(FakeProbe):
    caught_by = "highest_priority_has_the_default_route"

    async def gateway(self, sandbox: Sandbox) -> str:
        current = self.current(sandbox)
        assert current is not None
        request, _ = self.networks.memory.sandboxes[sandbox.id]
        wishes = {attachment.network: attachment.priority for attachment in request.attachments}
        return max(current.endpoints, key=lambda e: wishes.get(e.network, 0)).gateway4


class NobodyAsksElsewhere(FakeProbe):
    caught_by = "other_names_are_asked_of_the_nameservers"

    def asked_elsewhere(self, asker: Sandbox, name: str) -> tuple[str, ...]:
        return ()


class InternalOnesAskElsewhere(FakeProbe):
    caught_by = "other_names_are_asked_of_the_nameservers"

    def asked_elsewhere(self, asker: Sandbox, name: str) -> tuple[str, ...]:
        return (ELSEWHERE[1],) if name == ELSEWHERE[0] else ()


class LinksAreIgnored(FakeProbe):
    caught_by = "links_are_names_of_one_sandbox"

    def links(self, asker: Sandbox) -> dict[str, str]:
        return {}


class LinksAreEverybodys(FakeProbe):
    caught_by = "links_are_names_of_one_sandbox"

    def links(self, asker: Sandbox) -> dict[str, str]:
        requests = (request for request, _ in self.networks.all())
        return {m: t for request in requests for a in request.attachments for m, t in a.links}


class MacvlansAreStrangers(FakeProbe):
    caught_by = "macvlan_sandboxes_are_neighbours"

    def connected(self, source: Sandbox | None, network: str) -> bool:
        if self.networks.network(network).driver == "macvlan":
            return False
        return super().connected(source, network)


class NothingIsPublished(FakeProbe):
    caught_by = "published_port_leads_to_the_sandbox"

    def published(self, address: str, port: int, protocol: str) -> tuple[str, int] | None:
        return None


MUTATIONS = [kind for kind in FakeNetworks.__subclasses__() if kind.__module__ == __name__]
PROBES = [kind for kind in FakeProbe.__subclasses__() if kind.__module__ == __name__]
