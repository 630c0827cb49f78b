"""A second network plugin, for tests: each container has a cable to the machine and a route, no bridge.

Networks have one IPv4 subnet and no names, ports, services or policies; a sandbox is on one network.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec.structs import replace

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
    Rules,
    Sandbox,
    SandboxCounters,
    SandboxList,
    SandboxRef,
    Subnet,
)
from sagong.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)
from sagong.host import Host
from sagong.linux import mounts, syscalls

__all__ = ["PointToPoint"]

_POOL = ipaddress.ip_network("10.88.0.0/16").subnets(new_prefix=24)


class _Book(msgspec.Struct):
    """All that is known, in one file."""

    networks: dict[str, Network] = {}
    sandboxes: dict[str, Sandbox] = {}


class PointToPoint:
    """Cables and routes."""

    def __init__(self, host: Host) -> None:
        self._pins = host.root / "netns"
        self._file = host.data / "book"
        self._book = _Book()

    async def start(self) -> None:
        """Read what there is; namespaces outlive this process."""
        with contextlib.suppress(FileNotFoundError):
            self._book = msgspec.json.decode(self._file.read_bytes(), type=_Book)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    def _keep(self) -> None:
        aside = self._file.with_suffix(".new")
        aside.write_bytes(msgspec.json.encode(self._book))
        aside.rename(self._file)

    async def create(self, network: Network) -> Network:
        """Make a network: nothing of it is on the machine before somebody is on it."""
        known = self._book.networks.get(network.id)
        if known is not None:
            return known
        if any(n.name == network.name for n in self._book.networks.values()):
            raise AlreadyExists(f"network with name {network.name} already exists")
        subnet = self._subnet(network)
        made = replace(network, subnets=(subnet,), created=network.created or time.time())
        self._book.networks[network.id] = made
        self._keep()
        return made

    def _subnet(self, network: Network) -> Subnet:
        if len(network.subnets) > 1 or network.ipv6:
            raise InvalidArgument(f"network {network.name}: driver ptp has one IPv4 subnet")
        taken = [ipaddress.ip_network(n.subnets[0].subnet) for n in self._book.networks.values()]
        if not network.subnets:
            free = next(s for s in _POOL if not any(s.overlaps(other) for other in taken))
            return Subnet(subnet=str(free), gateway=str(free[1]))
        try:
            space = ipaddress.ip_network(network.subnets[0].subnet)
            gateway = ipaddress.ip_address(network.subnets[0].gateway or space[1])
        except ValueError as error:
            raise InvalidArgument(f"network {network.name}: {error}") from None
        if gateway not in space:
            raise InvalidArgument(f"gateway {gateway} is not in {space}")
        if any(space.overlaps(other) for other in taken):
            raise Conflict(f"subnet {space} overlaps with another network's")
        return replace(network.subnets[0], gateway=str(gateway))

    async def delete(self, network: NetworkRef) -> None:
        """Remove one that nobody is on."""
        users = [
            s.id for s in self._book.sandboxes.values() if s.endpoints[0].network == network.id
        ]
        if users:
            raise FailedPrecondition(f"network {network.id} has active endpoints: {users}")
        if self._book.networks.pop(network.id, None) is not None:
            self._keep()

    async def networks(self) -> NetworkList:
        """All."""
        return NetworkList(networks=tuple(self._book.networks.values()))

    async def join(self, request: JoinRequest) -> Sandbox:
        """A namespace with one cable."""
        known = self._book.sandboxes.get(request.id)
        if known is not None:
            return known
        if request.mode != "networks" or len(request.attachments) != 1 or not request.id:
            raise InvalidArgument("driver ptp: a sandbox is on one network")
        if request.ports or request.user_namespace:
            raise InvalidArgument("driver ptp publishes no ports and makes no user namespaces")
        network = self._network(request.attachments[0].network)
        endpoint = Endpoint(
            network=network.id,
            interface="eth0",
            mac="",
            ipv4=self._address(network, request.attachments[0].ipv4),
            ipv4_prefix=32,
            gateway4=network.subnets[0].gateway,
        )
        sandbox = Sandbox(
            id=request.id,
            path=str(self._pins / f"ptp-{_mark(request.id)}"),
            endpoints=(endpoint,),
            names=request.names,
        )
        self._book.sandboxes[request.id] = sandbox
        self._keep()
        try:
            await asyncio.to_thread(_wire, sandbox)
        except BaseException:
            await self.leave(SandboxRef(id=request.id))
            raise
        return sandbox

    def _network(self, identity: str) -> Network:
        try:
            return self._book.networks[identity]
        except KeyError:
            raise NotFound(f"network {identity} not found") from None

    def _address(self, network: Network, wanted: str) -> str:
        space = ipaddress.ip_network(network.subnets[0].subnet)
        taken = {s.endpoints[0].ipv4 for s in self._book.sandboxes.values()}
        taken.add(network.subnets[0].gateway)
        if wanted and wanted not in {str(address) for address in space.hosts()}:
            raise InvalidArgument(f"address {wanted} is none for a container of {space}")
        if wanted in taken:
            raise Conflict(f"address {wanted} is in use")
        free = next((str(a) for a in space.hosts() if str(a) not in taken), "")
        if not wanted and not free:
            raise ResourceExhausted(f"no address of {space} is free")
        return wanted or free

    async def leave(self, sandbox: SandboxRef) -> None:
        """The cable goes with its namespace."""
        known = self._book.sandboxes.pop(sandbox.id, None)
        if known is not None:
            await asyncio.to_thread(_cut, known)
            self._keep()

    async def sandboxes(self) -> SandboxList:
        """All."""
        return SandboxList(sandboxes=tuple(self._book.sandboxes.values()))

    async def inspect(self, sandbox: SandboxRef) -> Sandbox:
        """One."""
        try:
            return self._book.sandboxes[sandbox.id]
        except KeyError:
            raise NotFound(f"network sandbox {sandbox.id} not found") from None

    async def counters(self, query: CountersQuery) -> CountersList:
        """By the cables' ends inside."""
        known = self._book.sandboxes
        wanted = [known[i] for i in query.ids or known if i in known]
        found = [await asyncio.to_thread(_counted, sandbox) for sandbox in wanted]
        return CountersList(sandboxes=tuple(found))

    async def connect(self, request: ConnectRequest) -> Sandbox:
        """There is one cable."""
        await self.inspect(SandboxRef(id=request.id))
        raise FailedPrecondition("driver ptp: a sandbox is on one network")

    async def disconnect(self, request: DisconnectRequest) -> Sandbox:
        """And it stays."""
        if request.force and request.id not in self._book.sandboxes:
            return Sandbox(id=request.id)
        await self.inspect(SandboxRef(id=request.id))
        raise FailedPrecondition("driver ptp: a sandbox is on one network")

    async def apply(self, rules: Rules) -> None:
        """Services are the default provider's."""


