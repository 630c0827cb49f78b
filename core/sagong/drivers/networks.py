"""All providers of slot `network` as one: a network's driver says which instance has it."""

from __future__ import annotations

import asyncio
from typing import Final

from sagong.contracts.network import (
    ConnectRequest,
    CountersList,
    CountersQuery,
    DisconnectRequest,
    JoinRequest,
    Network,
    NetworkList,
    NetworkRef,
    Networks,
    Rules,
    Sandbox,
    SandboxList,
    SandboxRef,
)
from sagong.errors import FailedPrecondition, NotFound
from sagong.host import Host

__all__ = ["EveryNetwork"]

_BUILT_IN: Final = ("bridge", "macvlan", "ipvlan", "host", "null", "none")


class EveryNetwork:
    """The contract of slot `network`; one instance makes a sandbox, so all its networks are of it."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._providers = host.providers(Networks)

    @property
    def drivers(self) -> tuple[str, ...]:
        """Names that a network's driver may have."""
        return (*_BUILT_IN[:-1], *filter(None, self._providers.names))

    async def create(self, network: Network) -> Network:
        """Where its driver is; NotFound in Docker's words for an unknown one."""
        return await self._named(self._driver(network.driver)).create(network)

    async def delete(self, network: NetworkRef) -> None:
        """From whoever has it; unknown is no error."""
        await self._named(await self._holder({network.id})).delete(network)

    async def networks(self) -> NetworkList:
        """All networks; those that every provider has from the start are shown once."""
        lists = await asyncio.gather(*(self._named(n).networks() for n in self._instances))
        found = {network.id: network for one in reversed(lists) for network in one.networks}
        ordered = sorted(found.values(), key=lambda network: network.created)
        return NetworkList(networks=tuple(ordered))

    async def join(self, request: JoinRequest) -> Sandbox:
        """By the instance that has its networks."""
        wanted = {attachment.network for attachment in request.attachments}
        return await self._named(await self._holder(wanted)).join(request)

    async def leave(self, sandbox: SandboxRef) -> None:
        """From wherever it is; unknown is no error."""
        await asyncio.gather(*(self._named(n).leave(sandbox) for n in self._instances))

    async def sandboxes(self) -> SandboxList:
        """All sandboxes."""
        lists = await asyncio.gather(*(self._named(n).sandboxes() for n in self._instances))
        return SandboxList(sandboxes=tuple(s for one in lists for s in one.sandboxes))

    async def inspect(self, sandbox: SandboxRef) -> Sandbox:
        """One sandbox."""
        return await self._named(await self._place(sandbox.id)).inspect(sandbox)

    async def counters(self, query: CountersQuery) -> CountersList:
        """From wherever they are: each instance leaves out what it doesn't know."""
        lists = await asyncio.gather(*(self._named(n).counters(query) for n in self._instances))
        return CountersList(sandboxes=tuple(s for one in lists for s in one.sandboxes))

    async def connect(self, request: ConnectRequest) -> Sandbox:
        """Put it on a further network of the instance that made it."""
        place = await self._place(request.id)
        holder = await self._holder({request.attachment.network})
        if place != holder:
            raise FailedPrecondition(_mixed((place, holder)))
        return await self._named(place).connect(request)

    async def disconnect(self, request: DisconnectRequest) -> Sandbox:
        """Take it off one."""
        return await self._named(await self._place(request.id)).disconnect(request)

    async def apply(self, rules: Rules) -> None:
        """Services and policies are the default provider's: pods are on its networks."""
        await self._named("").apply(rules)

    @property
    def _instances(self) -> tuple[str, ...]:
        return self._providers.names or ("",)

    def _named(self, instance: str) -> Networks:
        return self._host.use(Networks, instance)

    def _driver(self, driver: str) -> str:
        if driver in _BUILT_IN:
            return ""
        if driver in self._providers.names:
            return driver
        raise NotFound(f'plugin "{driver}" not found')

    async def _holder(self, networks: set[str]) -> str:
        """The instance that has all these networks; the default one for none and unknown ones."""
        if self._instances == ("",):
            return ""
        found = set()
        for instance in filter(None, self._instances):
            own = await self._named(instance).networks()
            held = {n.id for n in own.networks if n.driver not in ("host", "null")} & networks
            networks = networks - held
            found |= {instance} if held else set()
        if networks or not found:
            found.add("")
        if len(found) > 1:
            raise FailedPrecondition(_mixed(found))
        return found.pop()

    async def _place(self, sandbox: str) -> str:
        """The instance that made a sandbox."""
        for instance in filter(None, self._instances):
            try:
                await self._named(instance).inspect(SandboxRef(id=sandbox))
            except NotFound:
                continue
            return instance
        return ""


def _mixed(instances: set[str] | tuple[str, ...]) -> str:
    names = " and ".join(name or "the default one" for name in sorted(instances))
    return f"a container's networks must be of one driver; these are of {names}"
