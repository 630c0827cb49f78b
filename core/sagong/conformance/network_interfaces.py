"""Checks of slot `network` about interfaces that are asked for by name, and networks of IPv6 alone."""

from __future__ import annotations

import secrets

from msgspec.structs import replace

from sagong.conformance.network_lab import NetworkLab
from sagong.conformance.refusals import raises
from sagong.contracts.network import (
    Attachment,
    ConnectRequest,
    JoinRequest,
    Network,
    SandboxRef,
)
from sagong.errors import Conflict, InvalidArgument


async def check_interface_has_the_name_asked_for(lab: NetworkLab) -> None:
    async with lab.network("one") as one, lab.network("two") as two, lab.network("three") as three:
        wishes = (Attachment(network=one.id, interface="lan7"), Attachment(network=two.id))
        asked = JoinRequest(id=lab.name("named"), attachments=wishes, names=(lab.name("named"),))
        sandbox = await lab.networks.join(asked)
        assert sandbox.endpoints[0].interface == "lan7"
        assert sandbox.endpoints[1].interface not in ("", "lan7")
        wish = Attachment(network=three.id, interface="lan8")
        more = await lab.networks.connect(ConnectRequest(id=sandbox.id, attachment=wish))
        assert more.endpoints[2].interface == "lan8"
        if lab.probe is not None:
            other = await lab.join("other", one, three)
            await lab.probe.serve(other, 80)
            for endpoint in other.endpoints:
                assert await lab.probe.reach(more, endpoint.ipv4, 80) == other.id


async def check_link_local_addresses_are_set(lab: NetworkLab) -> None:
    async with lab.network("one") as one:
        own = ("169.254.31.7",)
        wish = Attachment(network=one.id, link_locals=own)
        sandbox = await lab.networks.join(JoinRequest(id=lab.name("own"), attachments=(wish,)))
        wish = replace(wish, link_locals=("169.254.31.8",))
        other = await lab.networks.join(JoinRequest(id=lab.name("other"), attachments=(wish,)))
        assert sandbox.endpoints[0].link_locals == own
        if lab.probe is not None:
            await lab.probe.serve(sandbox, 80)
            assert await lab.probe.reach(other, own[0], 80) == sandbox.id


async def check_wrong_interfaces_are_refused(lab: NetworkLab) -> None:
    async with lab.network("one") as one, lab.network("two") as two:
        wrong = (
            *(Attachment(network=one.id, interface=n) for n in ("a b", "a/b", "lo", "x" * 16)),
            Attachment(network=one.id, sysctls=(("net.ipv4.ip_forward", "1"),)),
            Attachment(network=one.id, sysctls=(("kernel.IFNAME.x", "1"),)),
            *(Attachment(network=one.id, link_locals=(a,)) for a in ("169.254.1.x", "10.1.2.3")),
        )
        sandbox = await lab.join("there", two)
        for wish in wrong:
            with raises(InvalidArgument, f"{wish} was taken at a join"):
                await lab.networks.join(JoinRequest(id=lab.name("wrong"), attachments=(wish,)))
            with raises(InvalidArgument, f"{wish} was taken later"):
                await lab.networks.connect(ConnectRequest(id=sandbox.id, attachment=wish))
        twice = Attachment(network=one.id, interface=sandbox.endpoints[0].interface)
        with raises(Conflict, "two interfaces of one name"):
            await lab.networks.connect(ConnectRequest(id=sandbox.id, attachment=twice))
        assert lab.name("wrong") not in await lab.ids()
        assert (await lab.networks.inspect(SandboxRef(id=sandbox.id))) == sandbox


async def check_network_of_ipv6_alone(lab: NetworkLab) -> None:
    wanted = Network(id=secrets.token_hex(32), name=lab.name("six"), ipv4=False, ipv6=True)
    async with lab.made(wanted) as network:
        assert (network.ipv4, network.ipv6) == (False, True)
        assert [":" in subnet.subnet for subnet in network.subnets] == [True]
        a, b = await lab.join("a", network), await lab.join("b", network)
        for sandbox in (a, b):
            (endpoint,) = sandbox.endpoints
            assert (endpoint.ipv4, endpoint.gateway4) == ("", ""), "it has IPv4"
            assert endpoint.ipv6 and endpoint.gateway6
        if lab.probe is not None:
            await lab.probe.serve(a, 80)
            assert await lab.probe.reach(b, a.endpoints[0].ipv6, 80) == a.id
    neither = Network(id=secrets.token_hex(32), name=lab.name("neither"), ipv4=False)
    with raises(InvalidArgument, "a network without any address"):
        await lab.networks.create(neither)
