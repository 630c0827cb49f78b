"""Options of networks, as Docker names them: kept, and honoured where they mean something."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from msgspec.structs import replace

from sagong.contracts.network import (
    Attachment,
    ConnectRequest,
    Endpoint,
    JoinRequest,
    Network,
    PortMapping,
    Sandbox,
    SandboxRef,
)
from sagong.errors import Conflict, InvalidArgument, SagongError
from sagong_network_bridge.addresses import link_local
from tests.system.network.outer import (
    Server,
    World,
    heard,
    joined,
    machine,
    plugin,
    reached,
    shell,
)

pytestmark = pytest.mark.root

BRIDGE = "com.docker.network.bridge"
NAMED = Network(
    id="a1" * 32,
    name="named",
    options=(
        (f"{BRIDGE}.name", "br-named"),
        (f"{BRIDGE}.inhibit_ipv4", "true"),
        ("com.docker.network.container_iface_prefix", "lan"),
        ("com.docker.network.driver.mtu", "1400"),
        ("com.docker.network.some.day", "maybe"),
    ),
)
PLAIN = Network(id="a2" * 32, name="plain")


async def honoured(base: Path) -> None:
    async with plugin(base) as network:
        await network.create(NAMED)
        await network.create(PLAIN)
        (kept,) = [n for n in (await network.networks()).networks if n.name == "named"]
        assert kept.options == NAMED.options
        assert "mtu 1400" in shell("", "ip link show br-named")
        assert "inet " not in shell("", "ip addr show br-named"), "the gateway is another machine's"
        both = await joined(network, "both", "named", "plain")
        assert [e.interface for e in both.endpoints] == ["lan0", "eth0"]
        inside = shell(both.path, "ip -br addr; ip link show lan0")
        assert "lan0" in inside and "eth0" in inside and "mtu 1400" in inside
        late = await joined(network, "late", "plain")
        wish = ConnectRequest(id="late", attachment=Attachment(network=NAMED.id))
        assert [e.interface for e in (await network.connect(wish)).endpoints] == ["eth0", "lan0"]
        assert "lan0" in shell(late.path, "ip -br link")
        pooled = await joined(network, "pooled", "named")
        assert pooled.endpoints[0].interface == "lan0" and "lan0" in shell(
            pooled.path, "ip -br link"
        )
        for name, value in (
            ("com.docker.network.container_iface_prefix", "no good"),
            ("com.docker.network.driver.mtu", "much"),
            (f"{BRIDGE}.name", "far-too-long-a-name"),
            (f"{BRIDGE}.enable_icc", "perhaps"),
            (f"{BRIDGE}.enable_ip_masquerade", "yes"),
        ):
            wrong = Network(id="a3" * 32, name="wrong", options=((name, value),))
            with pytest.raises(InvalidArgument, match=value.split()[0]):
                await network.create(wrong)
        twice = Network(id="a4" * 32, name="twice", options=NAMED.options)
        with pytest.raises(Conflict, match="networks have same bridge name: br-named"):
            await network.create(twice)
        assert f"brd {_last(late.endpoints[0])} " in shell(late.path, "ip addr show eth0")


def _last(endpoint: Endpoint) -> str:
    span = ipaddress.ip_interface(f"{endpoint.ipv4}/{endpoint.ipv4_prefix}").network
    return str(span.broadcast_address)


def test_options_are_kept_and_honoured() -> None:
    machine(honoured)


def with_modes(name: str, four: str, six: str) -> Network:
    digit = name.encode().hex()
    modes = ((f"{BRIDGE}.gateway_mode_ipv4", four), (f"{BRIDGE}.gateway_mode_ipv6", six))
    return Network(id=digit.ljust(64, "0"), name=name, ipv6=True, options=modes)


async def modes(base: Path) -> None:
    """Who outside reaches what, at the container's own address and at the machine's."""
    async with plugin(base) as network:
        world = World(base)
        outside = [Server(world.path, 80, "world")]
        ports = (PortMapping(container_port=80, host_port=8080),)
        made: dict[str, Sandbox] = {}
        for name, four, six in (
            ("routed", "routed", "routed"),
            ("mixed", "nat", "routed"),
            ("open", "nat-unprotected", "nat"),
        ):
            await network.create(with_modes(name, four, six))
            port = (replace(ports[0], host_port=8080 + len(made)),)
            made[name] = await joined(network, name, name, ports=port)
            endpoint = made[name].endpoints[0]
            shell(world.path, f"ip route add {endpoint.ipv4} via {World.machine}")
            shell(world.path, f"ip route add {endpoint.ipv6} via {World.machine6}")
            outside += [Server(made[name].path, number, name) for number in (80, 81)]

        async def seen(name: str, *wanted: str) -> list[str]:
            """IPv4, then IPv6: the published port, another one; the machine's port. [::1] then."""
            endpoint, host = made[name].endpoints[0], made[name].ports[0].host_port
            dials = [
                [(world.path, own, 80), (world.path, own, 81), (world.path, machines, host)]
                for own, machines in (
                    (endpoint.ipv4, World.machine),
                    (endpoint.ipv6, World.machine6),
                )
            ]
            found = []
            for marks, probes in zip(wanted, [*dials, [("", "::1", host)]], strict=True):
                answers = [
                    await heard(name if mark == "x" else "", *probe)
                    for mark, probe in zip(marks, probes, strict=True)
                ]
                found.append("".join("x" if answer == name else "-" for answer in answers))
            return found

        assert {name: one.routed for name, one in made.items()} == {
            "routed": (4, 6),
            "mixed": (6,),
            "open": (),
        }
        for name, wanted in (
            ("routed", ["x--", "x--", "-"]),
            ("mixed", ["--x", "x--", "x"]),
            ("open", ["xxx", "--x", "x"]),
        ):
            assert await seen(name, *wanted) == wanted, name
        four = made["routed"].endpoints[0].ipv4
        assert await reached(made["routed"].path, World.address, 80) == ("world", four)
        assert (await reached(made["mixed"].path, World.address, 80))[1] == World.machine
        assert "1 packets received" in shell(world.path, f"/bin/busybox ping -c 1 -W 20 {four}")
        assert "0 packets received" in shell(
            world.path, f"/bin/busybox ping -c 1 -W 1 {made['mixed'].endpoints[0].ipv4}"
        )
        await network.leave(SandboxRef(id="routed"))
        assert "elements" not in shell("", "nft list set inet sg opened4")
        for server in outside:
            server.close()
        world.close()


