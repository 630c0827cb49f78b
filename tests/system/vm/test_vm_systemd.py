"""`sagong-runtime` where systemd makes the cgroups: by hand beside runc, root's podman, and a user's.

One story, as each command takes seconds on the emulated machine.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.system.runtime_oci.bundles import CAPABILITIES, MOUNTS, NAMESPACES
from tests.system.vm.machine import Machine
from tests.system.vm.rig import told

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.timeout(3600)]

USER = "cd /home/user && runuser -u user -- env HOME=/home/user XDG_RUNTIME_DIR=/run/user/1000"
RUNTIMES = ("sagong-runtime", "runc")
SLICE = "sagong.slice/sagong-test.slice"
# Users have no way into /root, where the repository is.
PREPARED = """
mkdir -p /opt/sagong /opt/box/{bin,proc,sys,dev,etc,tmp}
cp -a core plugins /opt/sagong
cp /bin/busybox /opt/box/bin
for name in sh sleep cat; do ln -s busybox /opt/box/bin/$name; done
tar -C /opt/box -cf /opt/box.tar .
chmod -R a+rX /opt
cat >/usr/local/bin/sagong-runtime <<'EOF'
#!/bin/sh
exec /usr/bin/python3 -I -S -c "import sys
sys.path += ['/opt/sagong/core', '/opt/sagong/plugins']
from sagong_runtime_linux.oci.entry import main
main()" "$@"
EOF
chmod 755 /usr/local/bin/sagong-runtime
mkdir -p /etc/containers
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >/etc/containers/policy.json
cat >/etc/containers/containers.conf <<'EOF'
[engine]
runtime = "sagong"
events_logger = "file"
[engine.runtimes]
sagong = ["/usr/local/bin/sagong-runtime"]
EOF
"""
# What two scopes differ in that are alike.
OWN = {
    *("Id", "Names", "Description", "ControlGroup", "ControlGroupId", "InvocationID"),
    *("FragmentPath", "MemoryCurrent", "MemoryAvailable", "CPUUsageNSec", "TasksCurrent"),
    *("IOReadBytes", "IOReadOperations", "IOWriteBytes", "IOWriteOperations"),
    # runc sets its limits twice, and leaves devices out that are not there.
    *("DropInPaths", "NeedDaemonReload", "DeviceAllow"),
}
FILES = ("memory.max", "memory.swap.max", "memory.low", "cpu.max", "cpu.weight", "pids.max")
RESOURCES = {
    "memory": {"limit": 64 << 20, "swap": 128 << 20, "reservation": 32 << 20},
    "cpu": {"shares": 512, "quota": 12345, "period": 100000, "cpus": "0-1", "mems": "0"},
    "pids": {"limit": 50},
    "devices": [{"allow": False, "access": "rwm"}],
}


@pytest.fixture(scope="module")
def prepared(machine: Machine) -> Machine:
    """With the runtime where others find it, and podman set to it."""
    began = time.monotonic()
    machine.run(f"set -e\n{PREPARED}")
    told("runtime", began)
    return machine


def configuration(name: str) -> dict[str, Any]:
    """Of a container whose scope is in a slice within a slice."""
    process = {
        "args": ["sleep", "1000"],
        "cwd": "/",
        "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0},
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
    }
    linux = {
        "namespaces": [{"type": kind} for kind in NAMESPACES],
        "cgroupsPath": f"sagong-test.slice:oci:{name}",
        "resources": RESOURCES,
    }
    annotations = {"org.systemd.property.TimeoutStopUSec": "uint64 7000000"}
    return {
        "ociVersion": "1.0.2",
        "root": {"path": "/opt/box"},
        "mounts": MOUNTS,
        "process": process,
        "linux": linux,
        "annotations": annotations,
    }


def run_by_hand(machine: Machine, runtime: str) -> dict[str, str]:
    """What systemd shows of a container's scope that a runtime has made."""
    machine.run(
        f"set -e; mkdir -p /tmp/{runtime}; cd /tmp/{runtime}\n"
        f"cat >config.json <<'EOF'\n{json.dumps(configuration(runtime))}\nEOF\n"
        f"{runtime} --systemd-cgroup run -d {runtime} </dev/null >said 2>&1 || (cat said; exit 1)"
    )
    shown = machine.run(f"systemctl show oci-{runtime}.scope").splitlines()
    lines = [line.partition("=")[::2] for line in shown]
    return {name: value for name, value in lines if name not in OWN and "Timestamp" not in name}


