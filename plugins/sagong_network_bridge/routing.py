"""Services and policies of the machine: the rules applied last, and their way into the firewall.

Rules come whole; what was computed of each service is kept, so only changed ones cost.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, NamedTuple

from sagong.contracts.network import Rules, ServicePort
from sagong.errors import InvalidArgument
from sagong_network_bridge.addresses import space_of
from sagong_network_bridge.conntrack import forget_datagrams
from sagong_network_bridge.elements import Content, address_bytes, interval_elements
from sagong_network_bridge.firewall import Firewall, Wanted
from sagong_network_bridge.networks import Networks
from sagong_network_bridge.policies import plan_policies
from sagong_network_bridge.reach import Reach, bridges_to
from sagong_network_bridge.records import Records
from sagong_network_bridge.services import Piece, ServiceElements, chain_rules, elements_of

__all__ = ["Routing"]

Run = Callable[..., Coroutine[Any, Any, Any]]
Reflect = Callable[[frozenset[str]], Coroutine[Any, Any, None]]
Key = tuple[str, str, int]


class _Known(NamedTuple):
    """A service and what it needs."""

    service: ServicePort
    elements: ServiceElements


class _Difference(NamedTuple):
    """Services that go (changed ones, too) and that come, by key."""

    gone: dict[Key, _Known]
    new: dict[Key, _Known]


class Routing:
    """Keeps the rules."""

    def __init__(
        self,
        networks: Networks,
        firewall: Firewall,
        reach: Reach,
        records: Records,
        run: Run,
        reflect: Reflect,
    ) -> None:
        self._networks = networks
        self._firewall = firewall
        self._reach = reach
        self._records = records
        self._run = run
        self._reflect = reflect
        self._rules = Rules(generation=-1)
        self._known: dict[Key, _Known] = {}
        self._fronts: dict[tuple[str, bytes], Key] = {}
        self._chains: Counter[str] = Counter()
        self._backends: Counter[str] = Counter()
        self._turn = asyncio.Lock()

    async def restore(self) -> dict[str, Wanted]:
        """The rules that a predecessor had, as the firewall's parts."""
        rules = self._records.rules() or self._rules
        try:
            change = self._difference(rules.services)
            plan_policies(rules.policies)
        except InvalidArgument:
            # Another version took what this one refuses: the node will send rules again.
            rules = self._rules
            change = self._difference(())
        self._account(change)
        await self._networks.filter(self._filtered(rules))
        services = Wanted()
        for piece in (p for known in change.new.values() for p in known.elements.pieces):
            services.content.setdefault(piece.set, {})[piece.key, False] = piece.data
        for piece in (p for address in self._backends for p in _backend_pieces(address)):
            services.content.setdefault(piece.set, {})[piece.key, False] = piece.data
        services.chains = {name: tuple(chain_rules(name)) for name in self._chains}
        self._rules = rules
        policies = Wanted(*plan_policies(rules.policies).wanted())
        return {"services": services, "policies": policies, "ranges": Wanted(_ranges(rules))}

    async def apply(self, rules: Rules) -> None:
        """Replace the rules; an older generation is ignored."""
        async with self._turn:
            if rules.generation < self._rules.generation:
                return
            change = self._difference(rules.services)
            policies = plan_policies(rules.policies)
            ranges = _ranges(rules)
            await self._filter(rules)
            self._alter(change)
            if rules.policies != self._rules.policies:
                self._firewall.replace("policies", Wanted(*policies.wanted()))
            self._firewall.replace("ranges", Wanted(ranges))
            self._records.keep_rules(rules)
            self._rules = rules
            await self._lead()
            lost = _lost_datagrams(change)
            if lost:
                with contextlib.suppress(OSError):
                    await self._run(forget_datagrams, frozenset(), lost)

    async def lead(self) -> None:
        """Bridges have come or gone: let virtual addresses be reached by one that is there."""
        async with self._turn:
            await self._lead()

    async def _lead(self) -> None:
        networks = self._networks
        wanted = bridges_to(self._rules, networks.records(), networks.indexes())
        await self._run(self._reach.ensure, wanted)

    async def take_in(self) -> None:
        """There is a new network: what the rules that hold say of it, holds."""
        async with self._turn:
            await self._filter(self._rules)

    async def _filter(self, rules: Rules) -> None:
        before = self._networks.filtered
        await self._networks.filter(self._filtered(rules))
        if self._networks.filtered != before:
            self._firewall.replace("networks", Wanted(self._networks.content()))
            await self._reflect(self._networks.filtered - before)

    def _difference(self, services: Iterable[ServicePort]) -> _Difference:
        """What changes; InvalidArgument for a wrong service or two with one address and port."""
        wanted = {(s.name, s.protocol, s.port): s for s in services}
        gone = {
            key: known for key, known in self._known.items() if wanted.get(key) != known.service
        }
        new = {
            key: _Known(service, elements_of(service))
            for key, service in wanted.items()
            if key in gone or key not in self._known
        }
        fronts = {front: key for front, key in self._fronts.items() if key not in gone}
        for key, known in new.items():
            for front in _fronts(known.elements):
                if fronts.setdefault(front, key) != key:
                    raise InvalidArgument(
                        f"service {key[0]}: port {key[2]}/{key[1]} of its addresses, or its node "
                        f"port, belongs to {fronts[front][0]}"
                    )
        return _Difference(gone, new)

    def _account(self, change: _Difference) -> tuple[set[str], set[str], set[str], set[str]]:
        """Count uses; chains and backends that are used no more, and for the first time."""
        chains, backends = set(self._chains), set(self._backends)
        for known in change.gone.values():
            self._chains.subtract(known.elements.chains)
            self._backends.subtract(known.elements.backends)
            for front in _fronts(known.elements):
                del self._fronts[front]
        for key, known in change.new.items():
            self._chains.update(known.elements.chains)
            self._backends.update(known.elements.backends)
            self._fronts.update(dict.fromkeys(_fronts(known.elements), key))
        self._chains, self._backends = +self._chains, +self._backends
        for key in change.gone:
            del self._known[key]
        self._known |= change.new
        after, now = set(self._chains), set(self._backends)
        return chains - after, after - chains, backends - now, now - backends

    def _alter(self, change: _Difference) -> None:
        if not change.gone and not change.new:
            return
        gone_chains, new_chains, gone_backends, new_backends = self._account(change)
        gone = [p for known in change.gone.values() for p in known.elements.pieces]
        new = [p for known in change.new.values() for p in known.elements.pieces]
        gone += [p for address in gone_backends for p in _backend_pieces(address)]
        new += [p for address in new_backends for p in _backend_pieces(address)]
        try:
            self._firewall.alter(
                "services",
                gone,
                new,
                {name: tuple(chain_rules(name)) for name in new_chains},
                gone_chains,
            )
        except BaseException:
            self._account(_Difference(change.new, change.gone))
            raise

    def _filtered(self, rules: Rules) -> frozenset[str]:
        """Networks whose inner traffic services or policies concern."""
        if not rules.services and not rules.policies:
            return frozenset()
        pods = [space_of(block) for block in rules.pod_cidrs]
        chosen = [ipaddress.ip_address(a) for p in rules.policies for a in p.addresses]
        found = set()
        for record in self._networks.records():
            for range_ in self._networks.ranges(record.network.id):
                space = range_.space
                if any(pod.version == space.version and pod.overlaps(space) for pod in pods):
                    found.add(record.network.id)
                if any(address in space for address in chosen):
                    found.add(record.network.id)
        return frozenset(found)


