"""Nobody notices that parts of the platform sleep: what happens meanwhile wakes whom it concerns."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import time
from collections.abc import Iterator

import pytest
from tests import sample_image
from tests.system.instance import Instance, instance
from tests.system.kernel.sleepers import wakings
from tests.system.platform.rig import (
    IMAGE,
    Platform,
    ended,
    needs_docker,
    needs_kubectl,
    rules,
    single,
    wait_for,
)

from sagong.contracts.kernel import StopSystem
from sagong.linux.cgroup import layout_of_machine
from sagong.operator import connect

pytestmark = pytest.mark.root

# Who may sleep does so as soon as it can.
DROWSY = "".join(
    f"[units.{name}]\nidle_seconds = 1.0\n"
    for name in ("scheduler", "replication", "docker", "state-local", "image", "network", "runtime")
)

DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "early"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "early"}},
        "template": {
            "metadata": {"labels": {"app": "early"}},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [
                    {
                        "name": "c",
                        "image": IMAGE,
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["sleep", "600"],
                    }
                ],
            },
        },
    },
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Docker and Kubernetes on one machine, of their own."""
    home = tmp_path_factory.mktemp("home")
    with instance(single(16559, "10.236.0") + DROWSY) as running:
        found = Platform(running, home)
        found("docker", "load", "-i", str(sample_image.build(home).docker_archive))
        yield found


def take_rules_away(whole: Platform) -> None:
    """As `nft flush ruleset` does, which any program of the machine may."""
    with rules(whole.running.paths.prefix) as table:
        table.commit([table.delete_table()])


def has_rules(whole: Platform) -> bool:
    """Whether the platform's table is there."""
    with rules(whole.running.paths.prefix) as table:
        return any(name == table.table for name, _, _ in table.chains())


def state(whole: Platform, name: str) -> str:
    """As `sagong status` has it."""
    return next(unit.state for unit in whole.running.status().units if unit.name == name)


def wait_asleep(whole: Platform, *names: str) -> None:
    """Until these sleep."""
    wait_for(lambda: all(state(whole, name) == "asleep" for name in names), 60)


@needs_kubectl
def test_a_deployment_wakes_scheduler_and_controllers(whole: Platform) -> None:
    wait_asleep(whole, "scheduler", "replication")
    whole("kubectl", "apply", "-f", "-", given=json.dumps(DEPLOYMENT).encode())
    try:
        whole("kubectl", "rollout", "status", "deploy/early", "--timeout=55s")
        wait_asleep(whole, "scheduler", "replication")
        whole("kubectl", "scale", "deploy/early", "--replicas=3")
        whole("kubectl", "rollout", "status", "deploy/early", "--timeout=55s")
    finally:
        whole("kubectl", "delete", "deploy/early", "--wait=true")


@needs_docker
def test_what_docker_needs_next_wakes_with_it(whole: Platform) -> None:
    """Though nobody has asked for it yet."""
    next_ones = ("image", "network", "runtime")
    wait_asleep(whole, "docker", "state-local", *next_ones)
    before = {name: wakings(whole.running, name) for name in next_ones}
    with ended(whole.start("docker", "version")):
        wait_for(lambda: all(wakings(whole.running, name) > n for name, n in before.items()))


@needs_docker
def test_networks_need_nobody_without_a_sandbox(whole: Platform) -> None:
    """Bridges and rules stay; who takes the rules away wakes whoever makes them anew."""
    every = whole.running.paths.unit_group("network", "*")
    wait_asleep(whole, "network")
    wait_for(lambda: not layout_of_machine().groups(every))  # nor its deputy
    assert os.path.exists(f"/sys/class/net/{whole.running.paths.prefix}0")
    for _ in range(2):  # the one that has been woken so sleeps, and is woken again
        take_rules_away(whole)
        wait_for(lambda: has_rules(whole))
        wait_asleep(whole, "network")
    whole("docker", "run", "-d", "--name", "port", "-p", "127.0.0.1::80", IMAGE, "sleep", "600")
    try:
        address = whole("docker", "port", "port", "80").strip()
        time.sleep(2.5)
        assert state(whole, "network") == "serving", "somebody must hold its port"
        kept = socket.socket()
        with kept, pytest.raises(OSError, match="in use"):
            kept.bind(("127.0.0.1", int(address.rpartition(":")[2])))
    finally:
        whole("docker", "rm", "-f", "port")
    wait_asleep(whole, "network")


@needs_docker
@pytest.mark.parametrize("part", ["kernel", "keeper", "zygote"])
def test_what_dies_while_networks_sleep_hides_no_change_of_rules(
    whole: Platform, part: str
) -> None:
    wait_asleep(whole, "network")
    os.kill(whole.running.pid(part), signal.SIGKILL)
    take_rules_away(whole)
    wait_for(lambda: has_rules(whole))
    whole.running.wait_ready()
    wait_asleep(whole, "network")


@needs_docker
def test_what_happens_while_docker_sleeps_is_told_later(whole: Platform) -> None:
    """Restart policies are kept without it, and its history goes on."""
    began = time.time()
    whole("docker", "run", "-d", "--name", "lasting", "--restart=always", IMAGE, "sleep", "600")
    try:
        pid = int(whole("docker", "inspect", "-f", "{{.State.Pid}}", "lasting"))
        wait_asleep(whole, "docker", "state-local")
        before = wakings(whole.running, "docker")
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: wakings(whole.running, "docker") > before)
        wait_asleep(whole, "docker")
        again = whole("docker", "inspect", "-f", "{{.State.Running}} {{.RestartCount}}", "lasting")
        assert again == "true 1\n"
        told = whole(
            "docker", "events", "--since", f"{began:.3f}", "--until", f"{time.time():.3f}",
            "--filter", "container=lasting", "--filter", "type=container", "--format", "{{.Action}}",
        )  # fmt: skip
        assert told.split() == ["create", "start", "die", "start"]
    finally:
        whole("docker", "rm", "-f", "lasting")


def test_who_sleeps_gets_up_to_be_purged_before_those_that_it_calls_leave() -> None:
    """`sagong down --all` took five seconds more: dns asked a `kube` that had gone."""

    async def purge(running: Instance) -> None:
        async with connect(running.paths) as operator:
            await operator.kernel.stop(StopSystem(seconds=10.0, purge=True))

    with instance(single(16575, "10.225.0")) as running:
        units = {unit.name: unit.state for unit in running.status().units}
        assert units["dns"] == "asleep"
        keeper = os.pidfd_open(running.pid("keeper"))
        asyncio.run(purge(running))
        assert select.select([keeper], [], [], 60)[0]
        os.close(keeper)
        log = (running.paths.run / "log/dns.log").read_text()
        assert "services are not read yet" not in log
