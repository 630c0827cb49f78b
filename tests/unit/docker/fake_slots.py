"""Networks, volumes and metrics that keep their contracts' behaviour in memory."""

from __future__ import annotations

import time

import msgspec

from sagong.contracts.metrics import (
    Machine,
    Sample,
    SampleQuery,
    SampleSet,
    Target,
    TargetRef,
)
from sagong.contracts.network import (
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
    PortMapping,
    Rules,
    Sandbox,
    SandboxCounters,
    SandboxList,
    SandboxRef,
    Subnet,
)
from sagong.contracts.volume import (
    Published,
    PublishRequest,
    UnpublishRequest,
    Volume,
    VolumeList,
    VolumeRef,
    VolumeUsage,
)
from sagong.errors import AlreadyExists, NotFound


class FakeNetworks:
    """Networks without packets."""

    def __init__(self) -> None:
        self.kept: dict[str, Network] = {}
        self.wishes: dict[str, JoinRequest] = {}

    async def create(self, network: Network) -> Network:
        if any(n.name == network.name and n.id != network.id for n in self.kept.values()):
            raise AlreadyExists(f"network {network.name} exists")
        if not network.subnets:
            octet = 17 + len(self.kept)
            pool = Subnet(subnet=f"172.{octet}.0.0/16", gateway=f"172.{octet}.0.1")
            network = msgspec.structs.replace(network, subnets=(pool,))
        self.kept[network.id] = network
        return network

    async def delete(self, network: NetworkRef) -> None:
        self.kept.pop(network.id, None)

    async def networks(self) -> NetworkList:
        return NetworkList(networks=tuple(self.kept.values()))

    async def join(self, request: JoinRequest) -> Sandbox:
        for place in request.attachments:
            if place.network not in self.kept:
                raise NotFound(f"network {place.network} not found")
        self.wishes[request.id] = request
        return self._sandbox(request)

    def _sandbox(self, wanted: JoinRequest) -> Sandbox:
        places = enumerate(wanted.attachments)
        return Sandbox(
            id=wanted.id,
            mode=wanted.mode,
            endpoints=tuple(
                Endpoint(
                    network=place.network,
                    interface=f"eth{number}",
                    mac="02:42:ac:11:00:02",
                    ipv4=place.ipv4 or f"172.17.{number}.2",
                    ipv4_prefix=16,
                    gateway4=f"172.17.{number}.1",
                    aliases=place.aliases,
                )
                for number, place in places
            ),
            ports=tuple(
                PortMapping(
                    container_port=p.container_port,
                    protocol=p.protocol,
                    host_ip=p.host_ip,
                    host_port=p.host_port or 32768 + number,
                )
                for number, p in enumerate(wanted.ports)
            ),
        )

    async def leave(self, sandbox: SandboxRef) -> None:
        self.wishes.pop(sandbox.id, None)

    async def sandboxes(self) -> SandboxList:
        return SandboxList(sandboxes=tuple(self._sandbox(w) for w in self.wishes.values()))

    async def inspect(self, sandbox: SandboxRef) -> Sandbox:
        try:
            return self._sandbox(self.wishes[sandbox.id])
        except KeyError:
            raise NotFound(f"no sandbox {sandbox.id}") from None

    async def counters(self, query: CountersQuery) -> CountersList:
        known = [self._sandbox(self.wishes[id_]) for id_ in query.ids if id_ in self.wishes]
        return CountersList(sandboxes=tuple(_counted(sandbox) for sandbox in known))

    async def connect(self, request: ConnectRequest) -> Sandbox:
        wish = self.wishes[request.id]
        places = (*wish.attachments, request.attachment)
        return await self.join(msgspec.structs.replace(wish, attachments=places))

    async def disconnect(self, request: DisconnectRequest) -> Sandbox:
        wish = self.wishes[request.id]
        places = tuple(a for a in wish.attachments if a.network != request.network)
        return await self.join(msgspec.structs.replace(wish, attachments=places))

    async def apply(self, rules: Rules) -> None:
        return None


def _counted(sandbox: Sandbox) -> SandboxCounters:
    """Interfaces at one rate."""
    names = (endpoint.interface for endpoint in sandbox.endpoints)
    found = (Counters(interface=name, rx_bytes=2000, tx_bytes=1000) for name in names)
    return SandboxCounters(id=sandbox.id, interfaces=tuple(found))


class FakeVolumes:
    """Volumes without bytes."""

    def __init__(self) -> None:
        self.kept: dict[str, Volume] = {}

    async def create(self, volume: Volume) -> Volume:
        there = self.kept.get(volume.name)
        if there is not None:
            if (there.driver, there.options) != (volume.driver, volume.options):
                raise AlreadyExists(f"volume {volume.name} exists with other options")
            return there
        made = msgspec.structs.replace(
            volume, mountpoint=f"/volumes/{volume.name}/_data", created=time.time()
        )
        self.kept[volume.name] = made
        return made

    async def delete(self, volume: VolumeRef) -> None:
        self.kept.pop(volume.name, None)

    async def inspect(self, volume: VolumeRef) -> Volume:
        try:
            return self.kept[volume.name]
        except KeyError:
            raise NotFound(f"no volume {volume.name}") from None

    async def list(self) -> VolumeList:
        return VolumeList(volumes=tuple(sorted(self.kept.values(), key=lambda v: v.name)))

    async def publish(self, request: PublishRequest) -> Published:
        await self.inspect(VolumeRef(name=request.name))
        return Published(path=f"/volumes/{request.name}/_data")

    async def unpublish(self, request: UnpublishRequest) -> None:
        return None

    async def usage(self, volume: VolumeRef) -> VolumeUsage:
        await self.inspect(volume)
        return VolumeUsage(name=volume.name, size=4096)


class FakeMetrics:
    """Counters that grow with every look."""

    def __init__(self) -> None:
        self.looks = 0

    async def track(self, target: Target) -> None:
        return None

    async def untrack(self, target: TargetRef) -> None:
        return None

    async def sample(self, query: SampleQuery) -> SampleSet:
        self.looks += 1
        return SampleSet(
            samples=tuple(
                Sample(
                    id=id_,
                    time=time.time(),
                    cpu_total=self.looks * 10**8,
                    memory_usage=5 << 20,
                    memory_stat=(("inactive_file", 1 << 20),),
                    pids=2,
                    io=(("8:0", "read_bytes", 4096),),
                )
                for id_ in query.ids
            )
        )

    async def machine(self) -> Machine:
        return Machine(
            time=time.time(),
            cores=2,
            cpu_total=0,
            system_total=self.looks * 2 * 10**9,
            memory_total=8 << 30,
            memory_available=4 << 30,
        )