def _fronts(elements: ServiceElements) -> Iterator[tuple[str, bytes]]:
    """Addresses and ports, and node ports, whether they lead somewhere or are refused."""
    for piece in elements.pieces:
        kind = piece.set.removeprefix("no")
        if kind.startswith(("services", "nodes")):
            yield kind, piece.key


def _backend_pieces(address: str) -> tuple[Piece, Piece]:
    packed = address_bytes(address)
    version = 4 if len(packed) == 4 else 6
    return Piece(f"backed{version}", packed, b""), Piece(f"hairpin{version}", packed + packed, b"")


def _ranges(rules: Rules) -> Content:
    """Blocks of pods and of virtual addresses."""
    content: Content = {}
    for name, blocks in (("cluster", rules.pod_cidrs), ("virtual", rules.service_cidrs)):
        for version in (4, 6):
            try:
                content[f"{name}{version}"] = interval_elements(blocks, version)
            except ValueError as error:
                raise InvalidArgument(f"address block: {error}") from None
    return content


def _lost_datagrams(change: _Difference) -> frozenset[str]:
    """Addresses of udp backends that are no longer one."""
    old, new = (
        {
            address
            for known in side.values()
            if known.service.protocol.lower() == "udp"
            for address in known.elements.backends
        }
        for side in change
    )
    return frozenset(old - new)
