"""The network suite against network_bridge and the fake, and the mutations that it must catch."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.broken_network import MUTATIONS, PROBES
from tests.conformance.fake_network import NAMESERVER, PARENT, FakeNetworks, FakeProbe, Memory
from tests.system.network.outer import machine

from sagong.conformance import network as suite
from sagong.conformance.candidate import Candidate
from sagong.conformance.network import NetworkLab
from sagong.conformance.network_rig import network_lab
from sagong.contract import conforms
from sagong.contracts.network import Networks
from sagong.errors import SagongError
from sagong.testing import Check, check_name, checks
from sagong_network_bridge import NetworkBridge

CHECKS = checks(suite)


async def one_check(base: Path, check: Check) -> None:
    async with network_lab(Candidate(NetworkBridge, {"pool_size": 1}), base) as lab:
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

    yield NetworkLab(
        networks=probe.networks,
        probe=probe,
        restart=restart,
        parent=PARENT,
        nameserver=NAMESERVER,
    )


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