def test_gateway_modes_say_who_reaches_containers() -> None:
    machine(modes)


async def cut_off(base: Path) -> None:
    """An internal network of both versions, with the machine on it, and without."""
    async with plugin(base) as network:
        world = World(base)
        isolated = with_modes("apart", "isolated", "isolated")
        for wanted in (isolated, with_modes("wrong", "sideways", "nat")):
            with pytest.raises(InvalidArgument, match="gateway_mode_ipv4"):
                await network.create(wanted)
        await network.create(replace(isolated, internal=True))
        await network.create(replace(with_modes("inner", "nat", "nat"), internal=True))
        bridges = {name: f"br-{name.encode().hex().ljust(12, '0')}" for name in ("apart", "inner")}
        shown = {name: shell("", f"ip addr show {bridges[name]}") for name in bridges}
        assert "inet " not in shown["apart"] and "scope global" not in shown["apart"]
        assert "inet " in shown["inner"] and "scope global" in shown["inner"]
        for name in ("apart", "inner"):
            a, b = [await joined(network, f"{name}{n}", name) for n in (1, 2)]
            server, other = Server(a.path, 80, "a"), Server(world.path, 80, "world")
            for address in (a.endpoints[0].ipv4, a.endpoints[0].ipv6):
                assert (await reached(b.path, address, 80))[0] == "a"
                answer = "a" if name == "inner" else ""
                assert await heard(answer, "", address, 80) == answer
            for address in (World.address, World.address6):
                assert await heard("", a.path, address, 80) == ""
            server.close()
            other.close()
        world.close()


def test_internal_networks_lead_nowhere_in_either_version() -> None:
    machine(cut_off)


async def own_settings(base: Path) -> None:
    async with plugin(base) as network:
        await network.create(PLAIN)
        sysctls = (
            ("net.ipv4.conf.IFNAME.log_martians", "1"),
            ("net.ipv4.neigh.IFNAME.app_solicit", "7"),
        )
        wish = Attachment(network=PLAIN.id, interface="lan7", sysctls=sysctls)
        made = await network.join(JoinRequest(id="made", attachments=(wish,), names=("made",)))
        read = (
            "cat /proc/sys/net/ipv4/conf/{0}/log_martians /proc/sys/net/ipv4/neigh/{0}/app_solicit"
        )
        assert shell(made.path, read.format("lan7")).split() == ["1", "7"]
        await joined(network, "late", "bridge")
        late = await network.connect(ConnectRequest(id="late", attachment=wish))
        assert shell(late.path, read.format("lan7")).split() == ["1", "7"]
        assert shell(late.path, read.format("eth0")).split() == ["0", "0"]
        missing = replace(wish, sysctls=(("net.ipv4.conf.IFNAME.no_such", "1"),))
        with pytest.raises(SagongError, match="no_such"):
            await network.join(JoinRequest(id="wrong", attachments=(missing,)))
        assert {s.id for s in (await network.sandboxes()).sandboxes} == {"made", "late"}


