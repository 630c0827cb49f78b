"""Published ports from everywhere they must work, and from where they must not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sagong.contracts.network import Network, NetworkRef, PortMapping, SandboxRef
from sagong.errors import Conflict, FailedPrecondition
from tests.system.network.outer import (
    Server,
    World,
    dial,
    heard,
    joined,
    machine,
    plugin,
    reached,
    shell,
    until,
    within,
)

pytestmark = pytest.mark.root

SIX = Network(id="6" * 64, name="six", ipv6=True)


async def from_everywhere(base: Path) -> None:
    async with plugin(base) as network:
        world = World(base)
        await network.create(SIX)
        for name, wanted in (("four", "bridge"), ("both", "six")):
            for protocol in ("tcp", "udp"):
                ports = (PortMapping(container_port=80, protocol=protocol),)
                sandbox = await joined(network, f"{name}-{protocol}", wanted, ports=ports)
                server = Server(sandbox.path, 80, name, protocol)
                port = sandbox.ports[0].host_port
                gateway = sandbox.endpoints[0].gateway4
                for address in ("127.0.0.1", "127.9.9.9", "::1", gateway, World.machine):
                    answer = await reached("", address, port, protocol)
                    assert answer[0] == name, (name, protocol, address, answer)
                answer = await reached(world.path, World.machine, port, protocol)
                assert answer == (name, World.address), "the client's address is lost"
                if name == "both":
                    answer = await reached(world.path, World.machine6, port, protocol)
                    assert answer == (name, World.address6)
                    six = sandbox.endpoints[0].gateway6
                    assert (await reached("", six, port, protocol))[0] == name
                    assert (await reached(sandbox.path, six, port, protocol))[0] == name
                server.close()
        world.close()


def test_a_published_port_is_reached_from_everywhere() -> None:
    machine(from_everywhere)


async def by_loopback_of_ipv6(base: Path) -> None:
    """Published on [::1] alone, beside the same port of 127.0.0.1; also of who has no IPv4."""
    async with plugin(base) as network:
        world = World(base)
        options = (("com.docker.network.enable_ipv4", "false"),)
        await network.create(SIX)
        only = Network(id="7" * 64, name="only", ipv6=True, options=options)
        await network.create(only)
        port = 8080
        for name, wanted, host_ip in (
            ("four", "bridge", "::1"),
            ("beside", "bridge", "127.0.0.1"),
            ("both", "six", "::1"),
            ("alone", "only", "::1"),
            ("open", "only", ""),
        ):
            port += name != "beside"
            mapping = PortMapping(container_port=80, host_ip=host_ip, host_port=port)
            sandbox = await joined(network, name, wanted, ports=(mapping,))
            server = Server(sandbox.path, 80, name)
            asked = "127.0.0.1" if name == "beside" else "::1"
            assert (await reached("", asked, port))[0] == name, name
            for stranger in (World.machine, World.machine6) if name != "open" else ():
                assert (await reached(world.path, stranger, port))[0] == "", name
            server.close()
        server = Server((await network.inspect(SandboxRef(id="four"))).path, 80, "four")
        assert (await reached("", "::1", 8081))[0] == "four", "another one took its place"
        await network.leave(SandboxRef(id="four"))
        assert (await reached("", "::1", 8081))[0] == ""
        server.close()
        world.close()


def test_a_port_may_be_published_on_the_loopback_of_ipv6_alone() -> None:
    machine(by_loopback_of_ipv6)


async def only_by_the_port(base: Path) -> None:
    async with plugin(base) as network:
        world = World(base)
        ports = (PortMapping(container_port=80, host_ip="127.0.0.1"),)
        sandbox = await joined(network, "c", "bridge", ports=ports)
        server, port = Server(sandbox.path, 80, "c"), sandbox.ports[0].host_port
        assert (await reached("", "127.0.0.1", port))[0] == "c"
        assert (await dial(world.path, World.machine, port))[0] == ""
        shell(world.path, f"ip route add 172.16.0.0/12 via {World.machine}")
        address = sandbox.endpoints[0].ipv4
        assert (await dial(world.path, address, 80))[0] == "", "unpublished ports are open"
        shell(world.path, f"ip route add 127.0.0.1/32 via {World.machine} dev plug")
        assert (await reached(sandbox.path, World.address, 1))[1] != "timed out"
        server.close()
        world.close()


def test_what_is_not_published_is_not_reached_from_outside() -> None:
    machine(only_by_the_port)


async def loopback_is_shut(base: Path) -> None:
    """Bridges route 127.0.0.0/8 for published ports; containers must not use that."""
    async with plugin(base) as network:
        sandbox = await joined(network, "c", "bridge")
        listening = Server("", 7777, "secret")
        shell(sandbox.path, "sysctl -w net.ipv4.conf.all.route_localnet=1")
        shell(sandbox.path, "ip route del local 127.0.0.0/8 table local; ip addr flush dev lo")
        shell(sandbox.path, f"ip route add 127.0.0.1 via {sandbox.endpoints[0].gateway4}")
        assert (await dial(sandbox.path, "127.0.0.1", 7777))[0] == ""
        listening.close()


def test_a_container_does_not_reach_the_machine_s_loopback() -> None:
    machine(loopback_is_shut)


async def taken_by_a_program(base: Path) -> None:
    async with plugin(base) as network:
        with contextlib.closing(socket.socket()) as program:
            program.bind(("127.0.0.1", 9000))
            program.listen()
            ports = (PortMapping(container_port=80, host_port=9000),)
            with pytest.raises(Conflict, match="port is already allocated"):
                await joined(network, "c", "bridge", ports=ports)
        foreign = (PortMapping(container_port=80, host_port=9001, host_ip="203.0.113.7"),)
        with pytest.raises(FailedPrecondition, match="Cannot assign requested address"):
            await joined(network, "c", "bridge", ports=foreign)
        await joined(network, "c", "bridge", ports=ports)
        with contextlib.closing(socket.socket()) as program, pytest.raises(OSError):
            program.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            program.bind(("0.0.0.0", 9000))
        await network.leave(SandboxRef(id="c"))
        with contextlib.closing(socket.socket()) as program:
            program.bind(("0.0.0.0", 9000))


def test_ports_and_programs_of_the_machine_exclude_each_other() -> None:
    machine(taken_by_a_program)


async def moved_flow(base: Path) -> None:
    async with plugin(base) as network:
        ports = (PortMapping(container_port=53, host_port=5353, protocol="udp"),)
        first = await joined(network, "first", "bridge", ports=ports)
        server = Server(first.path, 53, "first", "udp")
        with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
            client.settimeout(30)
            client.connect(("127.0.0.1", 5353))

            def ask() -> str:
                client.send(b"?")
                return client.recv(100).decode().split()[0]

            assert await asyncio.to_thread(ask) == "first"
            await network.leave(SandboxRef(id="first"))
            second = await joined(network, "second", "bridge", ports=ports)
            other = Server(second.path, 53, "second", "udp")
            assert await asyncio.to_thread(ask) == "second", "the flow went on to what is gone"
        server.close()
        other.close()


def test_a_datagram_flow_follows_its_port() -> None:
    machine(moved_flow)


async def cut_networks(base: Path) -> None:
    async with plugin(base) as network:
        world = World(base)
        inside = Server(world.path, 80, "world")
        for name, more in (
            ("inner", {"internal": True}),
            ("alone", {"isolated": True}),
            ("plain", {}),
            ("quiet", {"options": (("com.docker.network.bridge.enable_icc", "false"),)}),
        ):
            identity = name.encode().hex().ljust(64, "0")
            await network.create(Network(id=identity, name=name, **more))
        ports = (PortMapping(container_port=80),)
        made = {}
        for name in ("inner", "alone", "plain", "quiet"):
            made[name] = await joined(network, name, name, ports=ports)
        servers = [Server(sandbox.path, 80, name) for name, sandbox in made.items()]
        wanted = {"inner": "", "alone": "world", "plain": "world", "quiet": "world"}
        for name, answer in wanted.items():
            assert await heard(answer, made[name].path, World.address, 80) == answer, name
        port, gateway = made["plain"].ports[0].host_port, made["plain"].endpoints[0].gateway4
        assert (await reached(made["quiet"].path, gateway, port))[0] == "plain"
        assert await heard("", made["alone"].path, gateway, port) == "", "isolated, yet reached"
        neighbour = await joined(network, "neighbour", "quiet")
        address = made["quiet"].endpoints[0].ipv4
        assert await heard("", neighbour.path, address, 80) == "", "enable_icc=false is ignored"
        for server in (*servers, inside):
            server.close()
        world.close()


def test_internal_isolated_and_quiet_networks() -> None:
    machine(cut_networks)


def forward_comments() -> list[str]:
    """Comments of a FORWARD chain's rules in order, "" for a stranger's."""
    lines = shell("", "nft list chain ip filter FORWARD").splitlines()
    rules = [line for line in lines if line.startswith("\t\t") and "type filter" not in line]
    return [line.partition('comment "')[2].rstrip('"') for line in rules]


async def foreign_firewall(base: Path) -> None:
    async with plugin(base) as network:
        world = World(base)
        outside = Server(world.path, 80, "world")
        ports = (PortMapping(container_port=80),)
        sandbox = await joined(network, "c", "bridge", ports=ports)
        server, port = Server(sandbox.path, 80, "c"), sandbox.ports[0].host_port
        shell(
            "",
            "iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN;"
            "iptables -I FORWARD -j DOCKER-USER",
        )
        ours = ["sagong sg from sagong0", "sagong sg to sagong0"]
        await until(lambda: forward_comments() == ["", *ours], "the chain is not opened")
        assert (await reached(world.path, World.machine, port))[0] == "c"
        assert (await reached(sandbox.path, World.address, 80))[0] == "world"
        await network.create(SIX)
        assert "sagong sg to br-666666666666" in "".join(forward_comments())
        await network.delete(NetworkRef(id=SIX.id))
        assert "br-666" not in "".join(forward_comments())
        shell("", "iptables -F FORWARD")
        await until(lambda: forward_comments() == ours, "a flushed chain stays shut")
        server.close()
        outside.close()
        world.close()


def test_a_foreign_forward_chain_that_drops_lets_us_through() -> None:
    machine(foreign_firewall)


async def administrator(base: Path) -> None:
    """Nothing that the machine's administrator refuses is opened behind his back."""
    async with plugin(base) as network:
        world = World(base)
        ports = (PortMapping(container_port=80),)
        sandbox = await joined(network, "c", "bridge", ports=ports)
        server, port = Server(sandbox.path, 80, "c"), sandbox.ports[0].host_port
        shell("", "iptables -P FORWARD DROP; iptables -A FORWARD -i lo -j ACCEPT")
        await until(lambda: forward_comments()[1:] != [], "the chain is not opened")
        assert (await reached(world.path, World.machine, port))[0] == "c"
        refusal = f"FORWARD -p tcp -m conntrack --ctorigdstport {port} -s {World.address} -j DROP"
        shell("", f"iptables -A {refusal}")
        await until(lambda: forward_comments()[1] == "", "our rules are before his")
        assert (await dial(world.path, World.machine, port))[0] == "", "appended, and bypassed"
        shell("", f"iptables -D {refusal}")
        assert (await reached(world.path, World.machine, port))[0] == "c"
        shell("", "nft add table inet mine")
        shell("", "nft add chain inet mine f '{ type filter hook forward priority 10; }'")
        shell("", f"nft add rule inet mine f meta l4proto tcp ct original proto-dst {port} drop")
        assert (await dial(world.path, World.machine, port))[0] == "", "a drop was overruled"
        await network.purge()
        assert forward_comments() == [""], "rules of ours are left"
        server.close()
        world.close()


