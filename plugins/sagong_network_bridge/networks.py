"""The networks of this machine: made, kept, bridged, and what the firewall must know of them."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from typing import Any

from msgspec.structs import replace

from sagong.contracts.network import JoinRequest, Network
from sagong.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from sagong_network_bridge import links
from sagong_network_bridge.addresses import AddressRange, Space, space_of
from sagong_network_bridge.bridges import Bridges
from sagong_network_bridge.cells import Port
from sagong_network_bridge.elements import (
    Content,
    address_bytes,
    interface_name,
    interval_elements,
    value_data,
)
from sagong_network_bridge.interior import Ranks
from sagong_network_bridge.netlink import Channel
from sagong_network_bridge.parents import ON_PARENTS, Lower, Parents, lower_of, parent_name
from sagong_network_bridge.records import NetworkRecord, Records
from sagong_network_bridge.settings import Settings
from sagong_network_bridge.subnets import (
    INNER,
    MASQUERADE,
    bridge_name,
    complete,
    default_id,
    default_networks,
    flag,
    gateway_mode,
    host_address,
    option,
    overlapping,
    range_of,
    trusted,
)

__all__ = ["Networks", "network_content"]

Run = Callable[..., Coroutine[Any, Any, Any]]
# A whole network, by the routes of the machine.
Choice = Callable[[list[Space]], Network]
_CHOICES = 8
# An older bridge waits so long for a newer one to give way.
_LOOKS, _BETWEEN_LOOKS = 20, 0.05
_BINDING = "com.docker.network.bridge.host_binding_ipv4"
_MTU = "com.docker.network.driver.mtu"
_PREFIX = "com.docker.network.container_iface_prefix"
_RESOLVER = "sagong.resolver"
# An interface's name has 15 bytes, and ours a number at the end.
_INTERFACE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,11}")


def network_content(record: NetworkRecord, *, filtered: bool) -> Iterator[tuple[str, bytes]]:
    """Sets and keys, interfaces' names only: which bridge is what."""
    network, name = record.network, interface_name(record.bridge)
    yield "bridges", name
    yield "same", name + name
    if not filtered:
        yield "switched", name + name
    if network.internal:
        yield "internal", name
    if network.isolated:
        yield "isolated", name
    for interface in trusted(network):
        yield "trusted", interface_name(interface) + name
    for version in (4, 6):
        mode = gateway_mode(network, version)
        if mode in ("routed", "nat-unprotected"):
            yield ("routed" if mode == "routed" else "unprotected") + str(version), name


def _check_prefix(network: Network) -> None:
    wanted = option(network, _PREFIX, "eth")
    if not _INTERFACE.fullmatch(wanted):
        raise InvalidArgument(
            f"option {_PREFIX}={wanted}: 1 to 12 letters, digits, - and _, a letter first"
        )


def _natted(record: NetworkRecord) -> list[str]:
    """Subnets that leave with the machine's address."""
    network = record.network
    if network.internal or not flag(network, MASQUERADE, default=True):
        return []
    spaces = [space_of(subnet.subnet) for subnet in network.subnets]
    return [
        str(s) for s in spaces if gateway_mode(network, s.version) not in ("routed", "isolated")
    ]


