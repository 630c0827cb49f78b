"""What a crash leaves: swept if it belongs to nobody, kept if somebody was told of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import msgspec
import pytest

from sagong.contracts.network import Network, NetworkRef, PortMapping, SandboxRef
from sagong.linux import mounts
from sagong_network_bridge import NetworkBridge
from sagong_network_bridge.cells import is_veth
from tests.system.network.outer import (
    Server,
    joined,
    local_host,
    machine,
    plugin,
    reached,
    shell,
    until,
)

pytestmark = pytest.mark.root

USER = Network(id="a" * 64, name="user", ipv6=True)
# A plugin that joins as fast as it can and says what was acknowledged, until it is killed.
BUSY = """
import asyncio, sys, uvloop
from pathlib import Path
from tests.system.network.outer import joined, plugin
from sagong.contracts.network import Network, PortMapping, SandboxRef
async def busy(base, start):
    async with plugin(base, {"pool_size": 2}) as network:
        await network.create(Network(id="a" * 64, name="user", ipv6=True))
        print("ready", flush=True)
        async def work(worker):
            count = start
            while True:
                name = f"w{worker}-{count}"
                ports = (PortMapping(container_port=80),)
                await joined(network, name, "user", ports=ports)
                print("joined", name, flush=True)
                if count % 2:
                    print("leaving", name, flush=True)
                    await network.leave(SandboxRef(id=name))
                    print("left", name, flush=True)
                count += 1
        await asyncio.gather(*(work(n) for n in range(3)))