def test_a_scope_by_hand_is_as_runcs(prepared: Machine) -> None:
    began = time.monotonic()
    run = prepared.run
    ours, theirs = (run_by_hand(prepared, runtime) for runtime in RUNTIMES)
    assert ours == theirs
    assert (ours["MemoryMax"], ours["CPUQuotaPerSecUSec"]) == (str(64 << 20), "130ms")
    for file in FILES:
        values = run(f"cd /sys/fs/cgroup/{SLICE} && cat oci-*.scope/{file}").splitlines()
        assert values[0] == values[1] != "max", file
    assert run(f"cat /sys/fs/cgroup/{SLICE}/oci-sagong-runtime.scope/cpu.max") == "12345 100000\n"
    began = told("scopes by hand", began)

    us = "sagong-runtime --systemd-cgroup"
    assert run(f"{us} exec sagong-runtime cat /proc/self/cgroup").endswith(".scope\n")
    run(f"{us} update --memory 48M --pids-limit 20 sagong-runtime && systemctl daemon-reload")
    shown = run("systemctl show -p MemoryMax -p TasksMax oci-sagong-runtime.scope")
    assert sorted(shown.split()) == [f"MemoryMax={48 << 20}", "TasksMax=20"]
    files = "memory.max pids.max cpu.max"
    shown = run(f"cd /sys/fs/cgroup/{SLICE}/oci-sagong-runtime.scope && cat {files}")
    assert shown.split()[:2] == [str(48 << 20), "20"]
    run(f"{us} pause sagong-runtime && {us} state sagong-runtime | grep paused")
    for runtime in RUNTIMES:
        run(f"{runtime} --systemd-cgroup delete --force {runtime}")
    assert run("systemctl list-units --all --no-legend 'oci-*'") == ""
    assert run(f"ls /sys/fs/cgroup/{SLICE} | grep scope || true") == ""
    told("their ends", began)


def test_podman_has_its_default_manager(prepared: Machine) -> None:
    began = time.monotonic()
    run = prepared.run
    assert run("podman info -f '{{.Host.CgroupManager}}'") == "systemd\n"
    run("podman import /opt/box.tar box")
    limits = "--memory 64m --cpus 0.5 --pids-limit 50"
    name = run(f"podman run -d --network none {limits} --name one box sleep 1000").strip()
    scope = f"libpod-{name}.scope"
    found = run(f"cd /sys/fs/cgroup/machine.slice/{scope} && cat memory.max cpu.max pids.max")
    assert found.split() == [str(64 << 20), "50000", "100000", "50"]
    assert "sleep 1000" in run("systemd-cgls --no-pager -u machine.slice")
    assert "active (running)" in run(f"systemctl status --no-pager {scope}")
    assert run("podman exec one cat /proc/self/cgroup") == "0::/\n"
    run("podman stop --time 0 one && podman rm one")
    check_gone(run("systemctl list-units --all --no-legend 'libpod-*'; ls /run/sagong-runtime"))
    told("podman", began)


def check_gone(left: str) -> None:
    """No scope of podman's, its monitor's included, and no container of ours."""
    assert left.split() == ["empty", "filters"]


def as_user(machine: Machine, command: str) -> str:
    """What a command says that a user gives; podman leaves a process that keeps its streams."""
    said = ">/tmp/said 2>&1 </dev/null"
    return machine.run(f"{USER} {command} {said} || (cat /tmp/said; exit 1); cat /tmp/said")


def test_a_users_podman_has_his_own_manager(prepared: Machine) -> None:
    began = time.monotonic()
    run = prepared.run
    run("useradd --create-home --uid 1000 user && systemctl -q unmask systemd-logind")
    run("systemctl start user@1000 && until [ -S /run/user/1000/bus ]; do sleep 0.1; done")
    as_user(prepared, "podman import -q /opt/box.tar box")
    began = told("a user with an image", began)
    limits = "--memory 64m --pids-limit 50"
    name = as_user(
        prepared, f"podman run -d --network none {limits} --name one box sleep 1000"
    ).split()[-1]
    scope = f"user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{name}.scope"
    assert run(f"cd /sys/fs/cgroup/{scope} && cat memory.max pids.max").split() == [
        str(64 << 20),
        "50",
    ]
    shown = as_user(prepared, f"systemctl --user show -p MemoryMax libpod-{name}.scope")
    assert shown == f"MemoryMax={64 << 20}\n"
    assert as_user(prepared, "podman exec one cat /proc/self/cgroup") == "0::/\n"
    as_user(prepared, "podman stop --time 0 one")
    as_user(prepared, "podman rm one")
    left = as_user(prepared, "systemctl --user list-units --all --no-legend libpod-*")
    check_gone(left + run("ls /run/user/1000/sagong-runtime"))
    told("a user's podman", began)
