"""Subnets that several choose at the same moment: nobody shares one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from sagong.contracts.network import Network, Subnet
from sagong_network_bridge.bridges import Bridges
from sagong_network_bridge.netlink import Channel
from sagong_network_bridge.networks import Networks
from sagong_network_bridge.parents import Parents
from sagong_network_bridge.records import Records
from sagong_network_bridge.settings import Settings
from sagong_network_bridge.subnets import private_pool6
from tests.system.network.outer import machine, shell

pytestmark = pytest.mark.root

PRIVATE = private_pool6("one machine")


class Instance:
    """The networks of one instance; `before` and `after` happen around the making of bridges, `looked`
    after all else that it asks the machine."""

    def __init__(self, base: Path, prefix: str) -> None:
        for name in ("data", "run"):
            (base / prefix / name).mkdir(parents=True)
        settings = Settings(prefix=prefix, pool6=PRIVATE)
        self.host = Channel()
        bridges = Bridges(prefix, self.host, base / prefix / "sysctls")
        self._ensure = bridges.ensure
        records = Records(base / prefix / "data", base / prefix / "run")
        parents = Parents(prefix, self.host)
        self.networks = Networks(settings, records, bridges, parents, self._run)
        self.before = self.after = self.looked = once(lambda: None)

    async def _run(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        if function != self._ensure:
            found = function(*arguments, **named)
            await self.looked()
            return found
        await self.before()
        made = function(*arguments, **named)
        await self.after()
        return made

    async def start(self) -> None:
        await self.networks.start(self.host, {})

    async def create(self, name: str, *subnets: str, ipv6: bool = False) -> Network:
        given = tuple(Subnet(subnet=text) for text in subnets)
        asked = Network(id=name[:1] * 64, name=name, subnets=given, ipv6=ipv6)
        return await self.networks.create(asked, self.host)

    def subnets(self) -> list[str]:
        return [s.subnet for network in self.networks.all() for s in network.subnets]


def routed(interface: str) -> list[str]:
    lines = shell("", f"ip route show dev {interface} 2>/dev/null; true").splitlines()
    return [line.split()[0] for line in lines]


def rival(name: str = "rival", address: str = "172.17.0.1/16") -> None:
    shell(
        "",
        f"ip link add {name} type bridge; ip addr add {address} dev {name}; ip link set {name} up",
    )


def once(
    action: Callable[[], Any], armed: Callable[[], bool] = lambda: True
) -> Callable[[], Coroutine[Any, Any, None]]:
    """Done at the first of several occasions, from when it is armed."""
    left = [action]

    async def act() -> None:
        if left and armed():
            left.pop()()

    return act


def meeting(met: asyncio.Barrier) -> Callable[[], Coroutine[Any, Any, None]]:
    """Wait for the others, the first time."""
    first = [met]

    async def wait() -> None:
        if first:
            await first.pop().wait()

    return wait


async def two_at_once(base: Path) -> None:
    met = asyncio.Barrier(2)
    one, two = instances = [Instance(base, prefix) for prefix in ("aa", "bb")]

    for instance in instances:
        instance.before = meeting(met)
    await asyncio.gather(one.start(), two.start())
    assert sorted([*one.subnets(), *two.subnets()]) == ["172.17.0.0/16", "172.18.0.0/16"]
    for instance, prefix in ((one, "aa"), (two, "bb")):
        assert routed(f"{prefix}0") == instance.subnets()

    for instance in instances:
        instance.before = meeting(met)
    await asyncio.gather(one.create("c", ipv6=True), two.create("d", ipv6=True))
    found = [*one.subnets(), *two.subnets()]
    assert len(set(found)) == 6


def test_instances_that_choose_at_once_have_subnets_of_their_own() -> None:
    machine(two_at_once)


async def older_rival(base: Path) -> None:
    instance = Instance(base, "aa")
    instance.before = once(rival)
    await instance.start()
    assert instance.subnets() == ["172.18.0.0/16"]
    assert routed("aa0") == ["172.18.0.0/16"], "what was chosen first is off"


def test_who_comes_later_gives_way() -> None:
    machine(older_rival)


async def newer_rival_goes(base: Path) -> None:
    """It is there when we look, and gone when we look again."""
    instance = Instance(base, "aa")
    instance.after = once(rival)
    instance.looked = once(
        lambda: shell("", "ip link del rival"), armed=lambda: bool(routed("rival"))
    )
    await instance.start()
    assert instance.subnets() == ["172.17.0.0/16"]


def test_the_older_bridge_stays_when_the_newer_gives_way() -> None:
    machine(newer_rival_goes)


async def newer_rival_stays(base: Path) -> None:
    """It may have looked before we were up."""
    instance = Instance(base, "aa")
    instance.after = once(rival)
    await instance.start()
    assert instance.subnets() == ["172.18.0.0/16"]


def test_the_older_bridge_gives_way_to_a_newer_one_that_stays() -> None:
    machine(newer_rival_stays)


async def as_told(base: Path) -> None:
    instance = Instance(base, "aa")
    await instance.start()
    instance.before = once(lambda: rival(address="10.9.0.1/16"))
    made = await instance.create("asked", "10.9.0.0/16")
    assert [s.subnet for s in made.subnets] == ["10.9.0.0/16"]


def test_a_subnet_that_was_named_is_kept() -> None:
    machine(as_told)
