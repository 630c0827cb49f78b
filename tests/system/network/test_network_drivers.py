"""Networks by driver: a second network plugin beside network_bridge, added and taken away live."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sagong_network_ptp import PointToPoint

from sagong.conformance import network as suite
from sagong.conformance.candidate import Candidate
from sagong.conformance.network_rig import network_lab
from sagong.testing import Check, check_name
from tests.compat.docker.docker_engine import IMAGE, Engine, engine
from tests.system.network.outer import machine, shell
from tests.system.platform.rig import wait_for

pytestmark = pytest.mark.root

# What a network needs that has neither ports, names nor several networks for one sandbox.
WITHIN_ITS_POWERS = (
    suite.check_counters_are_of_those_asked_for,
    suite.check_counters_grow_with_traffic,
    suite.check_deleted_network_is_gone,
    suite.check_foreign_address_is_refused,
    suite.check_free_subnet_is_chosen,
    suite.check_full_subnet_is_exhausted,
    suite.check_given_address_is_had,
    suite.check_left_sandbox_is_gone,
    suite.check_missing_network_is_not_found,
    suite.check_neighbours_reach_each_other,
    suite.check_network_in_use_is_not_deleted,
    suite.check_network_is_listed_as_created,
    suite.check_network_name_is_unique,
    suite.check_overlapping_subnet_is_a_conflict,
    suite.check_same_join_again_returns_it,
    suite.check_same_network_again_is_the_one_there_is,
    suite.check_sandboxes_at_once_get_different_addresses,
    suite.check_taken_address_is_a_conflict,
    suite.check_unknown_sandbox_is_not_connected,
)


async def one_check(base: Path, check: Check) -> None:
    async with network_lab(Candidate(PointToPoint), base) as lab:
        (base / "run" / "netns").mkdir(exist_ok=True)
        await check(lab)


@pytest.mark.parametrize("check", WITHIN_ITS_POWERS, ids=check_name)
def test_the_second_plugin_keeps_the_contract(check: Check) -> None:
    machine(one_check, check)


async def a_driver_comes_and_goes(base: Path) -> None:
    with engine() as docker:
        await asyncio.to_thread(_comes_and_goes, docker)


def _comes_and_goes(docker: Engine) -> None:
    create = ("network", "create", "-d", "ptp", "cables")
    assert 'plugin "ptp" not found' in docker.docker(*create).stderr
    docker.ok("run", "-d", "--name", "before", IMAGE, "sleep", "100")
    docker.instance.run("enable", "ptp", "--plugin", "network_ptp", "--instance", "ptp")
    known = ("info", "-f", "{{json .Plugins.Network}}")
    wait_for(lambda: "ptp" in docker.ok(*known))
    docker.ok(*create)
    assert "ptp cables" in docker.ok("network", "ls", "--format", "{{.Driver}} {{.Name}}")
    docker.ok("run", "-d", "--name", "one", "--network", "cables", IMAGE, "sleep", "100")
    docker.ok("run", "-d", "--name", "two", "--network", "cables", IMAGE, "sleep", "100")
    found = {n: docker.inspect(n)["NetworkSettings"]["Networks"]["cables"] for n in ("one", "two")}
    address = found["two"]["IPAddress"]
    assert address.startswith("10.88.0.") and found["two"]["IPPrefixLen"] == 32
    assert f"{address} dev ptp" in shell("", "ip route"), "no cable of its own"
    docker.ok("exec", "one", "ping", "-c", "1", "-W", "20", address)
    docker.ok("network", "create", "plain")
    mixed = docker.docker("run", "--rm", "--network", "cables", "--network", "plain", IMAGE, "true")
    assert "a container's networks must be of one driver" in mixed.stderr
    assert docker.docker("run", "--rm", "--network", "cables", "-p", "80", IMAGE).returncode == 125
    docker.instance.run("swap", "ptp", "network_ptp")
    docker.ok("exec", "one", "ping", "-c", "1", "-W", "20", address)
    docker.ok("restart", "-t", "0", "two")
    docker.ok("exec", "one", "ping", "-c", "1", "-W", "20", _address(docker, "two"))
    assert "has active endpoints" in docker.docker("network", "rm", "cables").stderr
    docker.ok("rm", "-f", "one", "two")
    assert "dev ptp" not in shell("", "ip route"), "cables are left"
    docker.ok("network", "rm", "cables")
    docker.instance.run("disable", "ptp")
    wait_for(lambda: 'plugin "ptp" not found' in docker.docker(*create).stderr)
    docker.ok("exec", "before", "true")


def _address(docker: Engine, name: str) -> str:
    found = docker.inspect(name)["NetworkSettings"]["Networks"]["cables"]["IPAddress"]
    return str(found)


def test_a_driver_is_added_used_swapped_and_taken_away() -> None:
    machine(a_driver_comes_and_goes)
