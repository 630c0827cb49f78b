"""Two thousand published ports: no process for any, and the last costs what the first did."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sagong.contracts.network import PortMapping, SandboxRef
from sagong_network_bridge.netlink import NETFILTER, Channel
from tests.system.network.outer import Server, joined, machine, plugin, reached

pytestmark = pytest.mark.root

_SANDBOXES, _PORTS = 20, 100


class Changes:
    """What the kernel tells of changes to its rules."""

    def __init__(self) -> None:
        self._channel = Channel(NETFILTER, large=True)
        self._channel.subscribe(7)

    def count(self) -> int:
        """Messages since the last time."""
        return sum(1 for _ in self._channel.notices())

    def close(self) -> None:
        self._channel.close()


def children() -> int:
    return len(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


async def many_ports(base: Path) -> None:
    async with plugin(base) as network:
        changes, before = Changes(), children()
        one = (PortMapping(container_port=80, host_port=18000),)
        first = await joined(network, "first", "bridge", ports=one)
        cost = changes.count()
        assert 0 < cost < 10
        made = []
        for number in range(_SANDBOXES):
            ports = tuple(
                PortMapping(container_port=1000 + n, host_port=20000 + number * _PORTS + n)
                for n in range(_PORTS)
            )
            made.append(await joined(network, f"many{number}", "bridge", ports=ports))
            changes.count()
        last = await joined(
            network, "last", "bridge", ports=(PortMapping(container_port=80, host_port=18001),)
        )
        assert changes.count() == cost, "a port among two thousand costs more than the first"
        await network.leave(SandboxRef(id="first"))
        gone = changes.count()
        assert 0 < gone <= cost, "leaving touches what others have"
        assert children() == before, "a process for a port"
        server, at = Server(last.path, 80, "last"), Server(made[-1].path, 1099, "many")
        assert (await reached("", "127.0.0.1", 18001))[0] == "last"
        assert (await reached("", "::1", 20000 + _SANDBOXES * _PORTS - 1))[0] == "many"
        assert first.ports[0].host_port == 18000
        for one_ in (server, at):
            one_.close()
        changes.close()


def test_two_thousand_ports_cost_what_one_does_each() -> None:
    machine(many_ports)
