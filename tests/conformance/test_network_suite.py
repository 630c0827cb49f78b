"""The network suite against network_bridge and the fake, and the mutations that it must catch."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import dns.exception
import dns.message
import dns.query
import dns.rdatatype
import pytest
from tests.conformance.broken_network import MUTATIONS, PROBES
from tests.conformance.fake_network import PARENT, FakeNetworks, FakeProbe, Memory
from tests.system.network.outer import Server, dial, machine, plugin, shell, within

from sagong.conformance import network as suite
from sagong.conformance.network import NetworkLab
from sagong.contract import conforms
from sagong.contracts.network import Networks, Sandbox
from sagong.errors import SagongError
from sagong.testing import Check, check_name, checks

CHECKS = checks(suite)


class RealProbe:
    """Servers and clients in the sandboxes' namespaces."""

    def __init__(self) -> None:
        self.servers: list[Server] = []

    async def serve(self, sandbox: Sandbox, port: int, protocol: str = "tcp") -> None:
        self.servers.append(Server(sandbox.path, port, sandbox.id, protocol))

    async def reach(
        self, source: Sandbox | None, address: str, port: int, protocol: str = "tcp"
    ) -> str:
        word, _ = await dial(source.path if source else "", address, port, protocol)
        return word

    async def resolve(self, sandbox: Sandbox, name: str) -> tuple[str, ...]:
        query = dns.message.make_query(name, dns.rdatatype.A)

        def ask() -> dns.message.Message:
            return dns.query.udp(query, sandbox.dns, timeout=5)

        answer = await asyncio.to_thread(within, sandbox.path, ask)
        return tuple(item.address for rrset in answer.answer for item in rrset)

    async def gateway(self, sandbox: Sandbox) -> str:
        text = await asyncio.to_thread(shell, sandbox.path, "ip -4 route show default")
        return text.split()[2] if text.split() else ""

    def close(self) -> None:
        for server in self.servers:
            server.close()


@contextlib.asynccontextmanager
async def bridge_lab(base: Path) -> AsyncIterator[NetworkLab]:
    """The plugin on a machine of its own; stopping it is the mild form of a crash."""
    async with contextlib.AsyncExitStack() as stack:
        running = await stack.enter_async_context(contextlib.AsyncExitStack())
        probe = RealProbe()
        stack.callback(probe.close)

        async def start() -> Networks:
            return await running.enter_async_context(plugin(base, {"pool_size": 1}))

        async def restart() -> Networks:
            await running.aclose()
            return await start()

        # A cable that leads nowhere, of a machine of the test's own.
        shell("", "ip link add lan0 type bridge; ip link set lan0 up")
        yield NetworkLab(networks=await start(), probe=probe, restart=restart, parent="lan0")


async def one_check(base: Path, check: Check) -> None:
    async with bridge_lab(base) as lab:
        await check(lab)


@pytest.mark.root
@pytest.mark.parametrize("check", CHECKS, ids=check_name)
def test_network_bridge(check: Check) -> None:
    machine(one_check, check)


@contextlib.asynccontextmanager
async def fake_lab(
    kind: type[FakeNetworks] = FakeNetworks, probing: type[FakeProbe] = FakeProbe
) -> AsyncIterator[NetworkLab]:
    """The fake, or a broken one."""
    memory = Memory()
    probe = probing(kind(memory))

    async def restart() -> Networks:
        getattr(probe.networks, "kill", lambda: None)()
        probe.networks = kind(memory)
        return probe.networks

    yield NetworkLab(networks=probe.networks, probe=probe, restart=restart, parent=PARENT)


@pytest.mark.parametrize("check", CHECKS, ids=check_name)
async def test_fake(check: Check) -> None:
    async with fake_lab() as lab:
        conforms(Networks, lab.networks)
        await check(lab)


@pytest.mark.parametrize("mutation", [*MUTATIONS, *PROBES], ids=lambda kind: kind.__name__)
async def test_broken_fake_is_caught(mutation: Any) -> None:
    """Each mutation names the check that must fail on it."""
    check: Callable[[Any], Any] = getattr(suite, f"check_{mutation.caught_by}")
    kind, probing = (mutation, FakeProbe) if mutation in MUTATIONS else (FakeNetworks, mutation)
    async with fake_lab(kind, probing) as lab:
        with pytest.raises((AssertionError, SagongError)):
            await check(lab)


def test_there_are_enough_checks() -> None:
    assert len(CHECKS) >= 30
    assert len(MUTATIONS) + len(PROBES) >= 10
