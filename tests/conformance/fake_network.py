"""A network in memory: addresses, ports, names, and who would reach whom, without a packet."""

from __future__ import annotations

import ipaddress
import itertools
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from msgspec.structs import replace

from sagong.conformance.network_lab import ELSEWHERE
from sagong.contracts.network import (
    Attachment,
    ConnectRequest,
    Counters,
    CountersList,
    CountersQuery,
    DisconnectRequest,
    Endpoint,
    JoinRequest,
    Network,
    NetworkList,
    NetworkRef,
    Peer,
    Policy,
    PortMapping,
    Rules,
    Sandbox,
    SandboxCounters,
    SandboxList,
    SandboxRef,
    ServicePort,
    Subnet,
    UserNamespace,
)
from sagong.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)

__all__ = ["NAMESERVER", "PARENT", "FakeNetworks", "FakeProbe", "Memory"]


PARENT = "lan0"
NAMESERVER = "198.51.100.1"


@dataclass
class Memory:
    """What survives a crash of the fake."""

    networks: dict[str, Network] = field(default_factory=dict)
    sandboxes: dict[str, tuple[JoinRequest, Sandbox]] = field(default_factory=dict)
    traffic: dict[tuple[str, str], list[tuple[int, int]]] = field(default_factory=dict)
    rules: Rules = field(default_factory=lambda: Rules(generation=0))


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise InvalidArgument(f"address {text!r}: {error}") from None