uvloop.run(busy(Path(sys.argv[1]), int(sys.argv[2])))
"""


def lacks(command: str, word: str) -> bool:
    return word not in shell("", command)


def interfaces() -> set[str]:
    """Those of sandboxes and of the pool. `ip` mixes its warnings with its list while others change
    what is listed; the C library asks again then."""
    return {name for _, name in socket.if_nameindex() if is_veth(name, "sg")}


def pins(base: Path) -> set[str]:
    below = f"{base}/run/netns/"
    return {entry.target for entry in mounts.mount_table() if entry.target.startswith(below)}


async def killed_while_joining(base: Path) -> None:
    expected: set[str] = set()
    unsure: set[str] = set()
    for round_ in range(3):
        command = [sys.executable, "-c", BUSY, str(base), str(round_ * 1000)]
        path = os.pathsep.join(("core", "plugins", "services", "."))
        root = Path(__file__).resolve().parents[3]
        child = subprocess.Popen(
            command, cwd=root, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        head = [await asyncio.to_thread(child.stdout.readline) for _ in range(10 + 5 * round_)]
        os.kill(child.pid, signal.SIGKILL)
        rest = (await asyncio.to_thread(child.communicate))[0]
        lines = b"".join((*head, rest)).decode().splitlines()
        for line in lines:
            what, _, name = line.partition(" ")
            if what == "joined":
                expected.add(name)
            elif what == "leaving":
                unsure.add(name)
            elif what == "left":
                expected.discard(name)
                unsure.discard(name)
    async with plugin(base, {"pool_size": 0}) as network:
        found = {sandbox.id: sandbox for sandbox in (await network.sandboxes()).sandboxes}
        assert expected - unsure <= set(found), "an acknowledged sandbox is gone"
        assert not {name for name in found if name not in expected and found[name].path == ""}
        addresses = [s.endpoints[0].ipv4 for s in found.values()]
        ports = [p.host_port for s in found.values() for p in s.ports]
        assert len(set(addresses)) == len(addresses) and len(set(ports)) == len(ports)
        await until(lambda: len(interfaces()) == len(found), "interfaces of nobody are left")
        paths = {sandbox.path for sandbox in found.values()}
        await until(lambda: pins(base) == paths, "pins of nobody are left")
        kept = next(iter(found.values()))
        server = Server(kept.path, 80, "alive")
        assert (await reached("", "127.0.0.1", kept.ports[0].host_port))[0] == "alive"
        server.close()
        for sandbox in found.values():
            await network.leave(SandboxRef(id=sandbox.id))
        await network.delete(NetworkRef(id=USER.id))
        await until(lambda: not interfaces(), "interfaces of those who left are left")
        await until(lambda: not list((base / "run" / "netns").iterdir()), "their pins are left")
        elements = shell("", "nft list map inet sg ports4")
        assert "elements" not in elements, elements


def test_killed_at_any_moment_nothing_acknowledged_is_lost_and_nothing_leaks() -> None:
    machine(killed_while_joining)


async def leftovers(base: Path) -> None:
    async with plugin(base, {"pool_size": 0}) as network:
        await network.create(USER)
        kept = await joined(network, "kept", "user")
    # The first to be swept, if it were.
    shell("", "ip link add sgvacation type veth peer name y")
    shell(
        "",
        "ip link add sgv0123456789 type veth peer name x; ip link add br-bbbbbbbbbbbb type bridge",
    )
    shell("", 'ip link set br-bbbbbbbbbbbb alias "sagong sg ' + "b" * 64 + '"')
    shell("", "nft add element inet sg ports4 '{ tcp . 1 : 10.0.0.1 . 1 }'")
    shell("", "nft add chain inet sg policy_in_gone")
    (base / "run" / "netns" / "sg-000000000000").touch()
    (base / "run" / "sandboxes" / "half~").write_bytes(b"ha")
    async with plugin(base, {"pool_size": 0}) as network:
        for name in ("br-bbbbbbbbbbbb", "sgv0123456789"):
            await until(partial(lacks, "ip -br link", name), f"{name} is left")
        left = shell("", "ip -br link")
        assert "sgvacation" in left, "somebody else's interface was taken away"
        rules = shell("", "nft list table inet sg")
        assert "policy_in_gone" not in rules and "10.0.0.1" not in rules
        assert [p.name for p in (base / "run" / "netns").iterdir()] == [Path(kept.path).name]
        assert not (base / "run" / "sandboxes" / "half~").exists()


def test_leftovers_are_swept_and_strangers_are_not() -> None:
    machine(leftovers)


async def rebooted(base: Path) -> None:
    async with plugin(base, {"pool_size": 0}) as network:
        await network.create(USER)
        sandbox = await joined(network, "lost", "user", ports=(PortMapping(container_port=80),))
    shell("", f"umount {sandbox.path}; ip link del br-aaaaaaaaaaaa; ip link del sagong0")
    shell("", "nft delete table inet sg")
    async with plugin(base, {"pool_size": 0}) as network:
        assert not (await network.sandboxes()).sandboxes, "a sandbox without namespace is kept"
        again = await joined(network, "again", "user", ports=sandbox.ports)
        assert again.endpoints[0].gateway6
        found = {n.name: n for n in (await network.networks()).networks}
        assert found["user"].subnets and found["bridge"].subnets


def test_networks_come_back_after_a_reboot() -> None:
    machine(rebooted)


async def side_by_side(base: Path) -> None:
    (base / "one").mkdir()
    (base / "two").mkdir()
    async with plugin(base / "one") as one, plugin(base / "two", {"prefix": "tw"}) as two:
        first = await joined(one, "c", "bridge", ports=(PortMapping(container_port=80),))
        second = await joined(two, "c", "bridge", ports=(PortMapping(container_port=80),))
        assert first.endpoints[0].ipv4 != second.endpoints[0].ipv4
        servers = [Server(first.path, 80, "one"), Server(second.path, 80, "two")]
        assert (await reached("", "127.0.0.1", first.ports[0].host_port))[0] == "one"
        assert (await reached("", "127.0.0.1", second.ports[0].host_port))[0] == "two"
        assert first.ports[0].host_port != second.ports[0].host_port
        for server in servers:
            server.close()


def test_two_instances_live_side_by_side() -> None:
    machine(side_by_side)


async def purged(base: Path) -> None:
    async with plugin(base) as network:
        await network.create(USER)
        await joined(network, "c", "user", ports=(PortMapping(container_port=80),))
        await network.purge()
    look = "ip -br link; nft list ruleset"
    for word in ("sg", "sagong"):
        await until(partial(lacks, look, word), f"{word} is left")
    assert not list((base / "run" / "netns").iterdir())


def test_a_purge_leaves_nothing() -> None:
    machine(purged)


async def unreadable_record(base: Path) -> None:
    async with plugin(base, {"pool_size": 0}):
        pass
    path = next((base / "data" / "networks").iterdir())
    msgspec.msgpack.decode(path.read_bytes())
    path.write_bytes(b"\xc1")
    with pytest.raises(Exception, match="is damaged"):
        async with plugin(base, {"pool_size": 0}):
            pass


def test_a_damaged_record_is_named() -> None:
    machine(unreadable_record)


def is_taken(port: int) -> bool:
    with contextlib.closing(socket.socket()) as program:
        try:
            program.bind(("0.0.0.0", port))
        except OSError:
            return True
    return False


async def handed_over(base: Path) -> None:
    """A predecessor's word holds only while nobody has touched the rules."""
    before = NetworkBridge(local_host(base))
    await before.start()
    await before.create(USER)
    ports = (PortMapping(container_port=80),)
    kept = await joined(before, "kept", "user", ports=ports)
    server, port = Server(kept.path, 80, "kept"), kept.ports[0].host_port
    states = []
    for spoil in ("", "nft flush map inet sg ports4", "ip link del br-aaaaaaaaaaaa"):
        state = await before.export()
        await before.stop()
        states.append(state)
        shell("", spoil)
        after = NetworkBridge(local_host(base))
        await after.restore(state)
        await after.start()
        await before.tidy()
        assert (await after.inspect(SandboxRef(id="kept"))) == kept
        if "link" in spoil:
            assert "br-aaaaaaaaaaaa" in shell("", "ip -br link"), "the bridge is not made anew"
        else:
            assert (await reached("", "127.0.0.1", port))[0] == "kept", f"after {spoil!r}"
            assert (await reached("", "::1", port))[0] == "kept", f"after {spoil!r}"
        other = await joined(after, f"other{len(states)}", "user")
        assert other.endpoints[0].ipv4 != kept.endpoints[0].ipv4
        before = after
    await until(lambda: is_taken(port), "the published port is not reserved again")
    for state in (b"\xc1", b"from another plugin"):
        await before.export()
        await before.stop()
        after = NetworkBridge(local_host(base))
        await after.restore(state)
        await after.start()
        await before.tidy()
        assert (await after.inspect(SandboxRef(id="kept"))) == kept
        before = after
    server.close()
    await before.purge()
    await before.stop()
    assert not list((base / "run" / "netns").iterdir()), "pins of nobody are left"


def test_what_is_handed_over_is_checked() -> None:
    machine(handed_over)
