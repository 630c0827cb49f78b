"""The example of an appliance, its files as they are, where only its own directory can be written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.appliance.sealed import Sealed, sealed
from tests.system.platform.rig import wait_for

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def box() -> Iterator[Sealed]:
    with sealed() as running:
        running.start()
        for name in ("web-box", "clock-box"):
            running.wait(f"static pod default/{name} is Running")
        yield running


def processes(box: Sealed) -> list[int]:
    """All of the platform."""
    status = box.status()
    serving = [process for unit in status.units for process in unit.processes]
    return [process.pid for process in [*status.others, *serving] if process.pid]


def sockets(pid: int) -> set[str]:
    """Inodes of a process's sockets."""
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
        if target.startswith("socket:"):
            found.add(target[8:-1])
    return found


def listens(pid: int) -> bool:
    """Whether anybody can connect to a process; one that has fallen asleep meanwhile is none."""
    try:
        return bool(sockets(pid) & listening(pid))
    except (FileNotFoundError, ProcessLookupError):
        return False


def listening(pid: int) -> set[str]:
    """Inodes of all TCP sockets that listen in a process's network namespace."""
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
    ]
    return {fields[9] for fields in lines if fields[3] == "0A"}


def test_the_image_comes_from_its_archive_and_the_pod_is_probed(box: Sealed) -> None:
    assert "busybox.tar: loaded image sagong.test/busybox:latest" in box.node_log
    assert "Unhealthy" not in box.node_log
    box.wait("static pod default/web-box: Started")
    try:
        wait_for(lambda: "/index.html" in box.pod_log("web-box"), 90)
    except AssertionError:
        raise AssertionError(f"not probed: {box.pod_log('web-box')}\n{box.logs()}") from None
    # The container from a file says the time.
    wait_for(lambda: re.search(r"\d{4}", box.pod_log("clock-box")), 60)


def test_nothing_listens_and_there_is_no_api(box: Sealed) -> None:
    pids = processes(box)
    assert len(pids) > 8
    assert [pid for pid in pids if listens(pid)] == []
    assert list(box.root.rglob("docker.sock")) == []
    assert not (box.paths.etc / "kubeconfig").exists()


def test_a_changed_file_is_followed_and_a_broken_one_hurts_nobody(box: Sealed) -> None:
    directory = box.paths.etc / "manifests"
    broken = directory / "other.yaml"
    broken.write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: other}\nspec: {containers: 3}\n")
    box.wait(f"{broken}:4: ")
    web = directory / "web.yaml"
    web.write_text(web.read_text().replace("memory: 16Mi", "memory: 24Mi"))
    box.wait("static pod default/web-box has ended")
    box.wait("static pod default/web-box is Running", count=2)
    assert "clock-box has ended" not in box.node_log
    broken.unlink()


def test_a_second_start_loads_nothing_and_runs_the_same(box: Sealed) -> None:
    store = box.paths.data / "plugins" / "image_overlay"
    before = sorted(p for p in store.rglob("*") if "layers" in p.parts or "content" in p.parts)
    running = box.node_log.count("is Running")
    box.run("down", "--containers")
    box.start()
    box.wait("is Running", count=running + 2)
    assert box.node_log.count("loaded image") == 1
    after = sorted(p for p in store.rglob("*") if "layers" in p.parts or "content" in p.parts)
    assert after == before
