"""The firewall's fixed part: sets, base chains and rules of our one table. Pure.

All that changes while the system runs are elements of these sets, and the chains of `services` and
`policies`, which exist once for each number of backends and each policy. A packet's way::

    prerouting ─ guard ─ dnat: services, published ports ─► forward: policies, isolation
    output ───────────── dnat ─────────────────────────┘            │
                                                                    ▼
                                                       postrouting: masquerade
"""

from __future__ import annotations

from collections.abc import Iterator

from sagong_network_bridge import expressions as ex
from sagong_network_bridge.expressions import Hook
from sagong_network_bridge.nft import DYNAMIC, INTERVAL, MAP, TIMEOUT, BaseChain, Rule, SetKind

__all__ = [
    "BASE_CHAINS",
    "PLAIN_CHAINS",
    "SETS",
    "concatenation",
    "fixed_rules",
]

# Numbers by which nft(8) names types: they only matter for showing.
_ADDRESS = {4: 7, 6: 8}
_PROTOCOL, _PORT, _MARK, _NAME = 12, 13, 19, 41
_BYTES = {4: 4, 6: 16}
_LOOPBACK = {4: b"\x7f", 6: bytes(15) + b"\x01"}


def concatenation(*types: int) -> int:
    """The type of a concatenated key as nft(8) numbers it."""
    result = 0
    for kind in types:
        result = result << 6 | kind
    return result


def _sets(version: int) -> Iterator[SetKind]:
    address, size = _ADDRESS[version], _BYTES[version]
    target = concatenation(address, _PORT)
    front = concatenation(address, _PROTOCOL, _PORT)
    for name in ("ports", "nodeids", "nodes", "nonodes"):
        key = (f"{name}{version}", concatenation(_PROTOCOL, _PORT), 8)
        yield _map_of(key, name, target, size)
    for name in ("portsat", "serviceids", "services", "noservices"):
        yield _map_of((f"{name}{version}", front, size + 8), name, target, size)
    behind = concatenation(address, _PROTOCOL, _PORT, _MARK)
    yield SetKind(f"behind{version}", behind, size + 12, target, size + 4, MAP)
    door = concatenation(_PROTOCOL, _PORT, _MARK)
    yield SetKind(f"behinddoor{version}", door, 12, target, size + 4, MAP)
    index = concatenation(_MARK, _MARK)
    yield SetKind(f"backends{version}", index, 8, _MARK, 4, MAP)
    sticky = concatenation(address, _MARK)
    flags = MAP | TIMEOUT | DYNAMIC
    yield SetKind(f"sticky{version}", sticky, size + 4, _MARK, 4, flags)
    yield SetKind(f"live{version}", index, 8, target, size + 4, MAP)
    yield SetKind(f"backed{version}", address, size)
    yield SetKind(f"hairpin{version}", concatenation(address, address), 2 * size)
    for name in ("natted", "cluster", "virtual", "visitors"):
        yield SetKind(f"{name}{version}", address, size, flags=INTERVAL)
    for name in ("routed", "unprotected"):
        yield SetKind(f"{name}{version}", _NAME, 16)
    yield SetKind(f"sources{version}", _NAME, 16, address, size, MAP)
    for name in ("opened", "entered"):
        yield SetKind(f"{name}{version}", front, size + 8)
    for name in ("selected_in", "selected_out"):
        yield SetKind(f"{name}{version}", address, size, flags=MAP, verdicts=True)


def _map_of(key: tuple[str, int, int], name: str, target: int, size: int) -> SetKind:
    """Maps to a backend's address and port, to a service's number, or to a verdict."""
    if name in ("ports", "portsat"):
        return SetKind(*key, target, size + 4, MAP)
    if name in ("nodeids", "serviceids"):
        return SetKind(*key, _MARK, 4, MAP)
    return SetKind(*key, flags=MAP, verdicts=True)


_PAIR = concatenation(_NAME, _NAME)
SETS: tuple[SetKind, ...] = (
    *(SetKind(name, _NAME, 16) for name in ("bridges", "internal", "isolated")),
    *(SetKind(name, _PAIR, 32) for name in ("same", "switched", "trusted")),
    *_sets(4),
    *_sets(6),
)
"""All sets, by what a member means:

bridges: our bridges. internal: those without a way out. isolated: those cut off from other
bridges. unprotected: those whose addresses others may reach directly; routed: of these only what
is published, which is opened (address, protocol, port). trusted: (interface of the machine,
bridge) that lead to what is published at its own address, which is entered (address, protocol,
port). same: (bridge, itself). switched: the same for bridges whose inner traffic the firewall
does not see. natted: subnets that leave with the machine's address. sources: bridges whose
traffic leaves with an address that was chosen, to it. cluster: pod ranges. virtual: service
ranges. visitors: who of other machines reaches published ports. hairpin: (address, itself).
ports, portsat: published ports on all or one address. services, nodes: virtual addresses and node
ports to the chain that picks a backend; behind, behinddoor: the same and an index to address and
port. Where clients stick: serviceids, nodeids: to the service's number. backends: (number, index) to a
backend's number. sticky: (client, number) to the backend's; live: (number, backend's) to the address
and port of those that are still there; backed: addresses of backends. noservices, nonodes: what is
refused. selected_in, selected_out: addresses under policies to their chains.
"""