def test_what_the_administrator_refuses_stays_refused() -> None:
    machine(administrator)


async def shut_by_default(base: Path) -> None:
    async with plugin(base, {"host_ip": "127.0.0.1", "open_forward": False}) as network:
        world = World(base)
        shell("", "iptables -P FORWARD DROP")
        option = (("com.docker.network.bridge.host_binding_ipv4", World.machine),)
        await network.create(Network(id="7" * 64, name="open", options=option))
        made, servers = {}, []
        for name, wanted, address in (
            ("local", "bridge", ""),
            ("named", "bridge", World.machine),
            ("option", "open", ""),
        ):
            ports = (PortMapping(container_port=80, host_ip=address),)
            made[name] = await joined(network, name, wanted, ports=ports)
            servers.append(Server(made[name].path, 80, name))
        port = {name: sandbox.ports[0].host_port for name, sandbox in made.items()}
        assert (await reached("", "127.0.0.1", port["local"]))[0] == "local"
        assert (await dial(world.path, World.machine, port["named"]))[0] == "", "a chain was opened"
        shell("", "iptables -P FORWARD ACCEPT")
        assert (await dial(world.path, World.machine, port["local"]))[0] == ""
        for name in ("named", "option"):
            assert (await reached(world.path, World.machine, port[name]))[0] == name
        for server in servers:
            server.close()
        world.close()


