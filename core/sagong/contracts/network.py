"""Slot `network`: network namespaces with addresses, networks, published ports, service routing.

A *sandbox* is a network namespace made before its containers, fully configured, pinned as a file
that the runtime enters by path. Names are resolved inside it by DNS at the address in `dns`.
"""

from __future__ import annotations

from typing import Protocol

from sagong.contract import Message, method, slot
from sagong.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)

__all__ = [
    "Attachment",
    "ConnectRequest",
    "Counters",
    "CountersList",
    "CountersQuery",
    "DisconnectRequest",
    "Endpoint",
    "JoinRequest",
    "Network",
    "NetworkList",
    "NetworkRef",
    "Networks",
    "Peer",
    "Policy",
    "PortMapping",
    "Rules",
    "Sandbox",
    "SandboxCounters",
    "SandboxList",
    "SandboxRef",
    "ServicePort",
    "Subnet",
    "UserNamespace",
]


class Subnet(Message):
    """An address range of a network; `gateway` "" is its first address."""

    subnet: str
    gateway: str = ""
    ip_range: str = ""
    reserved: tuple[tuple[str, str], ...] = ()


class Network(Message):
    """A network. `id` (64 hex digits) is made by the caller.

    `driver`: what the default provider has built in (bridge, macvlan, ipvlan, host, none…), or the
    name of the instance that is asked.

    On a macvlan or ipvlan network sandboxes are neighbours of the machine's own, by the interface that
    option `parent` names: nothing is forwarded or published for them.

    With no `subnets` the plugin takes a free one of its pools and answers with it. Without `ipv4`
    it has IPv6 alone.
    """

    id: str
    name: str
    driver: str = "bridge"
    subnets: tuple[Subnet, ...] = ()
    internal: bool = False
    attachable: bool = False
    ipv6: bool = False
    isolated: bool = False
    options: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    created: float = 0.0
    ipv4: bool = True


class NetworkRef(Message):
    """Names a network by id."""

    id: str


class NetworkList(Message):
    """Networks in order of creation."""

    networks: tuple[Network, ...] = ()


class PortMapping(Message):
    """A published port; `host_port` 0 takes a free one, `host_ip` "" means all, IPv4 and IPv6."""

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: int = 0


class Attachment(Message):
    """Wish to be on a network; empty addresses are assigned. Aliases are names on that network.

    `links` are names that only this sandbox has there for others: (its name, theirs). The network
    of the highest `priority` has the default route and the published ports; of several such it is
    the first by its name.

    `interface` is how its interface is called inside; "" takes the next free name. `sysctls` are
    settings of that interface, whose name in them is IFNAME: `net.ipv4.conf.IFNAME.log_martians`.
    `link_locals` are further addresses of it, of 169.254.0.0/16 or fe80::/10, which nobody manages.
    """

    network: str
    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""
    aliases: tuple[str, ...] = ()
    priority: int = 0
    links: tuple[tuple[str, str], ...] = ()
    interface: str = ""
    sysctls: tuple[tuple[str, str], ...] = ()
    link_locals: tuple[str, ...] = ()


class Endpoint(Message):
    """What a sandbox got on a network.

    A gateway of 0.0.0.0 or :: is the link itself: the default route needs nobody next on the way.
    """

    network: str
    interface: str
    mac: str
    ipv4: str = ""
    ipv4_prefix: int = 0
    gateway4: str = ""
    ipv6: str = ""
    ipv6_prefix: int = 0
    gateway6: str = ""
    aliases: tuple[str, ...] = ()
    link_locals: tuple[str, ...] = ()


class UserNamespace(Message):
    """A user namespace to be made: ids as (inside, outside, count), see user_namespaces(7).

    `uid_map` and `gid_map` are written as they are, so they are the runtime's `Namespaces` of the
    same name.
    """

    uid_map: tuple[tuple[int, int, int], ...]
    gid_map: tuple[tuple[int, int, int], ...]