BASE_CHAINS: tuple[BaseChain, ...] = (
    BaseChain("guard", "filter", Hook.PREROUTING, -300),
    BaseChain("dnat_in", "nat", Hook.PREROUTING, -100),
    BaseChain("dnat_out", "nat", Hook.OUTPUT, -100),
    BaseChain("policy_out", "filter", Hook.FORWARD, -20),
    BaseChain("policy_in", "filter", Hook.FORWARD, -19),
    BaseChain("forward", "filter", Hook.FORWARD, 0),
    BaseChain("input", "filter", Hook.INPUT, 0),
    BaseChain("output", "filter", Hook.OUTPUT, 0),
    BaseChain("source", "nat", Hook.POSTROUTING, 100),
)

PLAIN_CHAINS: tuple[str, ...] = ("services", "published", "refuse", "ignore")


def fixed_rules() -> Iterator[Rule]:
    """All rules of the fixed chains, in order."""
    yield from _guard()
    yield from _services()
    yield from _published()
    yield from _refusals()
    yield from _policies()
    yield from _forward()
    yield from _source()


def _guard() -> Iterator[Rule]:
    """Bridges route the machine's loopback addresses for published ports: only outwards."""
    inside = ex.interface(0, incoming=True) + ex.look_up("bridges", 0)
    local = ex.destination(0, 4) + _masked_loopback()
    rule = ex.family(4) + inside + local + ex.discard()
    yield Rule("guard", rule, "no container reaches the machine's loopback")


def _masked_loopback() -> bytes:
    """127.0.0.0/8: the first byte, which `payload` has put first into the register."""
    return ex.compare(0, _LOOPBACK[4])


def _front(version: int) -> bytes:
    """Load (destination, protocol, port) from register 0 on."""
    width = _BYTES[version] // 4
    return (
        ex.destination(0, version)
        + ex.protocol(width)
        + _has_ports(width)
        + ex.destination_port(width + 1)
    )


def _has_ports(register: int) -> bytes:
    """Keep icmp out: its bytes at the ports' place are something else."""
    return ex.compare(register, b"\x01", 1) + ex.compare(register, b"\x3a", 1)


def _door() -> bytes:
    """Load (protocol, port) from register 0 on."""
    return ex.protocol(0) + _has_ports(0) + ex.destination_port(1)


def _services() -> Iterator[Rule]:
    local = ex.family(4) + ex.destination(0, 4) + _masked_loopback()
    # Sent on before the kernel would drop it, it would reach what is published on loopback alone.
    yield Rule("dnat_in", local + ex.accept(), "nobody outside means our loopback")
    for chain in ("dnat_in", "dnat_out"):
        yield Rule(chain, ex.jump("services"))
        yield Rule(chain, ex.address_type(2) + ex.jump("published"), "addresses of this machine")
    for version in (4, 6):
        found = ex.family(version) + _front(version)
        rule = found + ex.look_up(f"services{version}", 0, verdict=True)
        yield Rule("services", rule, "virtual addresses")


def _published() -> Iterator[Rule]:
    for version in (4, 6):
        width = _BYTES[version] // 4
        send = ex.destination_nat(version, 8, 8 + width)
        at = ex.family(version) + _front(version)
        at += ex.look_up(f"portsat{version}", 0, into=8) + send
        yield Rule("published", at, "ports published on one address")
        anywhere = ex.family(version) + _door() + ex.look_up(f"ports{version}", 0, into=8) + send
        yield Rule("published", anywhere, "ports published on all addresses")
        node = ex.family(version) + _door() + ex.look_up(f"nodes{version}", 0, verdict=True)
        yield Rule("published", node, "node ports")


def _refusals() -> Iterator[Rule]:
    yield Rule("forward", ex.conntrack_bits(0, 2 | 4) + ex.accept())
    yield Rule("refuse", ex.tcp_reject())
    yield Rule("refuse", ex.icmp_reject())
    yield Rule("ignore", ex.discard())
    for version in (4, 6):
        node = ex.family(version) + _door() + ex.look_up(f"nonodes{version}", 0, verdict=True)
        yield Rule("input", node, "node ports without backends")
        for chain in ("forward", "output"):
            front = ex.family(version) + _front(version)
            none = front + ex.look_up(f"noservices{version}", 0, verdict=True)
            yield Rule(chain, none, "services without backends")
            range_ = ex.family(version) + ex.destination(0, version)
            range_ += ex.look_up(f"virtual{version}", 0) + ex.jump("refuse")
            yield Rule(chain, range_, "virtual addresses of no service")


def _policies() -> Iterator[Rule]:
    sides = (
        ("policy_out", "selected_out", ex.source),
        ("policy_in", "selected_in", ex.destination),
    )
    for chain, selected, load in sides:
        yield Rule(chain, ex.conntrack_bits(0, 2 | 4) + ex.accept())
        for version in (4, 6):
            itself = _itself(version) + ex.accept()
            yield Rule(chain, itself, "nobody is kept from itself")
            rule = ex.family(version) + load(0, version)
            rule += ex.look_up(f"{selected}{version}", 0, verdict=True)
            yield Rule(chain, rule)


