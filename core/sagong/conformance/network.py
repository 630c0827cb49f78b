"""What every implementation of slot `network` must do, sentence by sentence of its contract.

The lab holds the candidate, with what else it lets a check do. Checks use ids, names and subnets of
their own and clean up, so one candidate can serve them all, one after the other.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets

from sagong.conformance.network_counters import (
    check_counters_are_of_each_endpoint,
    check_counters_are_of_those_asked_for,
    check_counters_go_on_over_a_crash,
    check_counters_grow_with_traffic,
    check_counters_without_networks_are_none,
)
from sagong.conformance.network_interfaces import (
    check_interface_has_the_name_asked_for,
    check_link_local_addresses_are_set,
    check_network_of_ipv6_alone,
    check_wrong_interfaces_are_refused,
)
from sagong.conformance.network_lab import NetworkLab, Probe, block, free_port
from sagong.conformance.network_macvlan import (
    check_macvlan_publishes_nothing,
    check_macvlan_sandboxes_are_neighbours,
    check_wrong_macvlans_are_refused,
)
from sagong.conformance.network_names import (
    check_given_hardware_address_is_had,
    check_links_are_names_of_one_sandbox,
    check_other_names_are_asked_of_the_nameservers,
)
from sagong.conformance.network_owners import (
    check_a_user_namespace_owns_the_sandbox,
    check_an_owned_sandbox_survives_a_crash,
    check_wrong_user_namespaces_are_refused,
)
from sagong.conformance.network_traffic import (
    check_highest_priority_has_the_default_route,
    check_names_resolve_when_join_returns,
    check_neighbours_reach_each_other,
    check_networks_are_isolated_from_each_other,
    check_policies_let_only_peers_in,
    check_ports_are_published_while_a_network_leads_there,
    check_published_port_leads_to_the_sandbox,
    check_services_lead_to_their_backends,
    check_sticky_service_keeps_its_clients,
)
from sagong.conformance.refusals import raises
from sagong.contracts.network import (
    Attachment,
    ConnectRequest,
    DisconnectRequest,
    JoinRequest,
    Network,
    NetworkRef,
    Peer,
    Policy,
    PortMapping,
    Sandbox,
    SandboxRef,
    ServicePort,
    Subnet,
)
from sagong.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)

__all__ = [
    "NetworkLab",
    "Probe",
    "check_a_user_namespace_owns_the_sandbox",
    "check_an_owned_sandbox_survives_a_crash",
    "check_connect_and_disconnect",
    "check_counters_are_of_each_endpoint",
    "check_counters_are_of_those_asked_for",
    "check_counters_go_on_over_a_crash",
    "check_counters_grow_with_traffic",
    "check_counters_without_networks_are_none",
    "check_deleted_network_is_gone",
    "check_everything_survives_a_crash",
    "check_failed_join_leaves_nothing",
    "check_foreign_address_is_refused",
    "check_free_port_is_filled_in",
    "check_free_subnet_is_chosen",
    "check_full_subnet_is_exhausted",
    "check_given_address_is_had",
    "check_given_hardware_address_is_had",
    "check_highest_priority_has_the_default_route",
    "check_interface_has_the_name_asked_for",
    "check_internal_network_has_no_gateway",
    "check_ipv6_network_has_both",
    "check_join_gives_an_address_of_the_subnet",
    "check_left_sandbox_is_gone",
    "check_link_local_addresses_are_set",
    "check_links_are_names_of_one_sandbox",
    "check_macvlan_publishes_nothing",
    "check_macvlan_sandboxes_are_neighbours",
    "check_missing_network_is_not_found",
    "check_modes_without_networks",
    "check_names_resolve_when_join_returns",
    "check_neighbours_reach_each_other",
    "check_network_in_use_is_not_deleted",
    "check_network_is_listed_as_created",
    "check_network_name_is_unique",
    "check_network_of_ipv6_alone",
    "check_networks_are_isolated_from_each_other",
    "check_other_names_are_asked_of_the_nameservers",
    "check_overlapping_subnet_is_a_conflict",
    "check_policies_let_only_peers_in",
    "check_port_is_taken_by_protocol_and_address",
    "check_ports_are_published_while_a_network_leads_there",
    "check_published_port_leads_to_the_sandbox",
    "check_range_and_reservations_are_kept",
    "check_same_join_again_returns_it",
    "check_same_network_again_is_the_one_there_is",
    "check_sandboxes_at_once_get_different_addresses",
    "check_services_lead_to_their_backends",
    "check_sticky_service_keeps_its_clients",
    "check_taken_address_is_a_conflict",
    "check_taken_port_is_a_conflict",
    "check_three_networks_exist_from_the_start",
    "check_unknown_sandbox_is_not_connected",
    "check_wrong_interfaces_are_refused",
    "check_wrong_joins_are_refused",
    "check_wrong_macvlans_are_refused",
    "check_wrong_networks_are_refused",
    "check_wrong_rules_are_refused",
    "check_wrong_user_namespaces_are_refused",
]


async def check_three_networks_exist_from_the_start(lab: NetworkLab) -> None:
    found = {network.name: network for network in (await lab.networks.networks()).networks}
    assert {"bridge", "host", "none"} <= set(found), f"only {sorted(found)} exist"
    assert found["bridge"].subnets, "the default network has no subnet"
    for name in ("bridge", "host", "none"):
        with raises(FailedPrecondition, f"network {name} was deleted"):
            await lab.networks.delete(NetworkRef(id=found[name].id))


async def check_network_is_listed_as_created(lab: NetworkLab) -> None:
    wanted = Network(
        id=secrets.token_hex(32),
        name=lab.name("kept"),
        subnets=(Subnet(subnet=block()),),
        labels=(("a", "b"), ("c", "")),
        options=(("x.y", "z"),),
    )
    await lab.networks.create(wanted)
    try:
        found = {n.id: n for n in (await lab.networks.networks()).networks}[wanted.id]
        assert (found.name, found.labels, found.options) == (
            wanted.name,
            wanted.labels,
            wanted.options,
        )
        assert found.created > 0, "the time of creation is missing"
        assert found.subnets[0].gateway, "the gateway is not told"
    finally:
        await lab.networks.delete(NetworkRef(id=wanted.id))


async def check_free_subnet_is_chosen(lab: NetworkLab) -> None:
    made = [
        await lab.networks.create(Network(id=secrets.token_hex(32), name=lab.name(f"free{n}")))
        for n in range(2)
    ]
    spaces = [ipaddress.ip_network(network.subnets[0].subnet) for network in made]
    for network in made:
        await lab.networks.delete(NetworkRef(id=network.id))
    assert not spaces[0].overlaps(spaces[1]), f"{spaces} overlap"


async def check_same_network_again_is_the_one_there_is(lab: NetworkLab) -> None:
    async with lab.network() as network:
        assert await lab.networks.create(network) == network
        count = sum(n.id == network.id for n in (await lab.networks.networks()).networks)
        assert count == 1, f"it exists {count} times"


async def check_network_name_is_unique(lab: NetworkLab) -> None:
    async with lab.network() as network:
        with raises(AlreadyExists, "two networks have one name"):
            await lab.networks.create(Network(id=secrets.token_hex(32), name=network.name))


async def check_overlapping_subnet_is_a_conflict(lab: NetworkLab) -> None:
    async with lab.network() as network:
        inner = network.subnets[0].subnet.replace("/24", "/25")
        other = Network(
            id=secrets.token_hex(32), name=lab.name("other"), subnets=(Subnet(subnet=inner),)
        )
        with raises(Conflict, "two networks overlap"):
            await lab.networks.create(other)


async def check_wrong_networks_are_refused(lab: NetworkLab) -> None:
    subnet = block()
    wrong = (
        Network(id="short", name=lab.name("id")),
        Network(id=secrets.token_hex(32), name="with/slash"),
        Network(id=secrets.token_hex(32), name=lab.name("d"), driver="no such driver"),
        Network(id=secrets.token_hex(32), name=lab.name("s"), subnets=(Subnet(subnet="10.1"),)),
        Network(
            id=secrets.token_hex(32),
            name=lab.name("g"),
            subnets=(Subnet(subnet=subnet, gateway="192.0.2.1"),),
        ),
        Network(
            id=secrets.token_hex(32),
            name=lab.name("r"),
            subnets=(Subnet(subnet=subnet, ip_range="192.0.2.0/28"),),
        ),
    )
    for network in wrong:
        with raises(InvalidArgument, f"{network} was made"):
            await lab.networks.create(network)


async def check_deleted_network_is_gone(lab: NetworkLab) -> None:
    async with lab.network() as network:
        await lab.networks.delete(NetworkRef(id=network.id))
        await lab.networks.delete(NetworkRef(id=network.id))
        assert network.id not in {n.id for n in (await lab.networks.networks()).networks}
        with raises(NotFound, "a deleted network was joined"):
            await lab.join("late", network)


async def check_network_in_use_is_not_deleted(lab: NetworkLab) -> None:
    async with lab.network() as network:
        sandbox = await lab.join("user", network)
        with raises(FailedPrecondition, "a network in use was deleted"):
            await lab.networks.delete(NetworkRef(id=network.id))
        await lab.leave(sandbox)
        await lab.networks.delete(NetworkRef(id=network.id))


async def check_join_gives_an_address_of_the_subnet(lab: NetworkLab) -> None:
    async with lab.network() as network:
        sandbox = await lab.join("one", network)
        space = ipaddress.ip_network(network.subnets[0].subnet)
        (endpoint,) = sandbox.endpoints
        assert ipaddress.ip_address(endpoint.ipv4) in space
        assert endpoint.ipv4_prefix == space.prefixlen
        assert endpoint.gateway4 == network.subnets[0].gateway != endpoint.ipv4
        assert endpoint.network == network.id and endpoint.interface and endpoint.mac
        assert sandbox.path, "the sandbox has no namespace"


async def check_same_join_again_returns_it(lab: NetworkLab) -> None:
    async with lab.network() as network:
        first = await lab.join("one", network)
        assert await lab.join("one", network) == first
        assert await lab.networks.inspect(SandboxRef(id=first.id)) == first
        count = sum(s.id == first.id for s in (await lab.networks.sandboxes()).sandboxes)
        assert count == 1, f"it exists {count} times"


async def check_sandboxes_at_once_get_different_addresses(lab: NetworkLab) -> None:
    async with lab.network() as network:
        async with asyncio.TaskGroup() as group:
            joins = [group.create_task(lab.join(f"s{n}", network)) for n in range(8)]
        addresses = [join.result().endpoints[0].ipv4 for join in joins]
        assert len(set(addresses)) == 8, f"{addresses} are not all different"
        assert len({join.result().path for join in joins}) == 8, "namespaces are shared"


async def _join_at(lab: NetworkLab, name: str, network: Network, address: str) -> Sandbox:
    attachment = Attachment(network=network.id, ipv4=address)
    request = JoinRequest(id=lab.name(name), attachments=(attachment,))
    return await lab.networks.join(request)


def _address(network: Network, number: int) -> str:
    return str(ipaddress.ip_network(network.subnets[0].subnet)[number])


async def check_given_address_is_had(lab: NetworkLab) -> None:
    async with lab.network() as network:
        sandbox = await _join_at(lab, "fixed", network, _address(network, 77))
        assert sandbox.endpoints[0].ipv4 == _address(network, 77)


async def check_taken_address_is_a_conflict(lab: NetworkLab) -> None:
    async with lab.network() as network:
        first = await _join_at(lab, "first", network, _address(network, 9))
        for taken in (first.endpoints[0].ipv4, network.subnets[0].gateway):
            with raises(Conflict, f"{taken} was given twice"):
                await _join_at(lab, "second", network, taken)
        assert lab.name("second") not in await lab.ids()


async def check_foreign_address_is_refused(lab: NetworkLab) -> None:
    async with lab.network() as network:
        for address in ("192.0.2.1", "no address", _address(network, 255)):
            with raises(InvalidArgument, f"{address} was given"):
                await _join_at(lab, "foreign", network, address)


async def check_full_subnet_is_exhausted(lab: NetworkLab) -> None:
    small = Subnet(subnet=block().replace("/24", "/29"))
    async with lab.network(subnet=small) as network:
        sandboxes = [await lab.join(f"s{n}", network) for n in range(5)]
        with raises(ResourceExhausted, "a /29 has room for six with the gateway"):
            await lab.join("one too many", network)
        await lab.leave(sandboxes[2])
        again = await lab.join("next", network)
        assert again.endpoints[0].ipv4 == sandboxes[2].endpoints[0].ipv4


async def check_range_and_reservations_are_kept(lab: NetworkLab) -> None:
    subnet = block()
    part = subnet.replace(".0/24", ".64/29")
    reserved = str(ipaddress.ip_network(part)[1])
    wanted = Subnet(subnet=subnet, ip_range=part, reserved=(("printer", reserved),))
    async with lab.network(subnet=wanted) as network:
        found = {(await lab.join(f"s{n}", network)).endpoints[0].ipv4 for n in range(4)}
        assert reserved not in found, "a reserved address was given"
        inside = ipaddress.ip_network(part)
        assert all(ipaddress.ip_address(a) in inside for a in found), f"{found} not in {part}"


async def check_missing_network_is_not_found(lab: NetworkLab) -> None:
    missing = Network(id=secrets.token_hex(32), name="missing")
    with raises(NotFound, "a missing network was joined") as found:
        await lab.join("lost", missing)
    assert missing.id[:12] in found[0].message, "the error does not name the network"
    assert lab.name("lost") not in await lab.ids()


async def check_failed_join_leaves_nothing(lab: NetworkLab) -> None:
    port = PortMapping(container_port=80, host_port=free_port())
    async with lab.network() as network:
        missing = Attachment(network=secrets.token_hex(32))
        fixed = Attachment(network=network.id, ipv4=_address(network, 50))
        request = JoinRequest(id=lab.name("bad"), attachments=(fixed, missing), ports=(port,))
        with raises(NotFound, "half a sandbox was made"):
            await lab.networks.join(request)
        assert request.id not in await lab.ids()
        second = JoinRequest(id=lab.name("good"), attachments=(fixed,), ports=(port,))
        assert (await lab.networks.join(second)).endpoints[0].ipv4 == _address(network, 50)


async def check_wrong_joins_are_refused(lab: NetworkLab) -> None:
    async with lab.network() as network:
        there = (Attachment(network=network.id),)
        wrong = (
            JoinRequest(id="", attachments=there),
            JoinRequest(id=lab.name("x"), mode="no such mode"),
            JoinRequest(id=lab.name("x"), mode="none", attachments=there),
            JoinRequest(id=lab.name("x"), attachments=there * 2),
            JoinRequest(id=lab.name("x"), attachments=(Attachment(network=network.id, mac="x"),)),
            JoinRequest(id=lab.name("x"), attachments=there, sysctls=(("kernel.panic", "1"),)),
            JoinRequest(id=lab.name("x"), attachments=there, nameservers=("nowhere",)),
            *(
                JoinRequest(id=lab.name("x"), attachments=there, ports=(port,))
                for port in (
                    PortMapping(container_port=0),
                    PortMapping(container_port=80, host_port=70000),
                    PortMapping(container_port=80, protocol="gopher"),
                    PortMapping(container_port=80, host_ip="nowhere"),
                )
            ),
        )
        for request in wrong:
            with raises(InvalidArgument, f"{request} was joined"):
                await lab.networks.join(request)
        assert lab.name("x") not in await lab.ids()


async def check_left_sandbox_is_gone(lab: NetworkLab) -> None:
    async with lab.network() as network:
        sandbox = await _join_at(lab, "gone", network, _address(network, 30))
        await lab.leave(sandbox)
        await lab.leave(sandbox)
        assert sandbox.id not in await lab.ids()
        with raises(NotFound, "a sandbox that left is inspected"):
            await lab.networks.inspect(SandboxRef(id=sandbox.id))
        # What was left is taken by others, and by the same one again, who then has it alone.
        for name in ("after", "again", "again"):
            again = await _join_at(lab, name, network, _address(network, 30))
            assert again.endpoints[0].ipv4 == _address(network, 30)
            await lab.leave(again)
        await _join_at(lab, "again", network, _address(network, 30))
        with raises(Conflict, "an address was given twice"):
            await _join_at(lab, "other", network, _address(network, 30))


async def check_modes_without_networks(lab: NetworkLab) -> None:
    for mode in ("none", "host"):
        request = JoinRequest(id=lab.name(mode), mode=mode)
        sandbox = await lab.networks.join(request)
        assert sandbox.mode == mode and not sandbox.endpoints
        assert bool(sandbox.path) == (mode == "none"), f"{mode}: path {sandbox.path!r}"
        await lab.leave(sandbox)


async def check_free_port_is_filled_in(lab: NetworkLab) -> None:
    async with lab.network() as network:
        wish = (PortMapping(container_port=80), PortMapping(container_port=81))
        sandbox = await lab.join("open", network, ports=wish)
        ports = [mapping.host_port for mapping in sandbox.ports]
        assert all(ports) and len(set(ports)) == 2, f"host ports {ports}"
        assert [mapping.container_port for mapping in sandbox.ports] == [80, 81]


async def check_taken_port_is_a_conflict(lab: NetworkLab) -> None:
    number = free_port()
    mapping = PortMapping(container_port=80, host_port=number)
    local = PortMapping(container_port=80, host_port=number, host_ip="127.0.0.1")
    async with lab.network() as network:
        first = await lab.join("first", network, ports=(mapping,))
        for wish in (mapping, local):
            with raises(Conflict, f"{wish} was given twice") as found:
                await lab.join("second", network, ports=(wish,))
            assert "port is already allocated" in found[0].message
        await lab.leave(first)
        await lab.join("second", network, ports=(mapping,))


async def check_port_is_taken_by_protocol_and_address(lab: NetworkLab) -> None:
    number = free_port()
    wishes = (
        PortMapping(container_port=80, host_port=number, host_ip="127.0.0.1"),
        PortMapping(container_port=80, host_port=number, host_ip="127.0.0.2"),
        PortMapping(container_port=80, host_port=number, protocol="udp"),
    )
    async with lab.network() as network:
        for position, wish in enumerate(wishes):
            await lab.join(f"s{position}", network, ports=(wish,))


async def check_connect_and_disconnect(lab: NetworkLab) -> None:
    async with lab.network("a") as first, lab.network("b") as second:
        sandbox = await lab.join("mover", first)
        wish = ConnectRequest(
            id=sandbox.id, attachment=Attachment(network=second.id, aliases=("x",))
        )
        both = await lab.networks.connect(wish)
        assert [e.network for e in both.endpoints] == [first.id, second.id]
        assert both.endpoints[1].aliases == ("x",)
        assert len({e.interface for e in both.endpoints}) == 2
        assert await lab.networks.connect(wish) == both, "connecting again changed something"
        away = DisconnectRequest(id=sandbox.id, network=first.id)
        left = await lab.networks.disconnect(away)
        assert [e.network for e in left.endpoints] == [second.id]
        assert await lab.networks.disconnect(away) == left, "disconnecting again changed something"
        assert await lab.networks.inspect(SandboxRef(id=sandbox.id)) == left
        await lab.networks.delete(NetworkRef(id=first.id))


async def check_a_sandbox_may_begin_without_networks(lab: NetworkLab) -> None:
    async with lab.network() as network:
        sandbox = await lab.join("alone")
        assert (sandbox.mode, sandbox.endpoints) == ("networks", ()) and sandbox.path
        wish = ConnectRequest(id=sandbox.id, attachment=Attachment(network=network.id))
        assert [e.network for e in (await lab.networks.connect(wish)).endpoints] == [network.id]
        await lab.leave(sandbox)


async def check_unknown_sandbox_is_not_connected(lab: NetworkLab) -> None:
    async with lab.network() as network:
        unknown = lab.name("unknown")
        with raises(NotFound, "an unknown sandbox was connected"):
            await lab.networks.connect(
                ConnectRequest(id=unknown, attachment=Attachment(network=network.id))
            )
        with raises(NotFound, "an unknown sandbox was disconnected"):
            await lab.networks.disconnect(DisconnectRequest(id=unknown, network=network.id))
        request = DisconnectRequest(id=unknown, network=network.id, force=True)
        assert (await lab.networks.disconnect(request)).id == unknown


async def check_internal_network_has_no_gateway(lab: NetworkLab) -> None:
    async with lab.network(internal=True) as network:
        sandbox = await lab.join("inside", network)
        assert sandbox.endpoints[0].gateway4 == "", "an internal network has a way out"
        if lab.probe is not None:
            assert await lab.probe.gateway(sandbox) == ""


async def check_ipv6_network_has_both(lab: NetworkLab) -> None:
    wanted = Network(id=secrets.token_hex(32), name=lab.name("six"), ipv6=True)
    network = await lab.networks.create(wanted)
    try:
        endpoint = (await lab.join("six", network)).endpoints[0]
        assert ipaddress.ip_address(endpoint.ipv4).version == 4
        assert ipaddress.ip_address(endpoint.ipv6).version == 6
        assert endpoint.gateway6 and endpoint.ipv6_prefix
    finally:
        await lab.networks.leave(SandboxRef(id=lab.name("six")))
        await lab.networks.delete(NetworkRef(id=network.id))


async def check_everything_survives_a_crash(lab: NetworkLab) -> None:
    if lab.restart is None:
        return
    mapping = PortMapping(container_port=80, host_port=free_port())
    async with lab.network() as network:
        before = await lab.join("kept", network, ports=(mapping,))
        lab.networks = await lab.restart()
        assert await lab.networks.inspect(SandboxRef(id=before.id)) == before
        assert network in (await lab.networks.networks()).networks, "the network is gone"
        with raises(Conflict, "a port was given twice after a crash"):
            await lab.join("thief", network, ports=(mapping,))
        with raises(Conflict, "an address was given twice after a crash"):
            await _join_at(lab, "thief", network, before.endpoints[0].ipv4)
        other = await lab.join("other", network)
        assert other.endpoints[0].ipv4 != before.endpoints[0].ipv4
        if lab.probe is not None:
            await lab.probe.serve(before, 80)
            assert await lab.probe.reach(None, "127.0.0.1", mapping.host_port) == before.id
            assert await lab.probe.resolve(other, before.names[0]) == (before.endpoints[0].ipv4,)


async def check_wrong_rules_are_refused(lab: NetworkLab) -> None:
    wrong = (
        ServicePort(name="w", addresses=("no address",), port=80),
        ServicePort(name="w", addresses=("10.99.0.1",), port=0),
        ServicePort(name="w", addresses=("10.99.0.1",), port=80, protocol="gopher"),
        ServicePort(name="w", addresses=("10.99.0.1",), port=80, backends=("10.0.0.1",)),
    )
    for service in wrong:
        with raises(InvalidArgument, f"{service} was applied"):
            await lab.apply(services=(service,))
    policy = Policy(name="w", addresses=("10.0.0.1",), ingress=(Peer(blocks=("all",)),))
    with raises(InvalidArgument, f"{policy} was applied"):
        await lab.apply(policies=(policy,))
