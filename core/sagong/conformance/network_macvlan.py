"""Checks of slot `network` about networks of driver macvlan, where the candidate has that driver."""

from __future__ import annotations

import secrets

from sagong.conformance.network_lab import NetworkLab, block, free_port
from sagong.conformance.refusals import raises
from sagong.contracts.network import (
    Attachment,
    ConnectRequest,
    CountersQuery,
    DisconnectRequest,
    Network,
    PortMapping,
    Subnet,
)
from sagong.errors import InvalidArgument


def _macvlan(lab: NetworkLab, name: str, *options: tuple[str, str]) -> Network:
    return Network(
        id=secrets.token_hex(32),
        name=lab.name(name),
        driver="macvlan",
        subnets=(Subnet(subnet=block()),),
        options=options,
    )


async def check_macvlan_sandboxes_are_neighbours(lab: NetworkLab) -> None:
    if not lab.parent:
        return
    async with (
        lab.made(_macvlan(lab, "lan", ("parent", lab.parent))) as network,
        lab.network() as bridged,
    ):
        a, b = await lab.join("a", network), await lab.join("b", network)
        c = await lab.join("c", bridged)
        assert a.endpoints[0].ipv4 != b.endpoints[0].ipv4
        assert a.endpoints[0].gateway4 == network.subnets[0].gateway
        wish = ConnectRequest(id=c.id, attachment=Attachment(network=network.id))
        both = await lab.networks.connect(wish)
        assert [e.network for e in both.endpoints] == [bridged.id, network.id]
        if lab.probe is not None:
            await lab.probe.serve(a, 80)
            for source in (b, both):
                assert await lab.probe.reach(source, a.endpoints[0].ipv4, 80) == a.id
            (counted,) = (await lab.networks.counters(CountersQuery(ids=(c.id,)))).sandboxes
            found = {counters.interface: counters for counters in counted.interfaces}
            assert found[both.endpoints[1].interface].rx_packets > 0, f"only {found}"
            assert await lab.probe.resolve(both, lab.name("a")) == (a.endpoints[0].ipv4,)
        left = await lab.networks.disconnect(DisconnectRequest(id=c.id, network=network.id))
        assert [e.network for e in left.endpoints] == [bridged.id]
        if lab.probe is not None:
            assert await lab.probe.reach(left, a.endpoints[0].ipv4, 80) == "", "it is still there"


async def check_macvlan_publishes_nothing(lab: NetworkLab) -> None:
    if not lab.parent:
        return
    async with lab.made(_macvlan(lab, "lan", ("parent", lab.parent))) as network:
        wish = PortMapping(container_port=80, host_port=free_port())
        sandbox = await lab.join("a", network, ports=(wish,))
        assert sandbox.ports == (), "a port is said to be published that can't be"


async def check_wrong_macvlans_are_refused(lab: NetworkLab) -> None:
    if not lab.parent:
        return
    for options in (
        (("parent", "nosuchparent"),),
        (("parent", f"{lab.parent}.9999"),),
        (("parent", lab.parent), ("macvlan_mode", "sideways")),
    ):
        with raises(InvalidArgument, f"macvlan with {options} was made"):
            await lab.networks.create(_macvlan(lab, "wrong", *options))
    names = {network.name for network in (await lab.networks.networks()).networks}
    assert lab.name("wrong") not in names