def test_an_interface_has_its_own_name_and_settings() -> None:
    machine(own_settings)


async def chosen_sources(base: Path) -> None:
    """Two addresses on the way out: the kernel's choice, and the network's own."""
    async with plugin(base) as network:
        world = World(base)
        shell(
            "", "ip addr add 192.0.2.77/24 dev cable; ip addr add 2001:db8::77/64 dev cable nodad"
        )
        key = "com.docker.network.host_ipv"
        options = ((f"{key}4", "192.0.2.77"), (f"{key}6", "2001:db8::77"))
        await network.create(Network(id="b1" * 32, name="chosen", ipv6=True, options=options))
        await network.create(PLAIN)
        outside = Server(world.path, 80, "world")
        chosen = await joined(network, "chosen", "chosen")
        plain = await joined(network, "plain", "plain")
        assert (await reached(chosen.path, World.address, 80))[1] == "192.0.2.77"
        assert (await reached(chosen.path, World.address6, 80))[1] == "2001:db8::77"
        assert (await reached(plain.path, World.address, 80))[1] == World.machine
        off = (("net.ipv6.conf.all.disable_ipv6", "1"),)
        without = await joined(network, "without", "chosen", sysctls=off)
        assert (without.endpoints[0].ipv6, without.endpoints[0].gateway6) == ("", "")
        # Of the hardware address that it has, not of one that it had in the pool.
        own = shell(chosen.path, "ip -6 addr show dev eth0 scope link")
        assert f"{link_local(chosen.endpoints[0].mac)}/64" in own and own.count("inet6") == 1, own
        outside.close()
        wrong = Network(id="b2" * 32, name="wrong", options=((f"{key}4", "2001:db8::1"),))
        with pytest.raises(InvalidArgument, match="an IPv4 address"):
            await network.create(wrong)
        world.close()


def test_a_network_leaves_with_the_address_that_it_chose() -> None:
    machine(chosen_sources)


async def trusted(base: Path) -> None:
    """Who comes by a trusted interface reaches what is published at the container's own address."""
    async with plugin(base) as network:
        world = World(base)
        option = (f"{BRIDGE}.trusted_host_interfaces", "other:cable")
        await network.create(Network(id="c1" * 32, name="trusting", options=(option,)))
        await network.create(PLAIN)
        servers, found = [], {}
        for name, host in (("trusting", 8080), ("plain", 8081)):
            ports = (PortMapping(container_port=80, host_port=host),)
            made = await joined(network, name, name, ports=ports)
            own = made.endpoints[0].ipv4
            shell(world.path, f"ip route add {own} via {World.machine}")
            servers += [Server(made.path, number, name) for number in (80, 81)]
            wanted = (name if name == "trusting" else "", "")
            found[name] = [
                await heard(one, world.path, own, n)
                for one, n in zip(wanted, (80, 81), strict=True)
            ]
        assert found == {"trusting": ["trusting", ""], "plain": ["", ""]}
        for server in servers:
            server.close()
        world.close()


def test_trusted_interfaces_lead_to_what_is_published() -> None:
    machine(trusted)


async def kept_apart(base: Path) -> None:
    """`icc` is a setting of now: what was made before it has it, and loses it again."""
    for icc in (False, True):
        async with plugin(base, {"icc": icc}) as network:
            a, b = [await joined(network, f"{name}{icc}", "bridge") for name in "ab"]
            server = Server(a.path, 80, "a")
            wanted = "a" if icc else ""
            assert await heard(wanted, b.path, a.endpoints[0].ipv4, 80) == wanted
            assert await heard("a", "", a.endpoints[0].ipv4, 80) == "a", "the machine itself"
            (default,) = [n for n in (await network.networks()).networks if n.name == "bridge"]
            assert dict(default.options).get(f"{BRIDGE}.enable_icc") == (None if icc else "false")
            server.close()


def test_the_default_network_keeps_containers_apart_if_so_set() -> None:
    machine(kept_apart)
