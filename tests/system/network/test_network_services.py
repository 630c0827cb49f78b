"""Services, node ports and policies: traffic from pods, from the machine and from outside."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sagong.contracts.network import (
    Network,
    Peer,
    Policy,
    PortMapping,
    Rules,
    Sandbox,
    ServicePort,
    Subnet,
)
from sagong.errors import InvalidArgument
from sagong_network_bridge import NetworkBridge
from tests.system.network.outer import Server, World, dial, joined, machine, plugin, reached, shell

pytestmark = pytest.mark.root

PODS = Network(
    id="9" * 64,
    name="pods",
    ipv6=True,
    subnets=(Subnet(subnet="10.244.0.0/24"), Subnet(subnet="fd44::/64")),
    options=(("sagong.resolver", "false"),),
)
CIDRS: dict[str, Any] = {
    "pod_cidrs": ("10.244.0.0/16", "fd44::/56"),
    "service_cidrs": ("10.96.0.0/16", "fd96::/112"),
}


async def pods(network: NetworkBridge, count: int) -> list[Sandbox]:
    await network.create(PODS)
    return [await joined(network, f"p{number}", "pods") for number in range(count)]


def backends(*sandboxes: Sandbox, port: int = 80) -> tuple[str, ...]:
    four = (f"{sandbox.endpoints[0].ipv4}:{port}" for sandbox in sandboxes)
    six = (f"[{sandbox.endpoints[0].ipv6}]:{port}" for sandbox in sandboxes)
    return (*four, *six)


async def words(
    path: str, address: str, port: int, count: int = 16, protocol: str = "tcp"
) -> set[str]:
    return {(await reached(path, address, port, protocol))[0] for _ in range(count)}


async def every_way(base: Path) -> None:
    async with plugin(base) as network:
        world = World(base)
        for route in ("10.96.0.0/16", "192.0.2.50/32"):
            shell(world.path, f"ip route add {route} via {World.machine}")
        a, b, c = await pods(network, 3)
        assert a.dns == "", "pods have the cluster's resolver, not this one"
        servers = [Server(s.path, 80, s.id) for s in (a, b)]
        service = ServicePort(
            name="default/web:http",
            addresses=("10.96.0.10", "fd96::10"),
            port=8000,
            node_port=30080,
            backends=backends(a, b),
            external_addresses=("192.0.2.50",),
        )
        await network.apply(Rules(generation=1, services=(service,), **CIDRS))
        for path in (a.path, c.path, "", world.path):
            assert await words(path, "10.96.0.10", 8000) == {"p0", "p1"}, path
        for path in (a.path, c.path):
            assert await words(path, "fd96::10", 8000) == {"p0", "p1"}
        for address in (World.machine, World.machine6):
            assert await words(world.path, address, 30080) == {"p0", "p1"}, address
        assert await words(world.path, "192.0.2.50", 8000) == {"p0", "p1"}
        assert await words("", "127.0.0.1", 30080) == {"p0", "p1"}
        _, seen = await reached(c.path, "10.96.0.10", 8000)
        assert seen == c.endpoints[0].ipv4, "pods lose their address on the way to a service"
        assert (await reached(c.path, "10.96.0.99", 8000))[1] == "[Errno 111] Connection refused"
        assert (await reached(c.path, "10.96.0.10", 8001))[1] == "[Errno 111] Connection refused"
        for server in servers:
            server.close()
        world.close()


def test_services_are_reached_from_everywhere() -> None:
    machine(every_way)


async def cut_off(base: Path) -> None:
    shell("", "ip route del default")
    assert "default" not in shell("", "ip route; ip -6 route")
    rules = shell("", "ip rule; ip -6 rule")
    service = ServicePort(name="default/web:http", addresses=("10.96.0.10", "fd96::10"), port=8000)
    async with plugin(base) as network:
        assert (await reached("", "10.96.0.10", 8000))[1] == "[Errno 101] Network is unreachable"
        await network.apply(Rules(generation=1, services=(service,), **CIDRS))
        assert "refused" in (await reached("", "10.96.0.10", 8000))[1], (
            "no bridge of pods is needed"
        )
        a, b = await pods(network, 2)
        server = Server(a.path, 80, a.id)
        service = replace(service, backends=backends(a))
        await network.apply(Rules(generation=2, services=(service,), **CIDRS))
    async with plugin(base) as network:
        for address in ("10.96.0.10", "fd96::10"):
            for path in (a.path, b.path, ""):
                assert (await reached(path, address, 8000))[0] == "p0", (path, address)
        for address in ("10.96.0.99", "fd96::99"):
            for path in (b.path, ""):
                assert "refused" in (await reached(path, address, 8000))[1], (path, address)
        assert "unreachable" in (await reached("", "203.0.113.1", 80))[1]
        server.close()
        await network.purge()
        assert shell("", "ip rule; ip -6 rule") == rules
        assert "10.96" not in shell("", "ip route show table all")


def test_a_machine_without_a_default_route_reaches_services() -> None:
    machine(cut_off)


async def other_way(base: Path) -> None:
    async with plugin(base) as network:
        await network.apply(Rules(generation=1, **CIDRS))
        await pods(network, 0)
        assert "dev uplink" in shell("", "ip route get 10.96.0.10"), "the machine's routes go first"


def test_a_default_route_leads_to_services_as_ever() -> None:
    machine(other_way)


async def local_only(base: Path) -> None:
    async with plugin(base) as network:
        world = World(base)
        a, b = await pods(network, 2)
        servers = [Server(s.path, 80, s.id) for s in (a, b)]
        service = ServicePort(
            name="default/local:http",
            addresses=("10.96.0.20",),
            port=8000,
            node_port=30081,
            backends=backends(a, b),
            local_backends=backends(a),
            local_only=True,
        )
        await network.apply(Rules(generation=1, services=(service,), **CIDRS))
        assert await words(b.path, "10.96.0.20", 8000) == {"p0", "p1"}
        assert await words(world.path, World.machine, 30081) == {"p0"}
        assert await reached(world.path, World.machine, 30081) == ("p0", World.address)
        nobody = replace(service, local_backends=())
        await network.apply(Rules(generation=2, services=(nobody,), **CIDRS))
        assert (await dial(world.path, World.machine, 30081))[1] == "timed out"
        nothing = replace(service, backends=(), local_only=False)
        await network.apply(Rules(generation=3, services=(nothing,), **CIDRS))
        assert "refused" in (await reached(world.path, World.machine, 30081))[1]
        assert "refused" in (await reached(b.path, "10.96.0.20", 8000))[1]
        for server in servers:
            server.close()
        world.close()


def test_outside_traffic_stays_local_and_keeps_its_address() -> None:
    machine(local_only)


async def sticking(base: Path) -> None:
    async with plugin(base) as network:
        a, b, c, d = await pods(network, 4)
        servers = [Server(s.path, 80, s.id) for s in (a, b)]
        service = ServicePort(
            name="default/sticky:http",
            addresses=("10.96.0.30", "fd96::30"),
            port=8000,
            node_port=30082,
            backends=backends(a, b),
            affinity_seconds=300,
        )
        await network.apply(Rules(generation=1, services=(service,), **CIDRS))
        for address in ("10.96.0.30", "fd96::30"):
            (chosen,) = await words(c.path, address, 8000)
            other = {"p0", "p1"} - {chosen}
            left = b if chosen == "p0" else a
            rest = replace(service, backends=backends(left))
            generation = 2 if ":" not in address else 4
            await network.apply(Rules(generation=generation, services=(rest,), **CIDRS))
            assert await words(c.path, address, 8000) == other, "it sticks to what is gone"
            both = Rules(generation=generation + 1, services=(service,), **CIDRS)
            await network.apply(both)
            assert await words(c.path, address, 8000) == other, "the change was forgotten"
        assert len(await words(d.path, "10.96.0.30", 8000)) == 1
        (kept,) = await words(c.path, "10.96.0.30", 8000)
    async with plugin(base) as network:
        assert await words(c.path, "10.96.0.30", 8000) == {kept}, "a restart moved clients"
        for server in servers:
            server.close()


def test_clients_stick_to_a_backend_while_there_is_one() -> None:
    machine(sticking)


async def listing(base: Path) -> None:
    """Every kind of rule and set: whoever looks at the machine's firewall must not see nft(8) abort."""
    shell("", "nft add table ip filter")
    shell(
        "",
        "nft add chain ip filter FORWARD '{ type filter hook forward priority 0; policy drop; }'",
    )
    settings = {"visitors": ["192.0.2.0/24"], "open_forward": "outgoing"}
    async with plugin(base, settings) as network:
        made = await pods(network, 2)
        await network.create(
            Network(
                id="7" * 64,
                name="apart",
                internal=True,
                isolated=True,
                subnets=(Subnet(subnet="10.77.0.0/24"),),
            )
        )
        ports = (
            PortMapping(container_port=80, host_port=8080),
            PortMapping(container_port=53, protocol="udp", host_ip="127.0.0.1", host_port=8053),
        )
        seen = await joined(network, "seen", "apart", "pods", ports=ports)
        common: dict[str, Any] = {"port": 80, "external_addresses": ("198.51.100.7",)}
        services = [
            ServicePort(
                name=f"ns/{name}",
                addresses=(f"10.96.0.{number}", f"fd96::{number}"),
                node_port=30000 + number,
                backends=backends(*made) if number % 2 else (),
                affinity_seconds=number // 4 * 60,
                local_only=number in (3, 7),
                local_backends=backends(*made[:1]) if number in (3, 7) else (),
                **common | {"port": 80 + number},
            )
            for number, name in enumerate("abcdefgh")
        ]
        peer = Peer(
            blocks=("10.0.0.0/8", "fd00::/8"), excepted=("10.1.0.0/16",), ports=(("tcp", 1, 9),)
        )
        chosen = tuple(a for s in made for a in (s.endpoints[0].ipv4, s.endpoints[0].ipv6))
        policies = (
            Policy(
                name="ns/some", addresses=chosen, ingress=(peer,), egress=(Peer(any_address=True),)
            ),
            Policy(name="ns/none", addresses=chosen[:2], ingress=(), egress=()),
        )
        rules = Rules(generation=1, services=tuple(services), policies=policies, **CIDRS)
        await network.apply(rules)
        await dial(seen.path, "10.96.0.5", 85)
        await dial(seen.path, "fd96::5", 85)
        for path in ("", *(s.path for s in (*made, seen))):
            for words in ("nft list ruleset", "nft -j list ruleset"):
                assert shell(path, f"{words} > /dev/null 2>&1 && echo listed") == "listed\n", (
                    path,
                    words,
                )
        assert "map @live6" in shell("", "nft list ruleset")
        assert "timeout" in shell("", "nft list map inet sg sticky4")


