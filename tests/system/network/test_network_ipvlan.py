"""Networks of driver ipvlan: neighbours in mode l2, routed by the parent in mode l3."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sagong.contracts.network import (
    Attachment,
    ConnectRequest,
    JoinRequest,
    Network,
    NetworkRef,
    SandboxRef,
    Subnet,
)
from sagong.errors import Conflict, InvalidArgument
from tests.system.network.outer import (
    Server,
    World,
    dial,
    joined,
    machine,
    plugin,
    reached,
    shell,
)

pytestmark = pytest.mark.root


def has_ipvlan() -> bool:
    """Whether this kernel makes such interfaces, tried in a namespace of its own."""
    words = (
        "ip link add c1 type veth peer name c2 && ip link add link c1 name i1 type ipvlan mode l2"
    )
    return subprocess.run(["unshare", "-n", "sh", "-c", words], capture_output=True).returncode == 0


needs_ipvlan = pytest.mark.skipif(not has_ipvlan(), reason="the kernel has no ipvlan")


def over(parent: str, subnet: str, name: str, **options: str) -> Network:
    given = {"parent": parent, **{f"ipvlan_{key}": value for key, value in options.items()}}
    return Network(
        id=name.encode().hex().ljust(64, "0"),
        name=name,
        driver="ipvlan",
        subnets=(Subnet(subnet=subnet, ip_range=subnet.replace(".0/24", ".64/26")),),
        options=tuple((key, value) for key, value in given.items() if value),
    )


async def neighbours(base: Path) -> None:
    async with plugin(base) as network:
        world = World(base)
        await network.create(over("cable", "192.0.2.0/24", "lan"))
        wish = Attachment(network="lan", ipv4="192.0.2.77")
        kept = await network.join(JoinRequest(id="kept", attachments=(wish,), names=("kept",)))
        other = await joined(network, "other", "lan")
        servers = [Server(kept.path, 80, "kept"), Server(world.path, 80, "world")]
        assert await reached(world.path, "192.0.2.77", 80) == ("kept", World.address)
        assert await reached(kept.path, World.address, 80) == ("world", "192.0.2.77")
        assert (await reached(other.path, "192.0.2.77", 80))[0] == "kept"
        mac = shell("", "ip link show cable").partition("link/ether ")[2].split()[0]
        assert mac in shell(kept.path, "ip link show eth0") and kept.endpoints[0].mac == ""
        assert mac in shell(world.path, "ip neigh show 192.0.2.77")
        way = f"default via {kept.endpoints[0].gateway4} dev eth0"
        assert way in shell(kept.path, "ip route")
        bridged = await joined(network, "bridged", "bridge")
        both = await network.connect(
            ConnectRequest(id="bridged", attachment=Attachment(network=kept.endpoints[0].network))
        )
        assert (await reached(bridged.path, "192.0.2.77", 80))[0] == "kept"
        assert len(both.endpoints) == 2
        mine = Attachment(network="lan", mac="02:42:00:00:00:77")
        with pytest.raises(InvalidArgument, match="their parent's"):
            await network.join(JoinRequest(id="x", attachments=(mine,)))
        with pytest.raises(Conflict, match="lan uses cable"):
            await network.create(over("cable", "10.9.0.0/24", "l3", mode="l3"))
        for server in servers:
            server.close()
    async with plugin(base) as network:
        assert (await network.inspect(SandboxRef(id="kept"))) == kept
        for name in ("kept", "other", "bridged"):
            await network.leave(SandboxRef(id=name))
        await network.delete(NetworkRef(id=kept.endpoints[0].network))
        assert "cable" in shell("", "ip -br link"), "the machine's interface was taken away"
        world.close()


@needs_ipvlan
def test_ipvlan_sandboxes_are_neighbours_by_their_parent_s_address() -> None:
    machine(neighbours)


async def routed(base: Path) -> None:
    async with plugin(base) as network:
        world = World(base)
        await network.create(over("cable", "10.55.0.0/24", "l3", mode="l3"))
        await network.create(over("cable", "10.56.0.0/24", "more", mode="l3"))
        a, b = await joined(network, "a", "l3"), await joined(network, "b", "more")
        servers = [Server(a.path, 80, "a"), Server(world.path, 80, "world")]
        shell(world.path, f"ip route add 10.55.0.0/24 via {World.machine}")
        assert (a.endpoints[0].gateway4, a.endpoints[0].mac) == ("0.0.0.0", "")
        assert shell(a.path, "ip route show default").split()[:3] == ["default", "dev", "eth0"]
        assert (await reached(b.path, a.endpoints[0].ipv4, 80))[0] == "a", "between its networks"
        assert await reached(a.path, World.address, 80) == ("world", a.endpoints[0].ipv4)
        assert await reached(world.path, a.endpoints[0].ipv4, 80) == ("a", World.address)
        assert (await dial(a.path, "10.55.0.99", 80, seconds=0.5))[0] == ""
        for server in servers:
            server.close()
        world.close()


@needs_ipvlan
def test_ipvlan_l3_is_routed_without_neighbours() -> None:
    machine(routed)


async def wrong(base: Path) -> None:
    async with plugin(base) as network:
        shell("", "ip link add trunk type bridge; ip link set trunk up")
        for options, text in (
            ({"mode": "l7"}, "ipvlan_mode=l7"),
            ({"flag": "loud"}, "ipvlan_flag=loud"),
        ):
            with pytest.raises(InvalidArgument, match=text):
                await network.create(over("trunk", "10.57.0.0/24", "wrong", **options))
        with pytest.raises(InvalidArgument, match="no such interface"):
            await network.create(over("nosuch", "10.57.0.0/24", "wrong"))
        if not has_ipvlan():
            with pytest.raises(InvalidArgument, match="this kernel makes none"):
                await network.create(over("trunk", "10.57.0.0/24", "wrong"))
        assert "wrong" not in {n.name for n in (await network.networks()).networks}


def test_what_ipvlan_can_not_be_is_refused_when_the_network_is_made() -> None:
    machine(wrong)
