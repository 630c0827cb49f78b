"""Checks of slot `network` about names and addresses that one sandbox asks for."""

from __future__ import annotations

from msgspec.structs import replace

from sagong.conformance.network_lab import ELSEWHERE, NetworkLab
from sagong.contracts.network import Attachment, SandboxRef


async def check_links_are_names_of_one_sandbox(lab: NetworkLab) -> None:
    if lab.probe is None:
        return
    async with lab.network() as network:
        target, other = await lab.join("target", network), await lab.join("other", network)
        links = (("db", lab.name("target")), ("ghost", lab.name("nobody")))
        wish = Attachment(network=network.id, links=links)
        request = replace(lab.request("linked", network), attachments=(wish,))
        linked = await lab.networks.join(request)
        for name in ("db", "DB", lab.name("target")):
            assert await lab.probe.resolve(linked, name) == (target.endpoints[0].ipv4,), name
        assert await lab.probe.resolve(other, "db") == (), "a link is everybody's"
        assert await lab.probe.resolve(linked, "ghost") == (), "a link to nobody has an address"
        await lab.leave(target)
        assert await lab.probe.resolve(linked, "db") == (), "a link outlived its target"
        again = await lab.join("target", network)
        assert await lab.probe.resolve(linked, "db") == (again.endpoints[0].ipv4,)


async def check_other_names_are_asked_of_the_nameservers(lab: NetworkLab) -> None:
    if lab.probe is None or not lab.nameserver:
        return
    name, address = ELSEWHERE
    async with lab.network("a") as network, lab.network("b", internal=True) as internal:
        inside, enclosed = await lab.join("in", network), await lab.join("enclosed", internal)
        assert await lab.probe.resolve(inside, name) == (address,)
        assert await lab.probe.resolve(inside, "nobody.suite.test") == ()
        assert await lab.probe.resolve(enclosed, name) == (), "an internal network leads out"


async def check_given_hardware_address_is_had(lab: NetworkLab) -> None:
    async with lab.network() as network:
        wish = Attachment(network=network.id, mac="02:42:0A:00:00:99")
        request = replace(lab.request("mac", network), attachments=(wish,))
        sandbox = await lab.networks.join(request)
        assert sandbox.endpoints[0].mac.lower() == wish.mac.lower()
        assert (await lab.networks.inspect(SandboxRef(id=sandbox.id))) == sandbox