def test_ports_may_be_shut_to_the_world_by_default() -> None:
    machine(shut_by_default)


async def machine_firewall(base: Path) -> None:
    """As ufw has it: nothing is forwarded unless a rule says so, and published ports obey."""
    async with plugin(base, {"open_forward": "outgoing"}) as network:
        world = World(base)
        outside = Server(world.path, 80, "world")
        shell("", "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP")
        await network.create(SIX)
        ports = (PortMapping(container_port=80),)
        sandbox = await joined(network, "c", "six", ports=ports)
        other = await joined(network, "d", "bridge")
        server, port = Server(sandbox.path, 80, "c"), sandbox.ports[0].host_port
        await until(lambda: len(forward_comments()) == 4, "containers are not let out")
        for address in (World.address, World.address6):
            assert (await reached(sandbox.path, address, 80))[0] == "world", "no way out"
        assert (await reached("", "127.0.0.1", port))[0] == "c", "the machine itself"
        gateway = sandbox.endpoints[0].gateway4
        assert (await reached(other.path, gateway, port))[0] == "c", "another container"
        for stranger in (World.machine, World.machine6):
            assert (await dial(world.path, stranger, port))[0] == "", "past the machine's firewall"
        rule = f"-p tcp -m conntrack --ctorigdstport {port} --ctdir ORIGINAL -j ACCEPT"
        shell("", f"iptables -I FORWARD {rule}; ip6tables -I FORWARD {rule}")
        for stranger in (World.machine, World.machine6):
            assert (await reached(world.path, stranger, port))[0] == "c", "his rule is not asked"
        server.close()
        outside.close()
        world.close()