def test_nft_lists_every_rule() -> None:
    machine(listing)


async def datagrams(base: Path) -> None:
    async with plugin(base) as network:
        a, b, c = await pods(network, 3)
        servers = [Server(s.path, 53, s.id, "udp") for s in (a, b)]
        service = ServicePort(
            name="kube-system/dns:dns",
            addresses=("10.96.0.53",),
            port=53,
            protocol="udp",
            backends=backends(a, b, port=53),
        )
        await network.apply(Rules(generation=1, services=(service,), **CIDRS))
        assert await words(c.path, "10.96.0.53", 53, 24, "udp") == {"p0", "p1"}
        for server in servers:
            server.close()


def test_datagrams_are_spread_too() -> None:
    machine(datagrams)


async def policies(base: Path) -> None:
    async with plugin(base) as network:
        world = World(base)
        a, b, c = await pods(network, 3)
        servers = [Server(a.path, port, f"{a.id}:{port}") for port in (80, 443)]
        outside = Server(world.path, 80, "world")
        here, there, third = (s.endpoints[0] for s in (a, b, c))
        ingress = (
            Peer(
                blocks=("10.244.0.0/16", "fd44::/56"),
                excepted=(f"{third.ipv4}/32", f"{third.ipv6}/128"),
                ports=(("tcp", 80, 99),),
            ),
        )
        only = Policy(name="ns/only", addresses=(here.ipv4, here.ipv6), ingress=ingress)
        await network.apply(Rules(generation=1, policies=(only,), **CIDRS))
        for address in (here.ipv4, here.ipv6):
            assert (await reached(b.path, address, 80))[0] == "p0:80"
            assert (await dial(b.path, address, 443))[0] == ""
            assert (await dial(c.path, address, 80))[0] == "", "an exception is ignored"
            assert (await reached("", address, 443))[0] == "p0:443", (
                "the machine itself is kept out"
            )
            assert (await reached(a.path, address, 443))[0] == "p0:443"
        more = Policy(
            name="ns/more",
            addresses=(here.ipv4,),
            ingress=(Peer(any_address=True, ports=(("tcp", 443, 443),)),),
        )
        shut = Policy(name="ns/shut", addresses=(there.ipv4, there.ipv6), egress=())
        await network.apply(Rules(generation=2, policies=(only, more, shut), **CIDRS))
        assert (await reached(c.path, here.ipv4, 443))[0] == "p0:443", "policies don't add up"
        assert (await dial(b.path, here.ipv4, 80))[0] == "", "egress is open"
        assert (await dial(b.path, World.address, 80))[0] == ""
        assert (await reached(c.path, World.address, 80))[0] == "world"
        await network.apply(Rules(generation=3, policies=(shut,), **CIDRS))
        assert (await reached(c.path, here.ipv4, 443))[0] == "p0:443"
        rules = shell("", "nft list table inet sg")
        assert rules.count("chain policy_in_") == 0 and "peer_in" not in rules, "chains are left"
        for server in (*servers, outside):
            server.close()
        world.close()


