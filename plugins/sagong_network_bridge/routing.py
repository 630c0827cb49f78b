"""Services and policies of the machine: the rules applied last, and their way into the firewall."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from sagong.contracts.network import Rules, ServicePort
from sagong.errors import InvalidArgument
from sagong_network_bridge.addresses import space_of
from sagong_network_bridge.conntrack import forget_datagrams
from sagong_network_bridge.elements import Content, address_bytes, interval_elements
from sagong_network_bridge.firewall import Firewall, Wanted
from sagong_network_bridge.networks import Networks
from sagong_network_bridge.policies import plan_policies
from sagong_network_bridge.records import Records
from sagong_network_bridge.services import Piece, ServiceElements, chain_rules, elements_of

__all__ = ["Routing"]

Run = Callable[..., Coroutine[Any, Any, Any]]


class Routing:
    """Keeps the rules and what was computed of each service, so that only changed ones cost."""

    def __init__(
        self,
        networks: Networks,
        firewall: Firewall,
        records: Records,
        run: Run,
        reflect: Callable[[frozenset[str]], Coroutine[Any, Any, None]],
    ) -> None:
        self._reflect = reflect
        self._networks = networks
        self._firewall = firewall
        self._records = records
        self._run = run
        self._rules = Rules(generation=-1)
        self._computed: dict[ServicePort, ServiceElements] = {}
        self._turn = asyncio.Lock()

    async def restore(self) -> None:
        """The rules that a predecessor had; the caller installs them."""
        rules = self._records.rules()
        if rules is not None:
            self._rules = rules
            await self._networks.filter(self._filtered(rules))

    def wanted(self) -> Wanted:
        """What the firewall must have for the present rules."""
        return self._wanted(self._rules, self._compute(self._rules.services))

    async def apply(self, rules: Rules) -> None:
        """Replace the rules; an older generation is ignored."""
        async with self._turn:
            if rules.generation < self._rules.generation:
                return
            computed = self._compute(rules.services)
            wanted = self._wanted(rules, computed)
            before = self._networks.filtered
            await self._networks.filter(self._filtered(rules))
            if self._networks.filtered != before:
                self._firewall.replace("networks", Wanted(self._networks.content()))
                await self._reflect(self._networks.filtered - before)
            self._firewall.replace("rules", wanted)
            lost = _lost_datagrams(self._rules.services, rules.services)
            self._records.keep_rules(rules)
            self._rules, self._computed = rules, computed
            if lost:
                with contextlib.suppress(OSError):
                    await self._run(forget_datagrams, frozenset(), lost)

    def _compute(self, services: Iterable[ServicePort]) -> dict[ServicePort, ServiceElements]:
        return {s: self._computed.get(s) or elements_of(s) for s in services}

    def _wanted(self, rules: Rules, computed: dict[ServicePort, ServiceElements]) -> Wanted:
        plan = plan_policies(rules.policies)
        content: Content = {name: dict(elements) for name, elements in plan.content.items()}
        chains = dict(plan.chains)
        fronts: dict[tuple[str, bytes], str] = {}
        for service, found in computed.items():
            for piece in found.pieces:
                content.setdefault(piece.set, {})[piece.key, False] = piece.data
                _claim(fronts, piece, service)
            for name in found.chains:
                chains.setdefault(name, tuple(chain_rules(name)))
            for address in found.backends:
                packed = address_bytes(address)
                version = 6 if ":" in address else 4
                content.setdefault(f"backed{version}", {})[packed, False] = b""
                content.setdefault(f"hairpin{version}", {})[packed + packed, False] = b""
        for name, blocks in (("cluster", rules.pod_cidrs), ("virtual", rules.service_cidrs)):
            for version in (4, 6):
                content[f"{name}{version}"] = _intervals(blocks, version)
        return Wanted(content, chains, plan.sets)

    def _filtered(self, rules: Rules) -> frozenset[str]:
        """Networks whose inner traffic services or policies concern."""
        if not rules.services and not rules.policies:
            return frozenset()
        pods = [space_of(block) for block in rules.pod_cidrs]
        chosen = [ipaddress.ip_address(a) for p in rules.policies for a in p.addresses]
        found = set()
        for record in self._networks.records():
            spaces = [range_.space for range_ in self._networks.ranges(record.network.id)]
            for space in spaces:
                if any(pod.version == space.version and pod.overlaps(space) for pod in pods):
                    found.add(record.network.id)
                if any(address in space for address in chosen):
                    found.add(record.network.id)
        return frozenset(found)


def _claim(fronts: dict[tuple[str, bytes], str], piece: Piece, service: ServicePort) -> None:
    """An address and port, or a node port, leads to one service, with or without backends."""
    kind = piece.set.removeprefix("no")
    if not kind.startswith(("services", "nodes")):
        return
    owner = fronts.setdefault((kind, piece.key), service.name)
    if owner != service.name:
        raise InvalidArgument(
            f"service {service.name}: port {service.port}/{service.protocol} of its addresses, or "
            f"its node port, belongs to {owner}"
        )


def _intervals(blocks: tuple[str, ...], version: int) -> dict[tuple[bytes, bool], bytes]:
    try:
        return interval_elements(blocks, version)
    except ValueError as error:
        raise InvalidArgument(f"address block: {error}") from None


def _lost_datagrams(before: Iterable[ServicePort], after: Iterable[ServicePort]) -> frozenset[str]:
    """Addresses of udp backends that are no longer one."""
    old, new = (
        {
            text.rpartition(":")[0].strip("[]")
            for service in services
            if service.protocol.lower() == "udp"
            for text in (*service.backends, *service.local_backends)
        }
        for services in (before, after)
    )
    return frozenset(old - new)
