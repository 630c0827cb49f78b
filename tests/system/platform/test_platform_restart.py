"""Down and up, and what a reboot leaves: restart policies hold, nothing that ran is forgotten.

The reboot itself is in `tests/system/vm`; here its effect on the platform is made by hand.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container
from tests import sample_image
from tests.system.instance import Instance, instance

from sagong.cli.sweep import sweep

pytestmark = pytest.mark.root

IMAGE = sample_image.NAME
SLEEP = ["sh", "-c", 'trap "exit 0" TERM; sleep 1000000 & wait']
POLICIES = {
    "always": "always",
    "always-stopped": "always",
    "unless": "unless-stopped",
    "unless-stopped": "unless-stopped",
    "on-failure": "on-failure",
    "plain": "no",
}


class Engine:
    """An instance and the Docker SDK on it."""

    def __init__(self, running: Instance) -> None:
        self.running = running
        self.client = docker.DockerClient(base_url=f"unix://{running.paths.run}/docker.sock")

    def start(self, name: str, policy: str, command: list[str] = SLEEP) -> Container:
        """A container in the background."""
        return self.client.containers.run(
            IMAGE, command, name=name, detach=True, restart_policy={"Name": policy}
        )

    def begin(self) -> None:
        """One container of every policy, and two stopped by hand."""
        for name, policy in POLICIES.items():
            self.start(name, policy)
        for name in ("always-stopped", "unless-stopped"):
            self.client.containers.get(name).stop(timeout=5)

    def names(self) -> set[str]:
        """What runs."""
        return {container.name for container in self.client.containers.list()}

    def wait_running(self, wanted: set[str]) -> None:
        """Wait until exactly these run; a moment later still."""
        limit = time.monotonic() + 60
        while self.names() != wanted:
            assert time.monotonic() < limit, (self.names(), self.running.logs())
            time.sleep(0.05)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    sample = sample_image.build(tmp_path)
    with instance('profile = "docker"\n') as running:
        found = Engine(running)
        with contextlib.closing(found.client):
            found.client.images.load(sample.docker_archive.read_bytes())
            yield found


def test_restart_policies_hold_over_a_reboot(engine: Engine) -> None:
    engine.begin()
    paths = engine.running.paths
    engine.running.run("down", "--containers")
    limit = time.monotonic() + 60
    # Who was killed is there until somebody has reaped him.
    while left := [p for p in Path("/proc").glob("[0-9]*/cgroup") if paths.cgroup in _text(p)]:
        assert time.monotonic() < limit, left
        time.sleep(0.05)
    sweep(paths)
    engine.running.run("up")
    engine.wait_running({"always", "always-stopped", "unless", "on-failure"})
    plain = engine.client.containers.get("plain")
    plain.reload()
    assert plain.attrs["State"]["ExitCode"] == 255
    assert plain.attrs["State"]["Status"] == "exited"


def test_containers_go_on_over_down_and_up(engine: Engine) -> None:
    engine.begin()
    before = {c.name: c.attrs["State"]["Pid"] for c in engine.client.containers.list()}
    assert set(before) == {"always", "unless", "on-failure", "plain"}
    engine.running.run("down")
    engine.running.run("up")
    engine.wait_running(set(before))
    after = {c.name: c.attrs["State"]["Pid"] for c in engine.client.containers.list()}
    assert after == before


def test_a_pending_restart_survives_the_end_of_node(engine: Engine) -> None:
    crashing = engine.start("crashing", "always", ["false"])
    limit = time.monotonic() + 60
    while crashing.attrs["RestartCount"] < 4:
        assert time.monotonic() < limit
        time.sleep(0.05)
        crashing.reload()
    engine.running.run("restart", "node")
    engine.running.run("swap", "node", "node")
    seen = crashing.attrs["RestartCount"]
    limit = time.monotonic() + 60
    while crashing.attrs["RestartCount"] <= seen + 1:
        assert time.monotonic() < limit, crashing.attrs["State"]
        time.sleep(0.1)
        crashing.reload()


def test_down_takes_away_what_runs_without_the_platform(engine: Engine) -> None:
    engine.begin()
    prefix = engine.running.paths.prefix
    engine.running.run("down")
    assert _links(prefix)
    engine.running.run("down", "--all")
    assert not _links(prefix)
    assert not engine.running.paths.run.exists()
    assert str(engine.running.root) not in Path("/proc/self/mountinfo").read_text()


def _links(prefix: str) -> list[str]:
    """Its interfaces: pairs by their names, bridges by what they say of themselves."""
    links = Path("/sys/class/net").iterdir()
    mark = f"sagong {prefix} "
    return [p.name for p in links if p.name.startswith(f"{prefix}v") or mark in _alias(p)]


def _alias(link: Path) -> str:
    return _text(link / "ifalias")


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
