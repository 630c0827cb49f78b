"""Checks of slot `network` about what sandboxes have received and sent."""

from __future__ import annotations

from msgspec.structs import replace

from sagong.conformance.network_lab import NetworkLab
from sagong.conformance.network_owners import OWNER
from sagong.contracts.network import (
    Attachment,
    ConnectRequest,
    Counters,
    CountersQuery,
    DisconnectRequest,
    JoinRequest,
    Sandbox,
)

_QUESTIONS = 8


async def _counters(lab: NetworkLab, sandbox: Sandbox) -> dict[str, Counters]:
    """Of the interfaces, by the networks they are on."""
    found = (await lab.networks.counters(CountersQuery(ids=(sandbox.id,)))).sandboxes
    assert [one.id for one in found] == [sandbox.id], f"{sandbox.id} is not counted"
    by_name = {counters.interface: counters for counters in found[0].interfaces}
    assert len(by_name) == len(found[0].interfaces), "an interface is told twice"
    current = {e.interface: e.network for e in sandbox.endpoints}
    assert by_name.keys() == current.keys(), f"{sorted(by_name)} is not {sorted(current)}"
    return {network: by_name[name] for name, network in current.items()}


async def check_counters_are_of_those_asked_for(lab: NetworkLab) -> None:
    async with lab.network() as network:
        a, b = await lab.join("a", network), await lab.join("b", network)
        unknown = lab.name("nobody")
        some = await lab.networks.counters(CountersQuery(ids=(b.id, unknown)))
        assert [one.id for one in some.sandboxes] == [b.id], "not the one that was asked for"
        everybody = {one.id for one in (await lab.networks.counters(CountersQuery())).sandboxes}
        assert {a.id, b.id} <= everybody, "not all, when none is named"
        await lab.leave(b)
        gone = await lab.networks.counters(CountersQuery(ids=(b.id,)))
        assert gone.sandboxes == (), "one that has left is counted"


async def check_counters_are_of_each_endpoint(lab: NetworkLab) -> None:
    async with lab.network("a") as first, lab.network("b") as second:
        sandbox = await lab.join("a", first)
        assert (await _counters(lab, sandbox)).keys() == {first.id}
        wish = ConnectRequest(id=sandbox.id, attachment=Attachment(network=second.id))
        sandbox = await lab.networks.connect(wish)
        assert (await _counters(lab, sandbox)).keys() == {first.id, second.id}
        away = DisconnectRequest(id=sandbox.id, network=first.id)
        sandbox = await lab.networks.disconnect(away)
        assert (await _counters(lab, sandbox)).keys() == {second.id}


async def check_counters_without_networks_are_none(lab: NetworkLab) -> None:
    for mode in ("none", "host"):
        sandbox = await lab.networks.join(JoinRequest(id=lab.name(mode), mode=mode))
        try:
            assert await _counters(lab, sandbox) == {}, f"mode {mode} counts"
        finally:
            await lab.leave(sandbox)


async def check_counters_grow_with_traffic(lab: NetworkLab) -> None:
    """Both ways, each side as it sees it: answers are longer than questions."""
    if lab.probe is None:
        return
    async with lab.network() as network:
        a, b = await lab.join("a", network), await lab.join("b", network)
        await lab.probe.serve(a, 80, "udp")
        before = [(await _counters(lab, sandbox))[network.id] for sandbox in (a, b)]
        for _ in range(_QUESTIONS):
            assert await lab.probe.reach(b, a.endpoints[0].ipv4, 80, "udp") == a.id
        after = [(await _counters(lab, sandbox))[network.id] for sandbox in (a, b)]
        server, client = (_grown(*pair) for pair in zip(before, after, strict=True))
        for side in (server, client):
            assert min(side.rx_packets, side.tx_packets) >= _QUESTIONS, f"only {side}"
            assert (side.rx_errors, side.tx_errors) == (0, 0), f"errors of a sound cable: {side}"
        assert server.tx_bytes > server.rx_bytes > 0, f"the server's directions: {server}"
        assert client.rx_bytes > client.tx_bytes > 0, f"the client's directions: {client}"


async def check_counters_go_on_over_a_crash(lab: NetworkLab) -> None:
    """Of a sandbox that a user namespace owns, too: the interfaces are the kernel's."""
    if lab.probe is None or lab.restart is None:
        return
    async with lab.network() as network:
        request = replace(lab.request("a", network), user_namespace=OWNER)
        a, b = await lab.networks.join(request), await lab.join("b", network)
        await lab.probe.serve(a, 80)
        assert await lab.probe.reach(b, a.endpoints[0].ipv4, 80) == a.id
        before = [(await _counters(lab, sandbox))[network.id] for sandbox in (a, b)]
        lab.networks = await lab.restart()
        after = [(await _counters(lab, sandbox))[network.id] for sandbox in (a, b)]
        for was, now in zip(before, after, strict=True):
            assert now.rx_bytes >= was.rx_bytes > 0, f"from {was} to {now}"


def _grown(before: Counters, after: Counters) -> Counters:
    fields = [name for name in Counters.__struct_fields__ if name != "interface"]
    by = {name: getattr(after, name) - getattr(before, name) for name in fields}
    return Counters(interface=after.interface, **by)