class JoinRequest(Message):
    """A sandbox on networks. `mode`: "networks" (none to begin with, maybe: loopback until it is
    connected), "none" (loopback for good) or "host" (no namespace).

    `names` resolve on every network of the sandbox (a container's name). What nobody on its networks
    is called is asked of `nameservers` (IP addresses; none: the machine's; loopback ones are skipped),
    unless all its networks are internal.
    `ingress_bps`/`egress_bps` limit bandwidth in bits a second (0: no limit).

    With `user_namespace` a new one is made that owns the network namespace, so that root in it may
    configure interfaces there, bind port 80, mount sysfs. The caller runs the containers in both,
    by the paths of the answer. InvalidArgument with mode "host", which has no namespace to be owned,
    and where the provider can't.
    """

    id: str
    mode: str = "networks"
    attachments: tuple[Attachment, ...] = ()
    ports: tuple[PortMapping, ...] = ()
    names: tuple[str, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    ingress_bps: int = 0
    egress_bps: int = 0
    labels: tuple[tuple[str, str], ...] = ()
    nameservers: tuple[str, ...] = ()
    user_namespace: UserNamespace | None = None


class Sandbox(Message):
    """A joined sandbox; `path` is the namespace ("" for host), `dns` the resolver's address in it.

    `user_path` is the user namespace that owns it, pinned as long as the sandbox is there; "" is the
    machine's.

    `ports` have their host ports filled in. There are none, and others may have them, as long as no
    default route goes by a bridge: on no network, or on internal ones alone. In the versions of IP
    that are `routed` they are reached at the sandbox's own address, and nothing leads there from the
    machine's.
    """

    id: str
    path: str = ""
    mode: str = "networks"
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[PortMapping, ...] = ()
    dns: str = ""
    names: tuple[str, ...] = ()
    user_path: str = ""
    routed: tuple[int, ...] = ()


class SandboxRef(Message):
    """Names a sandbox."""

    id: str


class SandboxList(Message):
    """All sandboxes."""

    sandboxes: tuple[Sandbox, ...] = ()


class CountersQuery(Message):
    """Of which sandboxes; () is all of them."""

    ids: tuple[str, ...] = ()


class Counters(Message):
    """What an interface received (`rx`) and sent (`tx`), seen from inside, since it was made."""

    interface: str
    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


class SandboxCounters(Message):
    """The counters of a sandbox: an entry for the interface of each of its endpoints."""

    id: str
    interfaces: tuple[Counters, ...] = ()


class CountersList(Message):
    """The counters of some sandboxes."""

    sandboxes: tuple[SandboxCounters, ...] = ()


class ConnectRequest(Message):
    """Put a living sandbox on a further network."""

    id: str
    attachment: Attachment


class DisconnectRequest(Message):
    """Take a sandbox off a network; `force` also when the sandbox is unknown."""

    id: str
    network: str
    force: bool = False


class ServicePort(Message):
    """A virtual address and port, and the addresses behind it (`ADDRESS:PORT`, `[v6]:PORT`).

    `node_port` 0 is none. `affinity_seconds` 0 is none. `local_only` sends outside traffic only to
    backends in `local_backends` and keeps its source address.
    """

    name: str
    addresses: tuple[str, ...]
    port: int
    protocol: str = "tcp"
    node_port: int = 0
    backends: tuple[str, ...] = ()
    local_backends: tuple[str, ...] = ()
    external_addresses: tuple[str, ...] = ()
    affinity_seconds: int = 0
    local_only: bool = False


class Peer(Message):
    """Traffic of one side: address blocks (with exceptions) and ports (protocol, first, last)."""

    blocks: tuple[str, ...] = ()
    excepted: tuple[str, ...] = ()
    any_address: bool = False
    ports: tuple[tuple[str, int, int], ...] = ()


class Policy(Message):
    """For these addresses only what a peer of the direction allows gets through (NetworkPolicy)."""

    name: str
    addresses: tuple[str, ...]
    ingress: tuple[Peer, ...] | None = None
    egress: tuple[Peer, ...] | None = None


class Rules(Message):
    """The whole of services and policies of this machine; the plugin applies the difference.

    `generation` grows; an older one than the last applied is ignored. `pod_cidrs` are the
    cluster's pod ranges, whose traffic keeps its address.
    """

    generation: int
    services: tuple[ServicePort, ...] = ()
    policies: tuple[Policy, ...] = ()
    pod_cidrs: tuple[str, ...] = ()
    service_cidrs: tuple[str, ...] = ()


@slot("network", version=1)
class Networks(Protocol):
    """Networks and sandboxes of this machine."""

    @method(idempotent=True, raises=(AlreadyExists, InvalidArgument, Conflict, ResourceExhausted))
    async def create(self, network: Network) -> Network:
        """Make a network. AlreadyExists for the name, Conflict for an overlapping subnet."""
        ...

    @method(idempotent=True, raises=(FailedPrecondition,))
    async def delete(self, network: NetworkRef) -> None:
        """Remove a network; FailedPrecondition while sandboxes are on it; unknown is no error."""
        ...

    @method(idempotent=True)
    async def networks(self) -> NetworkList:
        """All networks."""
        ...

    @method(
        idempotent=True,
        raises=(NotFound, InvalidArgument, Conflict, ResourceExhausted, FailedPrecondition),
    )
    async def join(self, request: JoinRequest) -> Sandbox:
        """Make a sandbox; the same id again returns it. Nothing is left behind after an error.

        NotFound names the missing network, Conflict an address or port in use (`port is already
        allocated`), ResourceExhausted a full subnet.
        """
        ...

    @method(idempotent=True)
    async def leave(self, sandbox: SandboxRef) -> None:
        """Remove a sandbox and free what it had; unknown is no error."""
        ...

    @method(idempotent=True)
    async def sandboxes(self) -> SandboxList:
        """All sandboxes."""
        ...

    @method(idempotent=True, raises=(NotFound,))
    async def inspect(self, sandbox: SandboxRef) -> Sandbox:
        """One sandbox."""
        ...

    @method(idempotent=True)
    async def counters(self, query: CountersQuery) -> CountersList:
        """What sandboxes have received and sent, read now; unknown ones are left out.

        One without a network of its own (mode "none" or "host") has no interfaces to count.
        """
        ...

    @method(
        idempotent=True,
        raises=(NotFound, Conflict, InvalidArgument, ResourceExhausted, FailedPrecondition),
    )
    async def connect(self, request: ConnectRequest) -> Sandbox:
        """Put a sandbox on a further network."""
        ...

    @method(idempotent=True, raises=(NotFound,))
    async def disconnect(self, request: DisconnectRequest) -> Sandbox:
        """Take it off one."""
        ...

    @method(idempotent=True, raises=(InvalidArgument,))
    async def apply(self, rules: Rules) -> None:
        """Make the machine's service routing and policies be `rules`, atomically."""
        ...