def _cable(sandbox: Sandbox) -> str:
    return f"ptp{_mark(sandbox.id)}"


def _counted(sandbox: Sandbox) -> SandboxCounters:
    shown: list[bytes] = []
    command = ["ip", "-json", "-stats", "link", "show", "eth0"]
    _inside(sandbox.path, lambda: shown.append(subprocess.check_output(command)))
    statistics = msgspec.json.decode(shown[0])[0]["stats64"]
    fields = {
        f"{way}_{what}": statistics[way][what]
        for way in ("rx", "tx")
        for what in ("bytes", "packets", "errors", "dropped")
    }
    counters = Counters(interface="eth0", **fields)
    return SandboxCounters(id=sandbox.id, interfaces=(counters,))


def _mark(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:12]


def _wire(sandbox: Sandbox) -> None:
    """The machine's end has the gateway's address, and a route to the container alone."""
    pin, cable, endpoint = Path(sandbox.path), _cable(sandbox), sandbox.endpoints[0]
    pin.touch(mode=0o600)
    _inside("", lambda: _pinned(pin))
    _ip(
        f"link add {cable} type veth peer name eth0 netns {pin}",
        f"addr add {endpoint.gateway4}/32 dev {cable}",
        f"link set {cable} up",
        f"route add {endpoint.ipv4}/32 dev {cable}",
    )
    inner = (
        "link set lo up",
        "link set eth0 up",
        f"addr add {endpoint.ipv4}/32 dev eth0",
        f"route add {endpoint.gateway4}/32 dev eth0 scope link",
        f"route add default via {endpoint.gateway4}",
    )
    _inside(str(pin), lambda: _ip(*inner))


def _pinned(pin: Path) -> None:
    syscalls.unshare(syscalls.Namespace.NET)
    mounts.bind("/proc/thread-self/ns/net", str(pin))


def _cut(sandbox: Sandbox) -> None:
    subprocess.run(["ip", "link", "del", _cable(sandbox)], capture_output=True, check=False)
    with contextlib.suppress(OSError):
        syscalls.umount(sandbox.path, mounts.MNT_DETACH)
    Path(sandbox.path).unlink(missing_ok=True)


def _ip(*lines: str) -> None:
    for line in lines:
        done = subprocess.run(["ip", *line.split()], capture_output=True, text=True, check=False)
        if done.returncode:
            raise FailedPrecondition(f"ip {line}: {done.stderr.strip()}")


def _inside(path: str, work: Callable[[], None]) -> None:
    """In a thread that is thrown away, in a namespace by path."""
    problems: list[BaseException] = []

    def run() -> None:
        try:
            if path:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                syscalls.setns(descriptor, syscalls.Namespace.NET)
                os.close(descriptor)
            work()
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