def test_published_ports_may_obey_the_machine_s_forward_rules() -> None:
    machine(machine_firewall)


async def forged_loopback(base: Path) -> None:
    """A neighbour who sends packets for 127.0.0.1 to the machine's hardware address."""
    async with plugin(base) as network:
        world = World(base)
        mapping = PortMapping(container_port=80, host_ip="127.0.0.1", host_port=8083)
        sandbox = await joined(network, "c", "bridge", ports=(mapping,))
        server = Server(sandbox.path, 80, "c")
        assert (await reached("", "127.0.0.1", 8083))[0] == "c"
        shell(
            "",
            "nft add table ip eye;"
            "nft add chain ip eye there '{ type filter hook prerouting priority -400; }';"
            "nft add chain ip eye through '{ type filter hook forward priority -300; }';"
            "nft add rule ip eye there ip daddr 127.0.0.1 counter;"
            "nft add rule ip eye through tcp dport 80 counter",
        )
        shell(
            world.path,
            "ip addr flush dev lo; ip route flush table local;"
            f"ip route add local {World.address} dev plug table local;"
            f"sysctl -q net.ipv4.conf.all.route_localnet=1; ip route add 127.0.0.1 via {World.machine}",
        )
        assert (await dial(world.path, "127.0.0.1", 8083))[0] == ""
        assert "counter packets 0" not in shell("", "nft list chain ip eye there"), "nothing came"
        assert "counter packets 0" in shell("", "nft list chain ip eye through"), "it got through"
        server.close()
        world.close()


def test_what_is_published_on_loopback_is_not_for_neighbours() -> None:
    machine(forged_loopback)


async def chosen_visitors(base: Path) -> None:
    """Published for some other machines; the settings of a start hold for what is there."""
    world, ports = World(base), (PortMapping(container_port=80),)
    near = [f"{World.address}/32", f"{World.address6}/128"]
    async with plugin(base, {"visitors": ["203.0.113.0/24"]}) as network:
        await network.create(SIX)
        sandbox = await joined(network, "c", "six", ports=ports)
        server, port = Server(sandbox.path, 80, "c"), sandbox.ports[0].host_port
        assert (await reached("", "127.0.0.1", port))[0] == "c"
        for stranger in (World.machine, World.machine6):
            assert (await dial(world.path, stranger, port))[0] == ""
    async with plugin(base, {"visitors": near}):
        for stranger in (World.machine, World.machine6):
            assert (await reached(world.path, stranger, port))[0] == "c"
    server.close()
    world.close()