def _itself(version: int) -> bytes:
    width = _BYTES[version] // 4
    loaded = ex.family(version) + ex.source(0, version) + ex.destination(width, version)
    return loaded + ex.look_up(f"hairpin{version}", 0)


def _bridge(name: str, *, incoming: bool, absent: bool = False) -> bytes:
    return ex.interface(0, incoming=incoming) + ex.look_up(name, 0, absent=absent)


def _both(name: str) -> bytes:
    return ex.interface(0, incoming=True) + ex.interface(4, incoming=False) + ex.look_up(name, 0)


def _forward() -> Iterator[Rule]:
    yield Rule("forward", _both("same") + ex.accept(), "within a network")
    coming, going = (_bridge("bridges", incoming=flag) for flag in (True, False))
    for incoming in (True, False):
        other = going if incoming else coming
        rule = _bridge("isolated", incoming=incoming) + other + ex.discard()
        yield Rule("forward", rule, "isolated from other networks")
        rule = _bridge("internal", incoming=incoming) + ex.discard()
        yield Rule("forward", rule, "no way out of an internal network, and none in")
    foreign = _bridge("bridges", incoming=True, absent=True)
    for version in (4, 6):
        stranger = ex.conntrack_bits(2, 0x20) + ex.family(version) + ex.source(0, version)
        stranger += ex.look_up(f"visitors{version}", 0, absent=True) + ex.discard()
        yield Rule("forward", foreign + stranger, "published ports are not for everybody")
    yield Rule("forward", ex.conntrack_bits(2, 0x20) + ex.accept(), "published ports and services")
    yield from _direct(foreign)
    for version in (4, 6):
        to_pod = ex.family(version) + ex.destination(0, version)
        to_pod += ex.look_up(f"cluster{version}", 0)
        yield Rule("forward", to_pod + foreign + ex.accept(), "other machines reach pods")
        from_pod = ex.source(0, version) + ex.look_up(f"cluster{version}", 0)
        yield Rule("forward", to_pod + from_pod + ex.accept(), "pods reach pods")
    yield Rule("forward", going + ex.discard(), "only published ports are reached from outside")


def _direct(foreign: bytes) -> Iterator[Rule]:
    """What reaches containers at their own addresses, where a network is so."""
    for version in (4, 6):
        here = ex.family(version) + foreign
        every = here + _bridge(f"unprotected{version}", incoming=False)
        yield Rule("forward", every + ex.accept(), "networks that are open as they are")
        known = here + ex.source(0, version) + ex.look_up(f"visitors{version}", 0)
        opened = known + _front(version) + ex.look_up(f"opened{version}", 0)
        yield Rule("forward", opened + ex.accept(), "published ports of routed networks")
        entered = known + _both("trusted") + _front(version) + ex.look_up(f"entered{version}", 0)
        yield Rule("forward", entered + ex.accept(), "published ports for trusted interfaces")
        ping = known + ex.protocol(0) + ex.compare(0, b"\x01" if version == 4 else b"\x3a")
        ping += _bridge(f"routed{version}", incoming=False)
        yield Rule("forward", ping + ex.accept(), "routed networks answer pings")


def _source() -> Iterator[Rule]:
    going = _bridge("bridges", incoming=False)
    for version in (4, 6):
        local = ex.family(version) + ex.source(0, version) + ex.compare(0, _LOOPBACK[version])
        rule = local + going + ex.masquerade()
        yield Rule("source", rule, "published ports by the machine's loopback")
        yield Rule("source", _itself(version) + ex.masquerade(), "back to the caller itself")
    switched = _both("switched") + ex.conntrack_bits(2, 0x20) + ex.masquerade()
    yield Rule("source", switched, "answers within a bridge would not come this way")
    for version in (4, 6):
        pods = ex.family(version) + ex.source(0, version) + ex.look_up(f"cluster{version}", 0)
        pods += ex.destination(0, version) + ex.look_up(f"cluster{version}", 0)
        yield Rule("source", pods + ex.accept(), "pods keep their addresses among pods")
    yield Rule("source", going + ex.accept())
    for version in (4, 6):
        out = ex.family(version) + ex.source(0, version)
        chosen = ex.family(version) + ex.interface(0, incoming=True)
        chosen += ex.look_up(f"sources{version}", 0, into=8) + ex.source_nat(version, 8)
        yield Rule("source", chosen, "networks that leave with an address of their choice")
        rule = out + ex.look_up(f"natted{version}", 0) + ex.masquerade()
        yield Rule("source", rule, "containers leave with this machine's address")
        back = ex.family(version) + ex.destination(0, version)
        back += ex.look_up(f"backed{version}", 0) + ex.conntrack_bits(2, 0x20) + ex.masquerade()
        yield Rule("source", back, "backends elsewhere answer through this machine")
