"""A bare Debian 12 with systemd and control groups of version 2 only: installed, rebooted, taken away.

One story, told in order, since booting an emulated machine is slow. `-s` shows how long each part took.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import pytest

from tests.system.vm.machine import Machine
from tests.system.vm.rig import CLIENTS, clients, told

CLIENT_ENVIRONMENT = (
    "PATH=$PATH:clients DOCKER_HOST=unix:///run/sagong/docker.sock "
    "KUBECONFIG=/etc/sagong/kubeconfig"
)
# Everything that the platform makes on a machine, as text to compare.
TRACES = """
ip -o link | cut -d: -f2
ip rule
ip route show table all
nft list tables
awk '{print $5}' /proc/self/mountinfo | grep sagong
find /sys/fs/cgroup -maxdepth 2 -name '*sagong*'
readlink /proc/[0-9]*/ns/net | sort -u | wc -l
pgrep -a sagong
ls -d /run/sagong* /etc/systemd/system/*sagong* /etc/systemd/system/*/*sagong* 2>/dev/null
true
"""
# Seconds that a condition may take on a busy machine; an idle one needs a tenth.
_PATIENCE = 900.0
RUNNING = {"always", "always-stopped", "unless", "on-failure"}
PROFILE = """
profile sagong-vm-test flags=(attach_disconnected) {
  file, capability, network, mount, umount, signal, ptrace, unix,
  deny /etc/passwd r,
}
"""

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.timeout(5400)]


def wait_ready(machine: Machine) -> None:
    """Wait until systemd says that the platform serves, having done nothing for it.

    Who asks again and again takes the processors from whom he waits for. So systemd tells of the
    end of the boot, which the platform is part of; a start that is tried again is asked for.
    """
    machine.run(
        "systemctl is-system-running --wait;"
        " until state=$(systemctl is-active sagong); [ $state = active ]; do"
        " [ $state != failed ] || exit 1; sleep 1; done",
        _PATIENCE,
    )


def wait_running(machine: Machine) -> dict[str, Any]:
    """The states once those that are to run do."""
    limit = time.monotonic() + _PATIENCE
    while True:
        states: dict[str, Any] = machine.ask("state")
        up = {name for name, state in states.items() if state["running"] and state["alive"]}
        if up == RUNNING or time.monotonic() > limit:
            return states
        time.sleep(0.5)


def test_a_bare_debian_is_installed_rebooted_and_left_clean(machine: Machine) -> None:
    began = time.monotonic()
    assert machine.run("stat -fc %T /sys/fs/cgroup").strip() == "cgroup2fs"
    before = machine.run(TRACES)
    first = machine.run(f"packaging/up --seconds {_PATIENCE}", 2 * _PATIENCE)
    assert "says: hello from web-" in first
    began = told("packaging/up", began)
    again = machine.run("packaging/up", _PATIENCE)
    assert "runs already" in again
    began = told("packaging/up again", began)

    machine.ask("begin")
    states = machine.ask("state")
    stopped = {name for name, state in states.items() if not state["running"]}
    assert stopped == {"always-stopped", "unless-stopped"}
    began = told("containers", began)
    check_limits(machine)
    check_layer_sizes(machine)
    check_apparmor(machine)
    began = told("limits and profiles", began)
    check_ipvlan(machine)
    began = told("ipvlan", began)
    pods = machine.ask("pods")["pods"]
    assert len(pods) == 3
    check_clock(machine, pods)
    began = told("clock", began)

    machine.reboot()
    machine.wait_booted()
    began = told("reboot", began)
    check_after_boot(machine, set(pods))
    began = told("all is back", began)
    check_clients(machine)

    machine.cut_power()
    machine.power_on()
    machine.wait_booted()
    began = told("power cut", began)
    check_after_boot(machine, set(pods))
    began = told("all is back again", began)

    machine.run("packaging/down", _PATIENCE)
    assert machine.run(TRACES) == before
    told("packaging/down", began)


def check_clock(machine: Machine, pods: dict[str, Any]) -> None:
    """Nothing ends, restarts or hangs when the wall clock jumps, a day on and a day back."""
    states = machine.ask("state")
    for step in ("+1 day", "-1 day"):
        machine.run(f"date -s '{step}'")
        assert machine.ask("run", "{}", "echo", "told")["out"] == "told\r\n"
        assert machine.ask("pods")["pods"] == pods
        assert machine.ask("state") == states


def check_limits(machine: Machine) -> None:
    """Version 2's files hold the limits; devices are refused by a BPF program."""
    assert machine.ask("limits") == {
        "memory.max": str(64 << 20),
        "memory.swap.max": "0",
        "pids.max": "50",
        "cpu.max": "50000 100000",
    }
    script = "mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk; head -c 1 /dev/zero | wc -c"
    answer = machine.ask("run", "{}", "sh", "-c", script)
    assert "Operation not permitted" in answer["out"]
    assert answer["out"].split()[-1] == "1"


