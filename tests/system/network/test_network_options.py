"""Options of networks, as Docker names them: kept, and honoured where they mean something."""

from __future__ import annotations

from pathlib import Path

import pytest

from sagong.contracts.network import Attachment, ConnectRequest, Network
from sagong.errors import InvalidArgument
from tests.system.network.outer import joined, machine, plugin, shell

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
        ):
            wrong = Network(id="a3" * 32, name="wrong", options=((name, value),))
            with pytest.raises(InvalidArgument, match=value.split()[0]):
                await network.create(wrong)


def test_options_are_kept_and_honoured() -> None:
    machine(honoured)
