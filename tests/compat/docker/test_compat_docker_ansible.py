"""Ansible's community.docker against the whole engine: a play whose second run changes nothing.

Its modules compare what inspection shows with what was asked for, field by field.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.compat.docker.clients import CLIENTS
from tests.compat.docker.docker_engine import IMAGE, Engine

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(500),
    pytest.mark.skipif(not shutil.which("ansible-playbook"), reason="needs ansible-playbook"),
]

_FETCHED = CLIENTS / "ansible" / "usr/lib/python3/dist-packages"
_INSTALLED = ("~/.ansible/collections", "/usr/share/ansible/collections")
_STRICT = {"comparisons": {"*": "strict"}, "image": IMAGE}
_SLEEP = {"command": ["sleep", "600"], "init": True}
_FULL: dict[str, Any] = {
    **_STRICT,
    "name": "full",
    "command": ["sleep", "600"],
    "init": True,
    "capabilities": ["NET_ADMIN"],
    "cap_drop": ["MKNOD"],
    "cgroupns_mode": "host",
    "cpu_period": 100000,
    "cpu_quota": 50000,
    "cpu_shares": 512,
    "cpuset_cpus": "0",
    "device_cgroup_rules": ["c 1:3 rwm"],
    "devices": ["/dev/null:/dev/nil:rwm"],
    "dns_opts": ["ndots:2"],
    "dns_search_domains": ["a.b"],
    "dns_servers": ["1.2.3.4"],
    "domainname": "dom.x",
    "entrypoint": ["/bin/sh", "-c", 'exec "$@"', "x"],
    "env": {"A": "b", "N": "1", "Q": 'x y="z"'},
    "etc_hosts": {"h1": "1.2.3.4", "h6": "fe80::1"},
    "exposed_ports": ["80", "81/udp", "90-92"],
    "groups": ["5", "6"],
    "healthcheck": {"test": ["CMD", "true"], "interval": "1m30s", "timeout": "5s", "retries": 2},
    "hostname": "hh",
    "interactive": True,
    "ipc_mode": "shareable",
    "labels": {"l": "m", "a.b/c": "d e"},
    "log_driver": "json-file",
    "log_options": {"max-size": "1m", "max-file": "3"},
    "mac_address": "02:42:0a:58:00:99",
    "memory": "64M",
    "memory_reservation": "32M",
    "memory_swap": "128M",
    "mounts": [
        {"type": "volume", "source": "vol", "target": "/mv", "read_only": True},
        {"type": "tmpfs", "target": "/mt", "tmpfs_size": "1M", "tmpfs_mode": "1700"},
        {"type": "bind", "source": "/usr/share", "target": "/mb", "read_only": True},
    ],
    "networks": [
        {"name": "net", "ipv4_address": "10.88.0.200", "aliases": ["al1", "al2"]},
        {"name": "other"},
    ],
    "network_mode": "net",
    "oom_score_adj": 10,
    "pids_limit": 100,
    "published_ports": ["127.0.0.1::80", "127.0.0.1::81/udp"],
    "read_only": True,
    "restart_policy": "on-failure",
    "restart_retries": 3,
    "runtime": "runc",
    "security_opts": ["no-new-privileges:true", "label=disable"],
    "shm_size": "32M",
    "stop_signal": "SIGINT",
    "stop_timeout": 1,
    "sysctls": {"net.ipv4.ip_forward": "1"},
    "tmpfs": ["/t:size=1m", "/t2"],
    "ulimits": ["nofile:100:200", "core:0"],
    "user": "0:0",
    "userns_mode": "host",
    "volumes": ["vol:/v:rw", "/usr/share:/hs:ro", "/anonymous"],
    "working_dir": "/tmp",
}
_POOL = {"subnet": "10.88.0.0/24", "gateway": "10.88.0.2", "iprange": "10.88.0.128/25"}
_TASKS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("docker_network", {"name": "other", "internal": True}),
    ("docker_network", {"name": "net", "ipam_config": [_POOL], "labels": {"a": "b"}}),
    ("docker_volume", {"name": "vol", "labels": {"x": "y"}, "recreate": "options-changed"}),
    ("docker_image_tag", {"name": IMAGE, "repository": ["tagged/by:ansible"]}),
    ("docker_container", {**_STRICT, **_SLEEP, "name": "least"}),
    ("docker_container", {**_FULL}),
    (
        "docker_container",
        {
            **_STRICT,
            "name": "joined",
            "command": ["sleep", "600"],
            "network_mode": "container:least",
            "pid_mode": "container:least",
            "volumes_from": ["full"],
        },
    ),
    ("docker_container", {**_STRICT, "name": "made", "state": "stopped"}),
)


def _play(place: Path, engine: Engine) -> Path:
    host = {"docker_host": f"unix://{engine.socket}"}
    tasks = [{f"community.docker.{name}": {**host, **given}} for name, given in _TASKS]
    path = place / "play.json"
    path.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    return path


def _ansible(home: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "ANSIBLE_HOME": str(home),
        "ANSIBLE_COLLECTIONS_PATH": os.pathsep.join([str(_FETCHED), *_INSTALLED]),
        "LC_ALL": "C.UTF-8",
    }
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)


def _run(play: Path) -> subprocess.CompletedProcess[str]:
    command = ["ansible-playbook", "-i", "localhost,", "-c", "local", "--diff"]
    command += ["-e", f"ansible_python_interpreter={sys.executable}", str(play)]
    return _ansible(play.parent, *command)


def _need_collection(home: Path) -> None:
    listed = _ansible(home, "ansible-doc", "-t", "module", "-l", "community.docker")
    if "community.docker.docker_image_tag" not in listed.stdout:
        pytest.skip("needs Ansible's collection community.docker (packaging/clients fetches it)")


def test_a_second_run_changes_nothing(docker: Engine, tmp_path: Path) -> None:
    _need_collection(tmp_path)
    play = _play(tmp_path, docker)
    first, second = _run(play), _run(play)
    docker.docker("rmi", "tagged/by:ansible")
    assert first.returncode == 0 and f"changed={len(_TASKS)} " in first.stdout, first.stdout
    assert second.returncode == 0 and "changed=0 " in second.stdout, second.stdout