def check_layer_sizes(machine: Machine) -> None:
    """The disk keeps project quotas: a container's layer ends where it was told to."""
    script = (
        "head -c 20000000 /dev/zero >/large; wc -c </large; rm /large; echo x >/small && echo y"
    )
    for size, written in (("8m", False), ("40m", True)):
        options = json.dumps({"StorageOpt": {"size": size}})
        answer = machine.ask("run", options, "sh", "-c", script)
        assert ("limit reached" not in answer["out"]) == written, answer
        assert ("20000000" in answer["out"].split()) == written, answer
        assert answer["out"].split()[-1] == "y", answer


def check_apparmor(machine: Machine) -> None:
    """A profile that is loaded acts; one that is not is refused by name."""
    machine.run(f"apparmor_parser -a <<'EOF'\n{PROFILE}\nEOF")
    options = json.dumps({"SecurityOpt": ["apparmor=sagong-vm-test"]})
    script = "cat /proc/self/attr/current /etc/passwd"
    answer = machine.ask("run", options, "sh", "-c", script)
    assert "sagong-vm-test (enforce)" in answer["out"]
    assert "Permission denied" in answer["out"]
    options = json.dumps({"SecurityOpt": ["apparmor=not-loaded"]})
    answer = machine.ask("run", options, "true")
    assert answer["code"] == -1
    assert "not-loaded" in answer["out"]


def check_ipvlan(machine: Machine) -> None:
    """Containers on an interface of the machine, where the kernel has what it takes."""
    machine.run("ip link add lan0 type dummy && ip link set lan0 up")
    assert machine.ask("ipvlan") == dict.fromkeys(("l2", "l3"), "hello from sagong")
    machine.run("ip link delete lan0")


def check_after_boot(machine: Machine, pods: set[str]) -> None:
    """Without any command exactly the right containers run, and the pods."""
    began = time.monotonic()
    wait_ready(machine)
    began = told("the platform serves", began)
    states = wait_running(machine)
    began = told("containers run", began)
    assert {name for name, state in states.items() if state["running"]} == RUNNING, states
    assert all(state["alive"] for name, state in states.items() if name in RUNNING)
    addresses = [states[name]["address"] for name in RUNNING]
    assert len(set(addresses)) == len(RUNNING)
    assert states["plain"]["code"] != 0
    limit = time.monotonic() + _PATIENCE
    while True:
        answer = machine.ask("pods")
        if all(pod["ready"] for pod in answer["pods"].values()) or time.monotonic() > limit:
            break
        time.sleep(0.5)
    assert set(answer["pods"]) == pods, "pods come back as they were, not as others"
    assert all(pod["ready"] and pod["phase"] == "Running" for pod in answer["pods"].values())
    told("pods are ready", began)
    check_nothing_stale(machine)


def check_nothing_stale(machine: Machine) -> None:
    """Namespaces, mounts and leases are those of what runs now, none of the boot before."""
    pins = machine.run("ls /run/sagong/netns | wc -l")
    veths = machine.run("ip -o link show type veth | wc -l")
    # Pods, running containers, and those in advance.
    assert int(pins) >= 3 + len(RUNNING)
    assert abs(int(veths) - int(pins)) <= 1
    assert machine.run("awk '$5 ~ /sagong.mounts./' /proc/self/mountinfo | wc -l").strip() == "0"


def check_clients(machine: Machine) -> None:
    """The clients that users have, if this machine has them to give."""
    for name in CLIENTS:
        if name not in clients():
            print(f"vm: no {name} on this machine; its API was asked by hand", file=sys.stderr)
    if "docker" in clients():
        shown = machine.run(f"{CLIENT_ENVIRONMENT} docker ps --format '{{{{.Names}}}}'").split()
        assert set(shown) == RUNNING
    if "kubectl" in clients():
        listed = machine.run(f"{CLIENT_ENVIRONMENT} kubectl get pods --no-headers")
        assert listed.count("Running") == 3