class Networks:
    """All networks, with their address ranges and bridges."""

    def __init__(
        self, settings: Settings, records: Records, bridges: Bridges, parents: Parents, run: Run
    ) -> None:
        self._parents = parents
        self._settings = settings
        self._records = records
        self._bridges = bridges
        self._run = run
        self._known: dict[str, NetworkRecord] = {}
        self._ranges: dict[str, tuple[AddressRange, ...]] = {}
        self._indexes: dict[str, int] = {}
        self._turn = asyncio.Lock()
        self.filtered: frozenset[str] = frozenset()

    async def start(self, host: Channel, bridges: Mapping[str, int]) -> None:
        """Read what there is, make the default networks, put every bridge as it should be.

        `bridges` are those that a predecessor had, by network: they are left as they are.
        """
        for record in self._records.networks():
            self._learn(record)
        for record in list(self._known.values()):
            index = bridges.get(record.network.id, 0)
            if record.parent:
                self._restore_parent(record)
            elif index and self._bridges.is_there(record, index):
                self._indexes[record.network.id] = index
            else:
                await self._bridge(record)
        if default_id("bridge") not in self._known:
            await self._start_anew(host)

    async def _start_anew(self, host: Channel) -> None:
        """Make the default networks; the bridge is last, so that there are all or it is not."""
        bridge, *ends = default_networks(self._settings)
        for network in ends:
            self._keep(network)

        def choose(routes: list[Space]) -> Network:
            return complete(bridge, self._settings, [*self._spaces(), *routes])

        await self._make(bridge, choose, host)

    def _restore_parent(self, record: NetworkRecord) -> None:
        """One that is missing, after a reboot perhaps, is said at each join until it is there."""
        with contextlib.suppress(InvalidArgument, OSError):
            self._parents.ensure(record.network)

    async def sweep(self) -> None:
        """Remove bridges of ours that belong to no network."""
        async with self._turn:
            for name, identity in (await self._run(self._bridges.owned)).items():
                known = self._known.get(identity)
                if known is None or name not in (known.bridge, known.parent):
                    await self._run(self._bridges.remove, name)

    def indexes(self) -> dict[str, int]:
        """Bridges by network, for a successor."""
        return dict(self._indexes)

    def _learn(self, record: NetworkRecord) -> None:
        identity = record.network.id
        if identity == default_id("bridge") and not self._settings.icc:
            # A setting of now, not a fact that is kept of the network.
            options = (*record.network.options, (INNER, "false"))
            record = replace(record, network=replace(record.network, options=options))
        self._known[identity] = record
        self._ranges[identity] = tuple(range_of(record.network, s) for s in record.network.subnets)

    def _keep(self, network: Network) -> NetworkRecord:
        bridge = bridge_name(network, self._settings) if network.driver == "bridge" else ""
        below = network.driver in ON_PARENTS
        parent = parent_name(network, self._settings.prefix) if below else ""
        record = NetworkRecord(network=network, bridge=bridge, parent=parent)
        self._records.keep_network(record)
        self._learn(record)
        return record

    async def _bridge(self, record: NetworkRecord) -> None:
        if record.parent:
            await self._run(self._parents.ensure, record.network)
        if record.bridge:
            identity = record.network.id
            mtu = self._mtu(record.network)
            self._indexes[identity] = await self._run(self._bridges.ensure, record, mtu)

    def _mtu(self, network: Network) -> int:
        text = option(network, _MTU)
        if text and not text.isdigit():
            raise InvalidArgument(f"option {_MTU}={text}: a number of bytes")
        return int(text or self._settings.mtu)

    def prefix(self, record: NetworkRecord) -> str:
        """How interfaces on the network are called inside sandboxes, before their number."""
        return option(record.network, _PREFIX, "eth")

    def _spaces(self) -> Iterator[Space]:
        for ranges in self._ranges.values():
            yield from (range_.space for range_ in ranges)

    async def create(self, network: Network, host: Channel) -> Network:
        """Make a network; the same id again returns it."""
        async with self._turn:
            known = self._known.get(network.id)
            if known is not None:
                return _same(known.network, network)
            for other in self._known.values():
                if other.network.name == network.name:
                    raise AlreadyExists(f"network with name {network.name} already exists")
            try:
                return await self._make(network, lambda routes: self._full(network, routes), host)
            except BaseException:
                if network.id in self._known:
                    await self._forget(self._known[network.id])
                raise

    def _full(self, network: Network, routes: list[Space]) -> Network:
        """A network as it is to be; what is wrong with it is raised."""
        full = complete(network, self._settings, self._spaces(), routes)
        full = replace(full, created=full.created or time.time())
        self._mtu(full)
        _check_prefix(full)
        self._check_bridge(full)
        self._check_parent_is_free(full)
        return full

    async def _make(self, asked: Network, choose: Choice, host: Channel) -> Network:
        """Keep and bridge a network. Others on this machine choose subnets, too, maybe at this moment:
        a bridge that is not alone with one that was chosen for it gives way, and another is chosen."""
        given = {space_of(subnet.subnet) for subnet in asked.subnets}
        for _ in range(_CHOICES):
            full = choose(await self._run(_routed, host))
            record = self._keep(full)
            await self._bridge(record)
            chosen = {space_of(subnet.subnet) for subnet in full.subnets} - given
            if not chosen or await self._is_alone(self._indexes.get(full.id, 0), chosen, host):
                return full
            await self._forget(record)
        raise Unavailable(
            f"network {asked.name}: each subnet that was chosen was taken by somebody else at the same "
            "moment; try again, or give a subnet"
        )

    async def _is_alone(self, index: int, chosen: set[Space], host: Channel) -> bool:
        """Whether no other interface leads to a new bridge's subnets.

        Of two bridges the one that was up last sees the other, but the first may have looked before:
        so each gives way that still sees another. The newer one does so at once and the older one
        after a while, lest both do.
        """
        for _ in range(_LOOKS):
            others = await self._run(_leading, host, chosen) - {index}
            if not others:
                return True
            if min(others) < index:
                return False
            await asyncio.sleep(_BETWEEN_LOOKS)
        return False

    def _check_bridge(self, network: Network) -> None:
        if network.driver != "bridge":
            return
        name = bridge_name(network, self._settings)
        for other in self._known.values():
            if other.bridge == name:
                raise Conflict(
                    f"networks have same bridge name: {name} is that of {other.network.name}"
                )

    def _check_parent_is_free(self, network: Network) -> None:
        """All ipvlan interfaces of one parent have one mode, and no macvlan beside them."""
        if network.driver not in ON_PARENTS:
            return
        name, lower = parent_name(network, self._settings.prefix), lower_of(network)
        for other in (r.network for r in self._known.values() if r.parent == name):
            if "ipvlan" in (network.driver, other.driver) and lower_of(other) != lower:
                raise Conflict(f"network {other.name} uses {name} in another way")

    async def _forget(self, record: NetworkRecord) -> None:
        identity = record.network.id
        self._records.drop_network(identity)
        for table in (self._known, self._ranges, self._indexes):
            table.pop(identity, None)
        if record.bridge:
            await self._run(self._bridges.remove, record.bridge)
        if record.parent:
            await self._run(self._parents.remove, record.network)

    async def purge(self) -> None:
        """Take away every interface that was made for a network."""
        for record in self._known.values():
            if record.bridge:
                await self._run(self._bridges.remove, record.bridge)
            if record.parent:
                await self._run(self._parents.remove, record.network)

    async def delete(self, identity: str, users: list[str]) -> bool:
        """Remove a network; whether there was one."""
        async with self._turn:
            record = self._known.get(identity)
            if record is None:
                return False
            name = record.network.name
            if identity in {default_id(n) for n in ("bridge", "host", "none")}:
                raise FailedPrecondition(f"{name} is a pre-defined network and cannot be removed")
            if users:
                raise FailedPrecondition(
                    f"network {name} has active endpoints: {', '.join(sorted(users))}; "
                    "disconnect or remove them first"
                )
            await self._forget(record)
            return True

    def all(self) -> list[Network]:
        """In order of creation."""
        found = [record.network for record in self._known.values()]
        return sorted(found, key=lambda network: (network.created, network.name))

    def records(self) -> list[NetworkRecord]:
        """With bridges."""
        return [record for record in self._known.values() if record.bridge]

    def _find(self, wanted: str) -> NetworkRecord | None:
        named = (r for r in self._known.values() if r.network.name == wanted)
        return self._known.get(wanted) or next(named, None)

    def get(self, wanted: str) -> NetworkRecord:
        """By id or name; NotFound names what is missing."""
        record = self._find(wanted)
        if record is None:
            raise NotFound(f"network {wanted} not found")
        if not record.bridge and not record.parent:
            raise InvalidArgument(
                f"nobody can be attached to network {record.network.name}; use its mode instead"
            )
        return record

    def ranks(self, request: JoinRequest) -> Ranks:
        """Which of a sandbox's networks is to have its default route, the first first."""
        found = {}
        for attachment in request.attachments:
            record = self._find(attachment.network)
            if record is not None:
                found[record.network.id] = (-attachment.priority, record.network.name)
        return found

    def ranges(self, identity: str) -> tuple[AddressRange, ...]:
        """The network's address ranges; none if it is gone."""
        return self._ranges.get(identity, ())

    def port(self, record: NetworkRecord) -> Port:
        """What an interface on the network must be like."""
        network = record.network
        if record.parent:
            return self._on_parent(record)
        return Port(
            network=network.id,
            bridge=record.bridge,
            ifindex=self._indexes[network.id],
            ipv6=network.ipv6,
            isolated=not flag(network, INNER, default=True),
            hairpin=network.id in self.filtered,
            mtu=self._mtu(network),
            first=f"{self.prefix(record)}0",
        )

    def _on_parent(self, record: NetworkRecord) -> Port:
        network, index = record.network, self._parents.index(record.parent)
        if not index:
            raise FailedPrecondition(
                f"network {network.name}: its parent interface {record.parent} is gone"
            )
        return Port(
            network=network.id,
            bridge="",
            ifindex=index,
            ipv6=network.ipv6,
            mtu=self._mtu(network),
            lower=lower_of(network),
            first=f"{self.prefix(record)}0",
        )

    def is_bridged(self, identity: str) -> bool:
        """Whether the machine forwards for this network, so that ports can be published there."""
        record = self._known.get(identity)
        return record is not None and bool(record.bridge)

    def lower(self, identity: str) -> Lower | None:
        """How a network's interfaces sit on one of the machine's; None of a bridge."""
        record = self._known.get(identity)
        return lower_of(record.network) if record is not None and record.parent else None

    def is_routed(self, identity: str, version: int) -> bool:
        """Whether published ports are reached at the sandbox's own address, not at the machine's."""
        record = self._known.get(identity)
        return record is not None and gateway_mode(record.network, version) == "routed"

    def direct(self, identity: str, version: int) -> str:
        """The firewall's set of what is reached at sandboxes' own addresses; "" if nothing is so."""
        if self.is_routed(identity, version):
            return "opened"
        record = self._known.get(identity)
        return "entered" if record is not None and trusted(record.network) else ""

    def host_ip(self, identities: Iterable[str]) -> str:
        """Where ports are published that name no address: as a network says, or the settings."""
        for identity in identities:
            chosen = option(self._known[identity].network, _BINDING)
            if chosen:
                return "" if chosen in ("0.0.0.0", "::") else chosen
        return self._settings.host_ip

    def resolves(self, record: NetworkRecord, *, machine: bool) -> bool:
        """Whether the embedded resolver serves containers of this network.

        As in Docker the default network's containers use the machine's nameservers, if they can
        reach them (`machine`).
        """
        wish = option(record.network, _RESOLVER)
        if wish:
            return wish.lower() != "false"
        return record.network.id != default_id("bridge") or not machine

    def content(self) -> Content:
        """What the firewall must know."""
        found: Content = {}
        for record in self.records():
            filtered = record.network.id in self.filtered
            for name, key in network_content(record, filtered=filtered):
                found.setdefault(name, {})[key, False] = b""
        natted = [text for record in self.records() for text in _natted(record)]
        for version in (4, 6):
            found[f"natted{version}"] = interval_elements(natted, version)
            found[f"sources{version}"] = {
                (interface_name(record.bridge), False): value_data(address_bytes(chosen))
                for record in self.records()
                if (chosen := host_address(record.network, version))
                and any(space_of(text).version == version for text in _natted(record))
            }
        return found

    async def filter(self, wanted: frozenset[str]) -> None:
        """Let the firewall see bridged packets of exactly these networks, where the kernel can."""
        now = set()
        for record in self.records():
            on = record.network.id in wanted
            if not on and record.network.id not in self.filtered:
                continue
            if await self._run(self._bridges.filter, record.bridge, on=on):
                now.add(record.network.id)
        self.filtered = frozenset(now)


def _same(known: Network, asked: Network) -> Network:
    """The same id must mean the same network; what was left open then may be filled in."""
    if known.name != asked.name or known.driver != asked.driver:
        raise AlreadyExists(f"network id {asked.id} belongs to {known.name} already")
    return known


def _routed(host: Channel) -> list[Space]:
    return [space_of(text) for text in links.routes_of(host)]


def _leading(host: Channel, spaces: set[Space]) -> set[int]:
    """The interfaces with routes to any of these addresses."""
    routes = links.routes_in(host, links.MAIN)
    return {index for text, index in routes if overlapping(space_of(text), spaces) is not None}