def test_policies_add_up_and_go_away() -> None:
    machine(policies)


async def policies_first(base: Path) -> None:
    async with plugin(base) as network:
        shut = Policy(name="ns/shut", addresses=("10.244.0.2", "10.244.0.3"), ingress=())
        await network.apply(Rules(generation=1, policies=(shut,), **CIDRS))
        a, b = await pods(network, 2)
        address = a.endpoints[0].ipv4
        assert address in shut.addresses
        server = Server(a.path, 80, "a")
        assert (await dial(b.path, address, 80))[0] == ""
        # Where the machine's default is to hide bridged packets, this alone shows what holds.
        unseen = shell("", "nft list set inet sg switched")
        await network.apply(Rules(generation=2, policies=(shut,), **CIDRS))
        assert shell("", "nft list set inet sg switched") == unseen, "bridged packets pass unseen"
        server.close()


def test_policies_hold_for_a_network_that_is_made_after_them() -> None:
    """Its bridge's packets passed the firewall unseen until the next change of rules."""
    machine(policies_first)


async def thousands(base: Path) -> None:
    def service(number: int, *ports: int) -> ServicePort:
        return ServicePort(
            name=f"ns/s{number}:http",
            addresses=(f"10.96.{number // 250}.{number % 250 + 1}",),
            port=80,
            backends=tuple(f"10.244.{number % 200}.{p}:8080" for p in ports),
        )

    async with plugin(base) as network:
        many = [service(number, 1, 2, 3) for number in range(2000)]
        await network.apply(Rules(generation=1, services=tuple(many), **CIDRS))
        listed = await asyncio.to_thread(shell, "", "nft list map inet sg behind4")
        assert listed.count(" : ") >= 6000
        many[700] = service(700, 1, 9)
        await network.apply(Rules(generation=2, services=tuple(many), **CIDRS))
        listed = await asyncio.to_thread(shell, "", "nft list chains inet")
        assert "front4_2 " in listed and "front4_3 " in listed
        everything = await asyncio.to_thread(shell, "", "nft list ruleset | tail -c 2000")
        assert everything.rstrip().endswith("}"), f"nft can't list our rules: {everything[-200:]}"
        clash = ServicePort(name="ns/other", addresses=("10.96.0.1",), port=80)
        with pytest.raises(InvalidArgument, match="belongs to ns/s0:http"):
            await network.apply(Rules(generation=3, services=(*many, clash), **CIDRS))
        with contextlib.suppress(InvalidArgument):
            await network.apply(Rules(generation=4, **CIDRS))
        listed = await asyncio.to_thread(shell, "", "nft list table inet sg")
        assert "front4_" not in listed and "10.96.2.1" not in listed


def test_two_thousand_services_share_two_chains() -> None:
    machine(thousands)
