"""Checks of slot `network` that send packets: who reaches whom, names, services, policies."""

from __future__ import annotations

import asyncio

from sagong.conformance.network_lab import NetworkLab, free_port
from sagong.conformance.refusals import raises
from sagong.contracts.network import (
    Attachment,
    ConnectRequest,
    DisconnectRequest,
    JoinRequest,
    Peer,
    Policy,
    PortMapping,
    Rules,
    Sandbox,
    ServicePort,
)
from sagong.errors import Conflict


async def check_neighbours_reach_each_other(lab: NetworkLab) -> None:
    if lab.probe is None:
        return
    async with lab.network() as network:
        a, b = await lab.join("a", network), await lab.join("b", network)
        for protocol in ("tcp", "udp"):
            await lab.probe.serve(a, 80, protocol)
            assert await lab.probe.reach(b, a.endpoints[0].ipv4, 80, protocol) == a.id
        assert await lab.probe.reach(None, a.endpoints[0].ipv4, 80) == a.id
        assert await lab.probe.gateway(a) == network.subnets[0].gateway


async def check_networks_are_isolated_from_each_other(lab: NetworkLab) -> None:
    if lab.probe is None:
        return
    async with lab.network("a") as first, lab.network("b") as second:
        a, b = await lab.join("a", first), await lab.join("b", second)
        await lab.probe.serve(a, 80)
        address = a.endpoints[0].ipv4
        assert await lab.probe.reach(b, address, 80) == "", "another network was reached"
        wish = ConnectRequest(id=b.id, attachment=Attachment(network=first.id))
        b = await lab.networks.connect(wish)
        assert await lab.probe.reach(b, address, 80) == a.id, "connecting opened nothing"
        b = await lab.networks.disconnect(DisconnectRequest(id=b.id, network=first.id))
        assert await lab.probe.reach(b, address, 80) == "", "disconnecting closed nothing"


async def check_published_port_leads_to_the_sandbox(lab: NetworkLab) -> None:
    if lab.probe is None:
        return
    for protocol in ("tcp", "udp"):
        mapping = PortMapping(container_port=80, host_port=free_port(), protocol=protocol)
        async with lab.network() as network:
            sandbox = await lab.join("open", network, ports=(mapping,))
            await lab.probe.serve(sandbox, 80, protocol)
            port, gateway = mapping.host_port, network.subnets[0].gateway
            for address in ("127.0.0.1", gateway):
                assert await lab.probe.reach(None, address, port, protocol) == sandbox.id
            other = await lab.join("other", network)
            assert await lab.probe.reach(other, gateway, port, protocol) == sandbox.id
            assert await lab.probe.reach(sandbox, gateway, port, protocol) == sandbox.id
            await lab.leave(sandbox)
            assert await lab.probe.reach(None, "127.0.0.1", port, protocol) == ""


async def check_ports_are_published_while_a_network_leads_there(lab: NetworkLab) -> None:
    mapping = PortMapping(container_port=80, host_port=free_port())
    free = PortMapping(container_port=81)
    async with lab.network("open") as way, lab.network("shut", internal=True) as shut:
        sandbox = await lab.join("a", shut, ports=(mapping, free))
        assert sandbox.ports == (), "a port leads to an internal network"
        other = await lab.join("b", way, ports=(mapping,))
        wish = ConnectRequest(id=sandbox.id, attachment=Attachment(network=way.id))
        with raises(Conflict, "a port was given to two"):
            await lab.networks.connect(wish)
        await lab.leave(other)
        there = await lab.networks.connect(wish)
        assert [port.host_port for port in there.ports][:1] == [mapping.host_port]
        assert there.ports[1].host_port, "a free port was not chosen"
        gone = await lab.networks.disconnect(DisconnectRequest(id=sandbox.id, network=way.id))
        assert gone.ports == (), "the last way in is gone, and its ports are not"
        await lab.leave(await lab.join("c", way, ports=(mapping,)))
        if lab.probe is not None:
            await lab.networks.connect(wish)
            await lab.probe.serve(sandbox, 80, "tcp")
            assert await lab.probe.reach(None, "127.0.0.1", mapping.host_port, "tcp") == sandbox.id


async def check_names_resolve_when_join_returns(lab: NetworkLab) -> None:
    if lab.probe is None:
        return
    async with lab.network("a") as first, lab.network("b") as second:
        a, stranger = await lab.join("a", first), await lab.join("s", second)
        request = JoinRequest(
            id=lab.name("b"),
            names=(lab.name("b"),),
            attachments=(Attachment(network=first.id, aliases=("web",)),),
        )
        b = await lab.networks.join(request)
        assert b.dns, "the sandbox has no resolver"
        for name in (lab.name("b"), lab.name("b").upper(), "web"):
            assert await lab.probe.resolve(a, name) == (b.endpoints[0].ipv4,), name
        assert await lab.probe.resolve(stranger, lab.name("b")) == (), "a name leaked"
        wish = ConnectRequest(id=stranger.id, attachment=Attachment(network=first.id))
        stranger = await lab.networks.connect(wish)
        assert await lab.probe.resolve(stranger, "web") == (b.endpoints[0].ipv4,)
        await lab.leave(b)
        assert await lab.probe.resolve(a, "web") == (), "a name outlived its sandbox"