def _space(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise InvalidArgument(f"block {text!r}: {error}") from None


class FakeNetworks:
    """The correct one; the broken ones override a method each."""

    caught_by = ""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.counter = itertools.count(40000)
        if not memory.networks:
            subnet = (Subnet(subnet="172.30.0.0/16", gateway="172.30.0.1"),)
            for number, (name, driver) in enumerate(
                (("bridge", "bridge"), ("host", "host"), ("none", "null"))
            ):
                network = Network(
                    id=f"{number}" * 64,
                    name=name,
                    driver=driver,
                    subnets=subnet if number == 0 else (),
                    created=1.0,
                )
                memory.networks[network.id] = network

    # -- networks

    async def create(self, network: Network) -> Network:
        known = self.memory.networks.get(network.id)
        if known is not None:
            return known
        self.check_network(network)
        if any(n.name == network.name for n in self.memory.networks.values()):
            raise AlreadyExists(f"network with name {network.name} already exists")
        subnets = [self.with_gateway(subnet) for subnet in network.subnets]
        for subnet in subnets:
            if self.overlaps(_space(subnet.subnet)):
                raise Conflict(f"subnet {subnet.subnet} overlaps")
        versions = [_space(subnet.subnet).version for subnet in subnets]
        if not network.ipv4 and not network.ipv6:
            raise InvalidArgument("a network without addresses")
        if network.ipv4 and 4 not in versions:
            subnets.append(self.free_subnet("10.200.{}.0/24"))
        if network.ipv6 and 6 not in versions:
            subnets.append(self.free_subnet("fd00:{}::/64"))
        made = replace(network, subnets=tuple(subnets), created=2.0 + len(self.memory.networks))
        self.memory.networks[network.id] = made
        return made

    def check_network(self, network: Network) -> None:
        if not re.fullmatch("[0-9a-f]{64}", network.id):
            raise InvalidArgument(f"id {network.id}")
        if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_.-]*", network.name):
            raise InvalidArgument(f"name {network.name}")
        if network.driver == "macvlan":
            self.check_macvlan(dict(network.options))
        elif network.driver != "bridge":
            raise InvalidArgument(f"driver {network.driver}")

    def check_macvlan(self, options: dict[str, str]) -> None:
        if options.get("parent") != PARENT:
            raise InvalidArgument(f"parent {options.get('parent')}")
        if options.get("macvlan_mode", "bridge") not in ("bridge", "private"):
            raise InvalidArgument("macvlan_mode")

    def publishes(self, endpoints: Iterable[Endpoint]) -> bool:
        ways = (e for e in endpoints if e.gateway4 or e.gateway6)
        return any(self.network(e.network).driver != "macvlan" for e in ways)

    def with_gateway(self, subnet: Subnet) -> Subnet:
        space = _space(subnet.subnet)
        gateway = subnet.gateway or str(space[1])
        if _ip(gateway) not in space:
            raise InvalidArgument(f"gateway {gateway} is not in {space}")
        if subnet.ip_range and _space(subnet.ip_range)[0] not in space:
            raise InvalidArgument(f"range {subnet.ip_range} is not in {space}")
        return replace(subnet, gateway=gateway)

    def overlaps(self, space: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
        taken = (s for n in self.memory.networks.values() for s in n.subnets)
        return any(_space(subnet.subnet).overlaps(space) for subnet in taken)

    def free_subnet(self, form: str) -> Subnet:
        for number in range(250):
            space = _space(form.format(number))
            if not self.overlaps(space):
                return Subnet(subnet=str(space), gateway=str(space[1]))
        raise ResourceExhausted("no free subnet")

    async def delete(self, network: NetworkRef) -> None:
        known = self.memory.networks.get(network.id)
        if known is None:
            return
        if known.name in ("bridge", "host", "none"):
            raise FailedPrecondition(f"network {known.name} is pre-defined")
        if self.users(network.id):
            raise FailedPrecondition(f"network {known.name} has active endpoints")
        del self.memory.networks[network.id]

    def users(self, network: str) -> list[str]:
        return [s.id for _, s in self.all() if any(e.network == network for e in s.endpoints)]

    async def networks(self) -> NetworkList:
        return NetworkList(
            networks=tuple(sorted(self.memory.networks.values(), key=lambda n: n.created))
        )

    # -- sandboxes

    def all(self) -> list[tuple[JoinRequest, Sandbox]]:
        return list(self.memory.sandboxes.values())

    def network(self, identity: str) -> Network:
        found = self.memory.networks.get(identity)
        if found is None:
            raise NotFound(f"network {identity} not found")
        return found

    async def join(self, request: JoinRequest) -> Sandbox:
        known = self.memory.sandboxes.get(request.id)
        if known is not None:
            return known[1]
        self.check_request(request)
        endpoints: list[Endpoint] = []
        for attachment in request.attachments:
            if any(e.network == attachment.network for e in endpoints):
                raise InvalidArgument("a network is named twice")
            endpoints.append(self.endpoint(attachment, self.named(attachment, endpoints)))
        ports: list[PortMapping] = []
        for mapping in request.ports if self.publishes(endpoints) else ():
            ports.append(self.port(mapping, ports))
        sandbox = Sandbox(
            id=request.id,
            path="" if request.mode == "host" else f"/run/netns/{request.id}",
            mode=request.mode,
            endpoints=tuple(endpoints),
            ports=tuple(ports),
            dns="127.0.0.11",
            names=request.names,
            user_path=f"/run/netns/{request.id}.user" if request.user_namespace else "",
        )
        self.memory.sandboxes[request.id] = (request, sandbox)
        return sandbox

    def check_request(self, request: JoinRequest) -> None:
        if not request.id or request.mode not in ("networks", "none", "host"):
            raise InvalidArgument(f"id {request.id!r}, mode {request.mode!r}")
        if request.mode != "networks" and request.attachments:
            raise InvalidArgument(f"mode {request.mode} with {len(request.attachments)} networks")
        for name, _ in request.sysctls:
            if not name.startswith("net."):
                raise InvalidArgument(f"sysctl {name}")
        for address in request.nameservers:
            _ip(address)
        if request.user_namespace is not None:
            _check_owner(request.user_namespace, request.mode)
        for attachment in request.attachments:
            self.check_interface(attachment)
            if attachment.mac and len(attachment.mac) != 17:
                raise InvalidArgument(f"mac {attachment.mac}")
        for mapping in request.ports:
            self.check_port(mapping)

    def check_interface(self, attachment: Attachment) -> None:
        if not re.fullmatch("|[a-z][a-z0-9]{0,14}", attachment.interface):
            raise InvalidArgument(f"interface {attachment.interface}")
        if attachment.interface == "lo":
            raise InvalidArgument("interface lo")
        if not all(_ip(address).is_link_local for address in attachment.link_locals):
            raise InvalidArgument(f"link-local addresses {attachment.link_locals}")
        for name, _ in attachment.sysctls:
            if not re.fullmatch(r"net\.ipv[46]\.[a-z]+\.IFNAME\.[a-z_]+", name):
                raise InvalidArgument(f"sysctl {name}")

    def named(self, attachment: Attachment, endpoints: Iterable[Endpoint]) -> str:
        taken = {endpoint.interface for endpoint in endpoints}
        if attachment.interface in taken:
            raise Conflict(f"interface {attachment.interface} is taken")
        free = (f"eth{number}" for number in range(len(taken) + 1))
        return attachment.interface or next(name for name in free if name not in taken)

    def check_port(self, mapping: PortMapping) -> None:
        if not 1 <= mapping.container_port <= 65535 or not 0 <= mapping.host_port <= 65535:
            raise InvalidArgument("port out of range")
        if mapping.protocol not in ("tcp", "udp", "sctp"):
            raise InvalidArgument(f"protocol {mapping.protocol}")
        if mapping.host_ip:
            _ip(mapping.host_ip)

    def taken(self) -> dict[str, str]:
        gateways = {s.gateway: "gateway" for n in self.memory.networks.values() for s in n.subnets}
        reserved = {
            address: name
            for n in self.memory.networks.values()
            for s in n.subnets
            for name, address in s.reserved
        }
        used = {a: s.id for _, s in self.all() for e in s.endpoints for a in (e.ipv4, e.ipv6)}
        return gateways | reserved | used

    def endpoint(self, attachment: Attachment, interface: str) -> Endpoint:
        network = self.network(attachment.network)
        endpoint = Endpoint(
            network=network.id,
            interface=interface,
            mac=attachment.mac or "02:42:00:00:00:01",
            aliases=attachment.aliases,
            link_locals=attachment.link_locals,
        )
        for subnet in network.subnets:
            space = _space(subnet.subnet)
            wish = attachment.ipv4 if space.version == 4 else attachment.ipv6
            address = self.given(wish, space) if wish else self.free(subnet)
            gateway = "" if network.internal else subnet.gateway
            name = f"ipv{space.version}"
            facts = {name: address, f"{name}_prefix": space.prefixlen}
            endpoint = replace(endpoint, **facts, **{f"gateway{space.version}": gateway})
        return endpoint

    def given(self, wish: str, space: ipaddress.IPv4Network | ipaddress.IPv6Network) -> str:
        if _ip(wish) not in space or _ip(wish) == space.broadcast_address:
            raise InvalidArgument(f"address {wish} is not in {space}")
        if wish in self.taken():
            raise Conflict(f"address {wish} is already in use")
        return wish

    def free(self, subnet: Subnet) -> str:
        taken = self.taken()
        space = _space(subnet.subnet)
        for address in _space(subnet.ip_range or subnet.subnet):
            edge = address in (space.network_address, space.broadcast_address)
            if str(address) not in taken and not edge:
                return str(address)
        raise ResourceExhausted(f"no free address in {subnet.subnet}")

    def port(self, mapping: PortMapping, others: list[PortMapping]) -> PortMapping:
        if not mapping.host_port:
            mapping = replace(mapping, host_port=next(self.counter))
        for other in [*others, *(p for _, s in self.all() for p in s.ports)]:
            if self.clash(mapping, other):
                raise Conflict(
                    f"Bind for 0.0.0.0:{mapping.host_port} failed: port is already allocated"
                )
        return mapping

    def clash(self, one: PortMapping, other: PortMapping) -> bool:
        if (one.host_port, one.protocol) != (other.host_port, other.protocol):
            return False
        return not one.host_ip or not other.host_ip or one.host_ip == other.host_ip

    async def leave(self, sandbox: SandboxRef) -> None:
        self.memory.sandboxes.pop(sandbox.id, None)

    async def sandboxes(self) -> SandboxList:
        return SandboxList(sandboxes=tuple(s for _, s in self.all()))

    async def inspect(self, sandbox: SandboxRef) -> Sandbox:
        known = self.memory.sandboxes.get(sandbox.id)
        if known is None:
            raise NotFound(f"sandbox {sandbox.id} not found")
        return known[1]

    async def counters(self, query: CountersQuery) -> CountersList:
        known = [s for _, s in self.all() if not query.ids or s.id in query.ids]
        return CountersList(sandboxes=tuple(self.counted(sandbox) for sandbox in known))

    def counted(self, sandbox: Sandbox) -> SandboxCounters:
        found = []
        for interface in (endpoint.interface for endpoint in sandbox.endpoints):
            passed = self.memory.traffic.get((sandbox.id, interface), [])
            rx, tx = sum(size for size, _ in passed), sum(size for _, size in passed)
            count = len(passed)
            sizes = {"rx_bytes": rx, "tx_bytes": tx, "rx_packets": count, "tx_packets": count}
            found.append(Counters(interface=interface, **sizes))
        return SandboxCounters(id=sandbox.id, interfaces=tuple(found))

    def passed(self, sandbox: Sandbox, network: str, rx: int, tx: int) -> None:
        for interface in (e.interface for e in sandbox.endpoints if e.network == network):
            self.memory.traffic.setdefault((sandbox.id, interface), []).append((rx, tx))

    async def connect(self, request: ConnectRequest) -> Sandbox:
        sandbox = await self.inspect(SandboxRef(id=request.id))
        wish, _ = self.memory.sandboxes[request.id]
        if any(e.network == request.attachment.network for e in sandbox.endpoints):
            return sandbox
        self.check_interface(request.attachment)
        interface = self.named(request.attachment, sandbox.endpoints)
        endpoint = self.endpoint(request.attachment, interface)
        sandbox = self.published(wish, sandbox, (*sandbox.endpoints, endpoint))
        wish = replace(wish, attachments=(*wish.attachments, request.attachment))
        self.memory.sandboxes[request.id] = (wish, sandbox)
        return sandbox

    async def disconnect(self, request: DisconnectRequest) -> Sandbox:
        if request.force and request.id not in self.memory.sandboxes:
            return Sandbox(id=request.id)
        sandbox = await self.inspect(SandboxRef(id=request.id))
        wish, _ = self.memory.sandboxes[request.id]
        rest = tuple(e for e in sandbox.endpoints if e.network != request.network)
        sandbox = self.published(wish, sandbox, rest)
        self.memory.sandboxes[request.id] = (wish, sandbox)
        return sandbox

    def published(
        self, wish: JoinRequest, sandbox: Sandbox, endpoints: tuple[Endpoint, ...]
    ) -> Sandbox:
        ports: list[PortMapping] = []
        if self.publishes(endpoints):
            ports += sandbox.ports
            for mapping in () if ports else wish.ports:
                ports.append(self.port(mapping, ports))
        return replace(sandbox, endpoints=endpoints, ports=tuple(ports))

    async def apply(self, rules: Rules) -> None:
        for service in rules.services:
            self.check_service(service)
        for policy in rules.policies:
            for peer in (*(policy.ingress or ()), *(policy.egress or ())):
                for block in peer.blocks:
                    _space(block)
        if self.newer(rules):
            self.memory.rules = rules

    def newer(self, rules: Rules) -> bool:
        return rules.generation >= self.memory.rules.generation

    def check_service(self, service: ServicePort) -> None:
        self.check_port(
            PortMapping(
                container_port=service.port,
                protocol=service.protocol,
                host_port=service.node_port,
            )
        )
        for address in service.addresses:
            _ip(address)
        for backend in service.backends:
            address, colon, _ = backend.rpartition(":")
            if not colon:
                raise InvalidArgument(f"backend {backend}")
            _ip(address)


def _check_owner(wanted: UserNamespace, mode: str) -> None:
    lines = [*wanted.uid_map, *wanted.gid_map]
    if mode == "host" or not wanted.uid_map or not wanted.gid_map:
        raise InvalidArgument(f"a user namespace of mode {mode} with {len(lines)} lines")
    if any(min(line) < 0 or line[2] < 1 or max(line) >= 1 << 32 for line in lines):
        raise InvalidArgument(f"maps {lines}")


class FakeProbe:
    """What traffic would do in the fake's world."""

    def __init__(self, networks: FakeNetworks) -> None:
        self.networks = networks
        self.served: set[tuple[str, int, str]] = set()
        self.sticky: dict[tuple[str, str], str] = {}

    async def serve(self, sandbox: Sandbox, port: int, protocol: str = "tcp") -> None:
        self.served.add((sandbox.id, port, protocol))

    async def owner(self, sandbox: Sandbox) -> tuple[tuple[int, int, int], ...]:
        request, found = self.networks.memory.sandboxes[sandbox.id]
        assert found.user_path == sandbox.user_path
        return request.user_namespace.uid_map if request.user_namespace else ()

    def current(self, source: Sandbox | None) -> Sandbox | None:
        if source is None:
            return None
        return self.networks.memory.sandboxes[source.id][1]

    async def reach(
        self, source: Sandbox | None, address: str, port: int, protocol: str = "tcp"
    ) -> str:
        source = self.current(source)
        target = self.published(address, port, protocol) or self.service(source, address, port)
        direct = target is None
        if target is None:
            target = (address, port)
        if target[0] == "":
            return ""
        for _, sandbox in self.networks.all():
            for endpoint in sandbox.endpoints:
                if target[0] not in (endpoint.ipv4, endpoint.ipv6, *endpoint.link_locals):
                    continue
                if direct and not self.connected(source, endpoint.network):
                    return ""
                if not self.allowed(source, sandbox, target[0], target[1], protocol):
                    return ""
                there = (sandbox.id, target[1], protocol) in self.served
                for side, rx, tx in ((sandbox, 1, 9), (source, 9, 1)):
                    if there and side is not None:
                        self.networks.passed(side, endpoint.network, rx, tx)
                return sandbox.id if there else ""
        return ""

    def connected(self, source: Sandbox | None, network: str) -> bool:
        return source is None or any(e.network == network for e in source.endpoints)

    def published(self, address: str, port: int, protocol: str) -> tuple[str, int] | None:
        local = {"127.0.0.1", *self.gateways()}
        if address not in local:
            return None
        for _, sandbox in self.networks.all():
            for mapping in sandbox.ports:
                if (mapping.host_port, mapping.protocol) == (port, protocol):
                    return sandbox.endpoints[0].ipv4, mapping.container_port
        return "", 0

    def gateways(self) -> set[str]:
        networks = self.networks.memory.networks.values()
        return {subnet.gateway for network in networks for subnet in network.subnets}

    def service(self, source: Sandbox | None, address: str, port: int) -> tuple[str, int] | None:
        for service in self.networks.memory.rules.services:
            if address in service.addresses and port == service.port:
                chosen = self.backend(service, source.id if source else "")
                found, _, number = chosen.rpartition(":")
                return found, int(number or 0)
        return None

    def backend(self, service: ServicePort, client: str) -> str:
        if not service.backends:
            return ""
        if service.affinity_seconds:
            key = (service.name, client)
            return self.sticky.setdefault(key, random.choice(service.backends))
        return random.choice(service.backends)

    def allowed(
        self, source: Sandbox | None, target: Sandbox, address: str, port: int, protocol: str
    ) -> bool:
        if source is None or source.id == target.id:
            return True
        origin = source.endpoints[0].ipv4
        policies = self.networks.memory.rules.policies
        into = self.selected(policies, address, ingress=True)
        out = self.selected(policies, origin, ingress=False)
        return all(
            not chosen or any(self.matches(peer, other, port, protocol) for peer in peers)
            for chosen, peers, other in ((*into, origin), (*out, address))
        )

    @staticmethod
    def selected(
        policies: tuple[Policy, ...], address: str, *, ingress: bool
    ) -> tuple[bool, list[Peer]]:
        sides = [
            policy.ingress if ingress else policy.egress
            for policy in policies
            if address in policy.addresses
        ]
        chosen = [side for side in sides if side is not None]
        return bool(chosen), [peer for side in chosen for peer in side]

    @staticmethod
    def matches(peer: Peer, address: str, port: int, protocol: str) -> bool:
        near = peer.any_address or any(_ip(address) in _space(b) for b in peer.blocks)
        fits = not peer.ports or any(
            p == protocol and first <= port <= last for p, first, last in peer.ports
        )
        return near and fits

    async def resolve(self, sandbox: Sandbox, name: str) -> tuple[str, ...]:
        asker = self.current(sandbox)
        assert asker is not None
        mine = {endpoint.network for endpoint in asker.endpoints}
        name = self.links(asker).get(name.lower(), name)
        found = []
        for _, other in self.networks.all():
            for endpoint in other.endpoints:
                names = {n.lower() for n in (*other.names, *endpoint.aliases)}
                if endpoint.network in mine and name.lower() in names:
                    found.append(endpoint.ipv4)
        return tuple(found) or self.asked_elsewhere(asker, name)

    def asked_elsewhere(self, asker: Sandbox, name: str) -> tuple[str, ...]:
        request, _ = self.networks.memory.sandboxes[asker.id]
        leads_out = any(not self.networks.network(e.network).internal for e in asker.endpoints)
        known = request.nameservers == (NAMESERVER,) and name == ELSEWHERE[0]
        return (ELSEWHERE[1],) if leads_out and known else ()

    def links(self, asker: Sandbox) -> dict[str, str]:
        request, _ = self.networks.memory.sandboxes[asker.id]
        return {mine: theirs for a in request.attachments for mine, theirs in a.links}

    async def gateway(self, sandbox: Sandbox) -> str:
        current = self.current(sandbox)
        assert current is not None
        request, _ = self.networks.memory.sandboxes[sandbox.id]
        priorities = {a.network: a.priority for a in request.attachments}

        def rank(endpoint: Endpoint) -> tuple[int, str]:
            name = self.networks.network(endpoint.network).name
            return -priorities.get(endpoint.network, 0), name

        ordered = sorted(current.endpoints, key=rank)
        return next((e.gateway4 for e in ordered if e.gateway4), "")
