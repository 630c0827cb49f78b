"""Network policies → chains, sets of addresses, and which addresses each chain stands before. Pure.

An address that policies select gets one chain for the combination of policies that select it; that
chain asks each of them and drops what none accepts. Peers' addresses are sets, so a change of pods
changes elements.
"""

from __future__ import annotations

import hashlib
import ipaddress
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sagong.contracts.network import Peer, Policy
from sagong.errors import InvalidArgument
from sagong_network_bridge import expressions as ex
from sagong_network_bridge.elements import PROTOCOLS, Content, address_bytes, interval_elements
from sagong_network_bridge.expressions import Verdict, verdict_data
from sagong_network_bridge.nft import INTERVAL, Rule, SetKind

__all__ = ["PolicyPlan", "plan_policies"]

_SIDES = ("in", "out")
_TYPES = {4: (7, 4), 6: (8, 16)}


class PolicyPlan(NamedTuple):
    """Chains with their rules (those jumped to come first), sets, and elements of all of them."""

    chains: dict[str, tuple[Rule, ...]]
    sets: dict[str, SetKind]
    content: Content

    def wanted(self) -> tuple[Content, dict[str, tuple[Rule, ...]], dict[str, SetKind]]:
        """In the order that the firewall takes it."""
        return self.content, self.chains, self.sets


def plan_policies(policies: Iterable[Policy]) -> PolicyPlan:
    """All policies of the machine."""
    plan = PolicyPlan({}, {}, {})
    selected: dict[tuple[str, str], list[str]] = {}
    for policy in policies:
        for side in _SIDES:
            peers = policy.ingress if side == "in" else policy.egress
            if peers is None:
                continue
            chain = f"policy_{side}_{_mark(policy.name)}"
            plan.chains[chain] = tuple(_policy_rules(plan, chain, side, peers))
            for address in policy.addresses:
                selected.setdefault((side, _plain(address, policy.name)), []).append(chain)
    for (side, address), chains in selected.items():
        version = 6 if ":" in address else 4
        key = (address_bytes(address), False)
        data = verdict_data(Verdict.GOTO, _combined(plan, side, chains))
        plan.content.setdefault(f"selected_{side}{version}", {})[key] = data
    return plan


def _plain(address: str, policy: str) -> str:
    try:
        return str(ipaddress.ip_address(address.partition("/")[0]))
    except ValueError:
        raise InvalidArgument(f"policy {policy}: {address!r} is not an IP address") from None


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _combined(plan: PolicyPlan, side: str, chains: list[str]) -> str:
    """The chain for one combination of policies."""
    name = f"chosen_{side}_{_mark(' '.join(sorted(chains)))}"
    if name not in plan.chains:
        jumps = (Rule(name, ex.jump(chain)) for chain in sorted(chains))
        plan.chains[name] = (*jumps, Rule(name, ex.discard(), "what no policy allows"))
    return name


def _policy_rules(
    plan: PolicyPlan, chain: str, side: str, peers: tuple[Peer, ...]
) -> Iterator[Rule]:
    load = ex.source if side == "in" else ex.destination
    for index, peer in enumerate(peers):
        for version in (4, 6):
            match = ex.family(version)
            if not peer.any_address:
                name = f"peer_{chain.removeprefix('policy_')}_{index}_{version}"
                blocks = _allowed(peer, version)
                if not blocks:
                    continue
                kind, size = _TYPES[version]
                plan.sets[name] = SetKind(name, kind, size, flags=INTERVAL)
                plan.content[name] = interval_elements(blocks, version)
                match += load(0, version) + ex.look_up(name, 0)
            for ports in _port_matches(peer):
                yield Rule(chain, match + ports + ex.accept())


def _allowed(peer: Peer, version: int) -> list[str]:
    """The peer's blocks without their exceptions."""
    excepted = [_block(text) for text in peer.excepted]
    found: list[str] = []
    for text in peer.blocks:
        parts = [_block(text)]
        if parts[0].version != version:
            continue
        for hole in excepted:
            parts = [rest for part in parts for rest in _without(part, hole)]
        found += map(str, parts)
    return found


def _block(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise InvalidArgument(f"policy block {text!r}: {error}") from None


def _without(
    part: ipaddress.IPv4Network | ipaddress.IPv6Network,
    hole: ipaddress.IPv4Network | ipaddress.IPv6Network,
) -> Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    if part.version != hole.version or not part.overlaps(hole):
        return (part,)
    if part.subnet_of(hole):  # type: ignore[arg-type]
        return ()
    return part.address_exclude(hole)  # type: ignore[arg-type]


def _port_matches(peer: Peer) -> Iterator[bytes]:
    """One expression for each port range; an empty one allows every protocol."""
    if not peer.ports:
        yield b""
    for name, first, last in peer.ports:
        if name.lower() not in PROTOCOLS:
            raise InvalidArgument(f"policy port protocol {name!r}: tcp, udp, sctp or icmp")
        match = ex.protocol(0) + ex.compare(0, bytes([PROTOCOLS[name.lower()]]))
        if (first, last or first) not in ((0, 0), (0, 65535), (1, 65535)):
            match += ex.destination_port(0)
            match += ex.compare(0, struct.pack(">H", first), 5)
            match += ex.compare(0, struct.pack(">H", last or first), 3)
        yield match