def test_published_ports_may_be_for_some_machines_alone() -> None:
    machine(chosen_visitors)


async def flushed(base: Path) -> None:
    async with plugin(base) as network:
        ports = (PortMapping(container_port=80),)
        sandbox = await joined(network, "c", "bridge", ports=ports)
        server, port = Server(sandbox.path, 80, "c"), sandbox.ports[0].host_port
        shell("", "nft flush ruleset")
        await until(
            lambda: "ports4" in shell("", "nft list table inet sg"),
            "the firewall did not come back",
        )
        assert (await reached("", "127.0.0.1", port))[0] == "c", "the firewall did not come back"
        shell("", "nft flush ruleset")
        other = await joined(network, "d", "bridge", ports=(PortMapping(container_port=80),))
        again = Server(other.path, 80, "d")
        assert (await reached("", "127.0.0.1", other.ports[0].host_port))[0] == "d"
        # More notices than are kept, and ours is not among those that are.
        await until(lambda: network._vigil._timer is None, "it is still busy")
        assert network._vigil._channel is not None
        network._vigil._channel._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        rules = "".join(f"add rule ip noise c tcp dport {port} accept\n" for port in range(1, 200))
        (base / "noise.nft").write_text(
            f"add table ip noise\nadd chain ip noise c\n{rules}flush ruleset\n"
        )
        shell("", f"nft -f {base}/noise.nft")
        await until(
            lambda: "ports4" in shell("", "nft list table inet sg || true"),
            "a flush that was not told of",
        )
        assert (await reached("", "127.0.0.1", port))[0] == "c"
        server.close()
        again.close()


def test_a_flushed_firewall_comes_back() -> None:
    machine(flushed)


async def open_through_flushes(base: Path) -> None:
    """Who writes before the rules are back is not reset."""
    async with plugin(base) as network:
        world = World(base)
        ports = (PortMapping(container_port=80, host_port=8080),)
        sandbox = await joined(network, "c", "bridge", ports=ports)
        served = within(sandbox.path, socket.create_server, ("0.0.0.0", 80))
        ways = [("", "127.0.0.1"), ("", World.machine), (world.path, World.machine)]
        clients = [within(path, socket.create_connection, (a, 8080), 60) for path, a in ways]
        peers = [served.accept()[0] for _ in clients]
        for _ in range(3):
            shell("", "nft flush ruleset")
            for client, peer in zip(clients, peers, strict=True):
                peer.settimeout(30)
                client.sendall(b"still here")
                assert peer.recv(100) == b"still here"
            await until(
                lambda: "ports4" in shell("", "nft list table inet sg || true"),
                "the firewall did not come back",
            )
        for one in (served, *clients, *peers):
            one.close()
        world.close()
    assert "sg-nat" not in shell("", "nft list tables"), "a table is left"


def test_open_connections_outlive_a_flush_of_all_rules() -> None:
    machine(open_through_flushes)


async def inner_addresses(base: Path) -> None:
    async with plugin(base) as network:
        sandbox = await joined(
            network,
            "c",
            "bridge",
            sysctls=(("net.ipv4.ip_default_ttl", "42"),),
            ingress_bps=8_000_000,
            egress_bps=4_000_000,
        )
        assert shell(sandbox.path, "cat /proc/sys/net/ipv4/ip_default_ttl").strip() == "42"
        assert "rate 4Mbit" in shell(sandbox.path, "tc qdisc show dev eth0")
        assert "rate 8Mbit" in shell("", "tc qdisc show")

        def transfer() -> float:
            """Seconds for 2 MB out of the container, through its bucket of half a MB a second."""
            import time

            received = 0
            listener = socket.create_server(("0.0.0.0", 9999))
            gateway = sandbox.endpoints[0].gateway4

            def send() -> socket.socket:
                channel = socket.create_connection((gateway, 9999))
                return channel

            channel = within(sandbox.path, send)
            peer, _ = listener.accept()
            channel.setblocking(False)
            began = time.monotonic()
            while received < 600_000:
                with contextlib.suppress(BlockingIOError):
                    channel.send(bytes(65536))
                received += len(peer.recv(65536))
            for one in (channel, peer, listener):
                one.close()
            return time.monotonic() - began

        assert await asyncio.to_thread(transfer) > 0.5, "nothing was held back"


