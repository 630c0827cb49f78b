"""A hostile plugin beside what is worth most: deputies, launcher, monitors, keeper, and services."""

from __future__ import annotations

import functools
import http.client
import os
import ssl
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.ports import free_port
from tests.system.instance import Instance, instance, local_slots
from tests.system.sandbox.test_hostile_plugin import attack, begin, log_of, said, wait

pytestmark = pytest.mark.root

CONFIGURATION = (
    local_slots("shn", "10.217.0.0/24", uid_base=61900) + "[units.docker]\n[units.hostile]\n"
)
REFUSED = {"ENOENT", "EACCES", "EPERM", "ESRCH", "EROFS"}


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    """The local slots, the Docker API, and the attacker, who may call none of them."""
    with instance(CONFIGURATION) as found:
        yield found


def sockets(running: Instance) -> list[Path]:
    """Every socket of the instance but the attacker's own and the kernel's, which all may ask."""
    run = running.paths.run
    found = [p for p in run.rglob("*") if stat.S_ISSOCK(os.lstat(p).st_mode)]
    return [p for p in found if p.parts[len(run.parts) : len(run.parts) + 2] not in OPEN]


OPEN = (("slots", "hostile"), ("kernel", "bus"))


def test_no_socket_of_others_can_be_reached(running: Instance) -> None:
    found = sockets(running)
    assert {"docker.sock"} <= {p.name for p in found}
    assert [p for p in found if "runtime_linux" in p.parts], found
    assert len(found) > 8
    facts = {f"unix {p}": str(p) for p in found}
    tried = attack(running, "connect out", port="1", abstract="sagong-nobody", **facts)
    reached = {str(p): tried[str(p)] for p in found if tried[str(p)] not in REFUSED}
    assert not reached


def test_no_file_in_others_run_directories_is_seen(running: Instance) -> None:
    run = running.paths.run
    files = [p for p in run.rglob("*") if p.is_file() and "hostile" not in p.parts]
    assert len(files) > 8, files
    tried = attack(running, "read files", **{f"read {p}": str(p) for p in files})
    assert set(tried.values()) <= REFUSED, tried
    directories = sorted({p.parent for p in files} | {run / "netns", run / "mounts", run / "log"})
    tried = attack(running, "write files", **{f"write {p}": str(p) for p in directories})
    assert set(tried.values()) <= REFUSED, tried


@pytest.mark.parametrize("who", ["keeper", "kernel", "zygote", "launcher", "deputy"])
def test_processes_above_and_beside_are_out_of_reach(running: Instance, who: str) -> None:
    pids = {
        "keeper": lambda: [running.pid("keeper")],
        "kernel": lambda: [running.pid("kernel")],
        "zygote": lambda: [running.pid("zygote")],
        "launcher": lambda: [running.pid("runtime-companion")],
        "deputy": lambda: deputies(running),
    }[who]()
    assert pids
    for pid in pids:
        tried = attack(running, "touch processes", pid=str(pid))
        assert set(tried.values()) <= REFUSED, (who, tried)
        assert Path(f"/proc/{pid}").exists()


def deputies(running: Instance) -> list[int]:
    """Both; a deputy is a child of its plugin's process."""
    found = []
    for name in ("network", "volume"):
        parent = running.pid(name)
        found += [
            int(pid)
            for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
            if b"deputy" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
    assert len(found) == 2, found
    return found


def test_all_that_was_tried_harmed_nobody(running: Instance) -> None:
    status = running.status()
    assert status.ready
    assert all(unit.restarts == 0 for unit in status.units), log_of(running, "kernel")


OUTSIDE = """
profile = "bare"
uid_base = 62000
[units.state-local]
plugin = "state_sqlite"
instance = "local"
[units.image]
plugin = "image_overlay"
[units.registry]
listens = {{ api = "tcp:127.0.0.1:{port}" }}
settings = {{ tls = {tls} }}
[units.hostile]
plugin = "hostile_outside"
"""


def answered(port: int, *, tls: bool) -> None:
    """A client of another address of the network."""
    dial: Callable[..., http.client.HTTPConnection]
    if tls:
        trusting = ssl._create_unverified_context()
        dial = functools.partial(http.client.HTTPSConnection, context=trusting)
    else:
        dial = http.client.HTTPConnection
    client = dial("127.0.0.1", port, timeout=30, source_address=("127.0.0.2", 0))
    client.request("GET", "/v2/")
    assert client.getresponse().status in (200, 401)
    client.close()


@pytest.mark.parametrize(("storm", "tls"), [("requests", False), ("handshakes", True)])
def test_who_storms_a_service_keeps_nobody_else_from_it(storm: str, tls: bool) -> None:
    """The attacker has the machine's network here; a registry listens on a port of it."""
    port = free_port()
    with instance(OUTSIDE.format(port=port, tls=str(tls).lower())) as running:
        before = running.pid("registry")
        answered(port, tls=tls)
        begin(running, storm, port=str(port))
        for _ in range(50):
            answered(port, tls=tls)
        assert running.pid("registry") == before
        if tls:  # it ends none, however slow the machine is
            wait(lambda: said(running, "registry", "connection refused"), running)
            answered(port, tls=tls)
            assert said(running, "registry", "connection refused") == 1