async def check_highest_priority_has_the_default_route(lab: NetworkLab) -> None:
    if lab.probe is None:
        return
    async with lab.network("a") as first, lab.network("b") as second:
        request = JoinRequest(
            id=lab.name("both"),
            attachments=(
                Attachment(network=first.id),
                Attachment(network=second.id, priority=10),
            ),
        )
        sandbox = await lab.networks.join(request)
        assert await lab.probe.gateway(sandbox) == second.subnets[0].gateway
        away = DisconnectRequest(id=sandbox.id, network=second.id)
        sandbox = await lab.networks.disconnect(away)
        assert await lab.probe.gateway(sandbox) == first.subnets[0].gateway
        late = await lab.join("late", second)
        assert await lab.probe.gateway(late) == second.subnets[0].gateway
        wish = ConnectRequest(id=late.id, attachment=Attachment(network=first.id))
        late = await lab.networks.connect(wish)
        assert await lab.probe.gateway(late) == first.subnets[0].gateway, "not by name"


def _service(lab: NetworkLab, *backends: Sandbox, address: str) -> ServicePort:
    found = tuple(f"{sandbox.endpoints[0].ipv4}:80" for sandbox in backends)
    return ServicePort(name=lab.name("web"), addresses=(address,), port=8000, backends=found)


async def _answers(lab: NetworkLab, source: Sandbox | None, address: str, count: int) -> set[str]:
    assert lab.probe is not None
    return {await lab.probe.reach(source, address, 8000) for _ in range(count)}


async def check_services_lead_to_their_backends(lab: NetworkLab) -> None:
    if lab.probe is None:
        return
    async with lab.network() as network:
        a, b, c = [await lab.join(name, network) for name in "abc"]
        for sandbox in (a, b):
            await lab.probe.serve(sandbox, 80)
        cidrs = (network.subnets[0].subnet,)
        address = "10.99.0.10"
        service = _service(lab, a, b, address=address)
        await lab.apply(services=(service,), pod_cidrs=cidrs)
        for source in (c, None):
            assert await _answers(lab, source, address, 24) == {a.id, b.id}, "not all backends"
        await lab.apply(services=(_service(lab, b, address=address),), pod_cidrs=cidrs)
        assert await _answers(lab, c, address, 24) == {b.id}, "a removed backend answered"
        old = Rules(generation=0, services=(service,), pod_cidrs=cidrs)
        await lab.networks.apply(old)
        assert await _answers(lab, c, address, 24) == {b.id}, "older rules were applied"
        await lab.apply(services=(_service(lab, address=address),), pod_cidrs=cidrs)
        assert await _answers(lab, c, address, 1) == {""}, "a service without backends answered"
        await lab.apply()


async def check_sticky_service_keeps_its_clients(lab: NetworkLab) -> None:
    if lab.probe is None:
        return
    async with lab.network() as network:
        a, b, c = [await lab.join(name, network) for name in "abc"]
        for sandbox in (a, b):
            await lab.probe.serve(sandbox, 80)
        service = ServicePort(
            name=lab.name("sticky"),
            addresses=("10.99.0.11",),
            port=8000,
            backends=tuple(f"{s.endpoints[0].ipv4}:80" for s in (a, b)),
            affinity_seconds=100,
        )
        await lab.apply(services=(service,), pod_cidrs=(network.subnets[0].subnet,))
        assert len(await _answers(lab, c, "10.99.0.11", 10)) == 1, "a client changed its backend"
        await lab.apply()


async def check_policies_let_only_peers_in(lab: NetworkLab) -> None:
    if lab.probe is None:
        return
    async with lab.network() as network:
        a, friend, other = [await lab.join(name, network) for name in ("a", "friend", "other")]
        for port in (80, 81):
            await lab.probe.serve(a, port)
        address = a.endpoints[0].ipv4
        peer = Peer(blocks=(f"{friend.endpoints[0].ipv4}/32",), ports=(("tcp", 80, 80),))
        policy = Policy(name=lab.name("p"), addresses=(address,), ingress=(peer,))
        cidrs = (network.subnets[0].subnet,)
        await lab.apply(policies=(policy,), pod_cidrs=cidrs)
        assert await lab.probe.reach(friend, address, 80) == a.id, "the peer is kept out"
        shut_out = lab.probe.reach(friend, address, 81), lab.probe.reach(other, address, 80)
        assert not any(await asyncio.gather(*shut_out)), "another port is open, or for others"
        await lab.apply(pod_cidrs=cidrs)
        assert await lab.probe.reach(other, address, 80) == a.id, "the policy outlived its removal"
        shut = Policy(name=lab.name("e"), addresses=(other.endpoints[0].ipv4,), egress=())
        await lab.apply(policies=(shut,), pod_cidrs=cidrs)
        assert await lab.probe.reach(other, address, 80) == "", "egress was not kept in"
        await lab.apply()