def test_sysctls_and_bandwidth() -> None:
    machine(inner_addresses)


async def crossed(base: Path) -> None:
    """Clients of the version of IP that a container has not, by tcp and udp, near and far."""
    async with plugin(base, {"visitors": ["192.0.2.0/24", "2001:db8::/64"]}) as network:
        world = World(base)
        await network.create(Network(id="c4" * 32, name="four"))
        await network.create(Network(id="c6" * 32, name="six", ipv4=False, ipv6=True))
        made, servers = {}, []
        for name, host in (("four", 8080), ("six", 8081)):
            ports = tuple(
                PortMapping(container_port=80, host_port=host, protocol=p) for p in ("tcp", "udp")
            )
            made[name] = await joined(network, name, name, ports=ports)
            servers += [Server(made[name].path, 80, name, kind) for kind in ("tcp", "udp")]
        for kind in ("tcp", "udp"):
            assert (await reached(world.path, World.machine6, 8080, protocol=kind))[0] == "four"
            assert (await reached(world.path, World.machine, 8081, protocol=kind))[0] == "six"
        assert (await reached("", "::1", 8080))[0] == "four"
        assert (await reached("", World.machine6, 8080))[0] == "four"
        relay = network._crossings._relay._child
        assert relay is not None
        os.kill(relay.pid, signal.SIGKILL)
        await until(lambda: not network._crossings._relay.runs, "the relay lives")
        await until(lambda: bool(network._crossings._watched), "the ports are not watched again")
        assert (await reached(world.path, World.machine6, 8080))[0] == "four"
        await network.leave(SandboxRef(id="four"))
        again = await joined(network, "again", "six", ports=made["four"].ports)
        servers.append(Server(again.path, 80, "again"))
        assert (await reached(world.path, World.machine, 8080))[0] == "again"
        shell(world.path, "ip addr add 2001:db8:1::2/64 dev plug nodad")
        shell("", "ip addr add 2001:db8:1::1/64 dev cable nodad")
        assert (await dial(world.path, "2001:db8:1::1", 8080, seconds=0.5))[0] == ""
        for server in servers:
            server.close()
        world.close()
    async with plugin(base) as network:
        # Its ports are held again, and lead where they led.
        assert (await reached("", "127.0.0.1", 8081))[0] in ("six", "")


def test_published_ports_are_for_both_versions_of_ip() -> None:
    machine(crossed)


@contextlib.contextmanager
def starving(pid: int) -> Iterator[None]:
    """A process that gets no core for longer than it may be silent: another one has it first."""
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(pid, {core})
    os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
    busy = (
        f"import os, time; os.sched_setaffinity(0, {{{core}}}); os.nice(-20); print(flush=True)\n"
        "end = time.monotonic() + 2\n"
        "while time.monotonic() < end: pass"
    )
    with subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        yield


async def starved(base: Path) -> None:
    async with plugin(base) as network:
        await network.create(Network(id="c6" * 32, name="six", ipv4=False, ipv6=True))
        servers = []
        for name, port in (("one", 8081), ("two", 8082)):
            ports = (PortMapping(container_port=80, host_port=port),)
            made = await joined(network, name, "six", ports=ports)
            servers.append(Server(made.path, 80, name))
        assert (await reached("", "127.0.0.1", 8081))[0] == "one"
        relay = network._crossings._relay._child
        assert relay is not None
        with starving(relay.pid):
            await network.leave(SandboxRef(id="two"))
        assert (await reached("", "127.0.0.1", 8081))[0] == "one"
        assert network._crossings._relay._child is relay, "it was killed, with all connections"
        for server in servers:
            server.close()


def test_a_relay_that_starves_is_waited_for() -> None:
    """It had half a second to answer when a container went, whoever else used it."""
    machine(starved)
