"""The lab of the network suite: a candidate, what may be done to it, and traffic to look at."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from sagong.contracts.network import (
    Attachment,
    JoinRequest,
    Network,
    NetworkRef,
    Networks,
    PortMapping,
    Rules,
    Sandbox,
    SandboxRef,
    Subnet,
)

__all__ = ["ELSEWHERE", "NetworkLab", "Probe", "block", "free_port"]

# A name that only the lab's nameserver knows, and its address.
ELSEWHERE = ("elsewhere.suite.test", "203.0.113.77")

_BLOCKS = itertools.count()
_GENERATIONS = itertools.count(1)
_PORTS = itertools.count(20100)


def free_port() -> int:
    """A port of the machine that no other check uses."""
    return next(_PORTS)


class Probe(Protocol):
    """Traffic in sandboxes; None stands for the machine itself."""

    async def serve(self, sandbox: Sandbox, port: int, protocol: str = "tcp") -> None:
        """Answer there with the sandbox's id."""
        ...

    async def reach(
        self, source: Sandbox | None, address: str, port: int, protocol: str = "tcp"
    ) -> str:
        """The id that answers, "" if nobody does within some seconds."""
        ...

    async def resolve(self, sandbox: Sandbox, name: str) -> tuple[str, ...]:
        """IPv4 addresses of a name, asked at `sandbox.dns`; empty if there are none."""
        ...

    async def owner(self, sandbox: Sandbox) -> tuple[tuple[int, int, int], ...]:
        """The map of uids of the user namespace that owns the sandbox's; () for the machine's own.

        AssertionError if `sandbox.user_path` is another one.
        """
        ...

    async def gateway(self, sandbox: Sandbox) -> str:
        """The gateway of the IPv4 default route, "" if there is none."""
        ...


@dataclass
class NetworkLab:
    """A candidate, and powers that may be missing; checks that need one then pass.

    `restart` kills the candidate without warning and starts it again on the same data. `parent` is
    an interface of the machine that macvlan networks may use, "" if the candidate has none.
    `nameserver` is one that knows `ELSEWHERE` alone, for names that nobody on a network has.
    """

    networks: Networks
    probe: Probe | None = None
    restart: Callable[[], Awaitable[Networks]] | None = None
    parent: str = ""
    nameserver: str = ""
    area: str = field(default_factory=lambda: secrets.token_hex(4))

    def name(self, name: str) -> str:
        """A name or sandbox id that no other check uses."""
        return f"{self.area}-{name}"

    @asynccontextmanager
    async def network(
        self, name: str = "net", *, subnet: Subnet | None = None, internal: bool = False
    ) -> AsyncIterator[Network]:
        """A network with a subnet of its own, deleted at the end."""
        wanted = Network(
            id=secrets.token_hex(32),
            name=self.name(name),
            subnets=(subnet or Subnet(subnet=block()),),
            internal=internal,
        )
        async with self.made(wanted) as made:
            yield made

    @asynccontextmanager
    async def made(self, wanted: Network) -> AsyncIterator[Network]:
        """This network, deleted at the end with all that is on it."""
        made = await self.networks.create(wanted)
        try:
            yield made
        finally:
            for sandbox in (await self.networks.sandboxes()).sandboxes:
                if any(endpoint.network == made.id for endpoint in sandbox.endpoints):
                    await self.networks.leave(SandboxRef(id=sandbox.id))
            await self.networks.delete(NetworkRef(id=made.id))

    def request(
        self, name: str, *networks: Network, ports: tuple[PortMapping, ...] = ()
    ) -> JoinRequest:
        """A join of networks under a name that resolves."""
        attachments = tuple(Attachment(network=network.id) for network in networks)
        return JoinRequest(
            id=self.name(name),
            attachments=attachments,
            ports=ports,
            names=(self.name(name),),
            nameservers=(self.nameserver,) if self.nameserver else (),
        )

    async def join(
        self, name: str, *networks: Network, ports: tuple[PortMapping, ...] = ()
    ) -> Sandbox:
        """A sandbox on networks."""
        return await self.networks.join(self.request(name, *networks, ports=ports))

    async def leave(self, sandbox: Sandbox) -> None:
        """Remove a sandbox."""
        await self.networks.leave(SandboxRef(id=sandbox.id))

    async def ids(self) -> set[str]:
        """All sandboxes."""
        return {sandbox.id for sandbox in (await self.networks.sandboxes()).sandboxes}

    async def apply(self, **rules: tuple[object, ...]) -> None:
        """Rules of a new generation."""
        wanted = Rules(generation=next(_GENERATIONS), **rules)  # type: ignore[arg-type]
        await self.networks.apply(wanted)


def block() -> str:
    """A /24 that no other check uses."""
    number = next(_BLOCKS)
    return f"10.{100 + number // 256 % 100}.{number % 256}.0/24"
