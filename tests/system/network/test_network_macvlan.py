"""Networks of driver macvlan: neighbours of the machine's neighbours, VLANs, and what is left."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sagong.contracts.network import (
    Attachment,
    JoinRequest,
    Network,
    NetworkRef,
    SandboxRef,
    Subnet,
)
from sagong.errors import FailedPrecondition
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


def lan(parent: str, subnet: str, name: str = "lan", **more: object) -> Network:
    options = (("parent", parent),) if parent else ()
    identity = name.encode().hex().ljust(64, "0")
    return Network(
        id=identity,
        name=name,
        driver="macvlan",
        subnets=(Subnet(subnet=subnet, ip_range=subnet.replace(".0/24", ".64/26")),),
        options=options,
        **more,  # type: ignore[arg-type]
    )


async def on_the_cable(base: Path) -> None:
    async with plugin(base) as network:
        world = World(base)
        await network.create(lan("cable", "192.0.2.0/24"))
        wish = Attachment(network="lan", mac="02:42:00:00:00:77", ipv4="192.0.2.77")
        kept = await network.join(JoinRequest(id="kept", attachments=(wish,), names=("kept",)))
        server, outside = Server(kept.path, 80, "kept"), Server(world.path, 80, "world")
        assert await reached(world.path, "192.0.2.77", 80) == ("kept", World.address)
        assert await reached(kept.path, World.address, 80) == ("world", "192.0.2.77")
        assert "02:42:00:00:00:77" in shell(world.path, "ip neigh show 192.0.2.77")
        assert (await dial("", "192.0.2.77", 80))[0] == "", "Linux keeps parent and macvlan apart"
    async with plugin(base) as network:
        assert (await network.inspect(SandboxRef(id="kept"))) == kept
        assert (await reached(world.path, "192.0.2.77", 80))[0] == "kept", "it went with the plugin"
        await network.leave(SandboxRef(id="kept"))
        await network.delete(NetworkRef(id=lan("", "192.0.2.0/24").id))
        assert "cable" in shell("", "ip -br link"), "the machine's interface was taken away"
        server.close()
        outside.close()
        world.close()


def test_a_macvlan_sandbox_is_a_neighbour_of_the_machine_s_neighbours() -> None:
    machine(on_the_cable)


async def made_parent(base: Path, parent: str) -> None:
    shell("", "ip link add trunk type bridge; ip link set trunk up")
    made = parent or "sg-" + b"made".hex()
    async with plugin(base, {"pool_size": 0}) as network:
        await network.create(lan(parent, "10.50.0.0/24", "made"))
        a, b = await joined(network, "a", "made"), await joined(network, "b", "made")
        server = Server(a.path, 80, "a")
        assert (await reached(b.path, a.endpoints[0].ipv4, 80))[0] == "a"
        server.close()
    async with plugin(base, {"pool_size": 0}) as network:
        await asyncio.sleep(2.5)
        assert made in shell("", "ip -br link"), "swept, though its network lives"
        for sandbox in (await network.sandboxes()).sandboxes:
            await network.leave(SandboxRef(id=sandbox.id))
        await network.delete(NetworkRef(id=lan("", "10.0.0.0/24", "made").id))
        names = shell("", "ip -br link")
        assert "trunk" in names and made not in names, names
        await network.create(lan("trunk", "10.51.0.0/24", "late"))
        shell("", "ip link del trunk")
        with pytest.raises(FailedPrecondition, match="trunk is gone"):
            await joined(network, "late", "late")


def test_a_network_without_parent_has_one_of_its_own() -> None:
    machine(made_parent, "")


@pytest.mark.skipif(not Path("/proc/net/vlan").exists(), reason="the kernel has no VLANs (8021q)")
def test_a_vlan_is_made_and_goes_with_its_network() -> None:
    machine(made_parent, "trunk.50")
