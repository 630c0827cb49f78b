"""A keeper that a supervisor (systemd) starts: notifies it, is replaced without a new kernel."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sagong.keeper import START
from tests.system.instance import Instance, environment, instance

pytestmark = pytest.mark.root

CONFIGURATION = 'profile = "bare"\n'
TWO_UNITS = """
[units.scheduler]
plugin = "scheduler_moody"
[units.metrics]
plugin = "metrics_cgroup"
idle_seconds = 0.0
"""


class Supervisor:
    """Starts keepers as systemd would, and hears what they notify."""

    def __init__(self, running: Instance) -> None:
        self.running = running
        self._address = str(running.root / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._address)
        self._socket.settimeout(60.0)

    def start(self) -> subprocess.Popen[bytes]:
        """A keeper of the instance."""
        command = [sys.executable, *START, "--supervised"]
        command += ["--run", str(self.running.paths.run), "--root", str(self.running.root)]
        return subprocess.Popen(command, env={**environment(), "NOTIFY_SOCKET": self._address})

    def wait_ready(self) -> list[str]:
        """All notifications up to READY."""
        return self.heard_until("READY=1\n")

    def heard_until(self, beginning: str) -> list[str]:
        """All notifications up to one that begins so."""
        heard = [self._socket.recv(4096).decode()]
        while not heard[-1].startswith(beginning):
            heard.append(self._socket.recv(4096).decode())
        return heard


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    with instance(CONFIGURATION) as running:
        supervisor = Supervisor(running)
        yield supervisor
        supervisor._socket.close()


def kernel_of(running: Instance) -> int:
    """The kernel's pid."""
    running.wait_ready()
    return running.pid("kernel")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit, what
        time.sleep(0.02)


def test_a_supervised_keeper_takes_the_place_of_one_that_is_not(supervisor: Supervisor) -> None:
    running = supervisor.running
    kernel = kernel_of(running)
    before = int((running.paths.run / "keeper.pid").read_text())
    keeper = supervisor.start()
    supervisor.wait_ready()
    assert int((running.paths.run / "keeper.pid").read_text()) == keeper.pid != before
    assert kernel_of(running) == kernel
    running.run("down")
    assert keeper.wait(60) == 0


def test_a_killed_one_is_followed_by_the_supervisors_next(supervisor: Supervisor) -> None:
    running = supervisor.running
    kernel = kernel_of(running)
    for _ in range(3):
        keeper = supervisor.start()
        supervisor.wait_ready()
        keeper.send_signal(signal.SIGKILL)
        assert keeper.wait(60) == -signal.SIGKILL
    last = supervisor.start()
    supervisor.wait_ready()
    assert kernel_of(running) == kernel
    os.kill(kernel, signal.SIGKILL)
    supervisor.wait_ready()
    assert kernel_of(running) != kernel
    running.run("down")
    assert last.wait(60) == 0


def test_without_its_supervisor_the_kernel_starts_one_itself(supervisor: Supervisor) -> None:
    running = supervisor.running
    kernel = kernel_of(running)
    keeper = supervisor.start()
    supervisor.wait_ready()
    keeper.kill()
    keeper.wait(60)
    file = running.paths.run / "keeper.pid"
    wait_until(
        lambda: file.read_text().strip() not in ("", str(keeper.pid)), "no other keeper came"
    )
    assert kernel_of(running) == kernel


def test_sigterm_stops_the_platform(supervisor: Supervisor) -> None:
    kernel = kernel_of(supervisor.running)
    keeper = supervisor.start()
    supervisor.wait_ready()
    keeper.terminate()
    assert keeper.wait(60) == 0
    assert not Path(f"/proc/{kernel}/exe").exists()  # a zombie, if its first parent was killed


def test_ready_is_said_when_all_is_ready_and_before_that_what_is_late() -> None:
    with instance(CONFIGURATION) as running:
        running.run("down")
        data = running.paths.data / "plugins" / "scheduler_moody"
        data.mkdir(parents=True, exist_ok=True)
        (data / "mood").write_text("slow")
        (running.root / "etc" / "sagong.toml").write_text(CONFIGURATION + TWO_UNITS)
        supervisor = Supervisor(running)
        keeper = supervisor.start()
        heard = supervisor.heard_until("EXTEND_TIMEOUT_USEC=")
        (data / "mood").write_text("well")
        heard += supervisor.wait_ready()
        assert heard[0] == "STATUS=starting the kernel"
        assert heard[1] == "STATUS=waiting for scheduler, metrics"
        progress = "EXTEND_TIMEOUT_USEC=120000000\nSTATUS=waiting for scheduler"
        assert progress in heard, heard
        assert heard[-1] == "READY=1\nSTATUS=every unit serves"
        assert running.status().ready
        running.run("down")
        assert keeper.wait(60) == 0


def test_the_directory_that_it_is_started_in_is_in_no_sandbox() -> None:
    with instance(CONFIGURATION + '[units.scheduler]\nplugin = "scheduler_binpack"\n') as running:
        running.run("down")
        command = [sys.executable, "-m", "sagong.cli", "--root", str(running.root), "up"]
        subprocess.run(command, env=environment(), cwd="/", check=True, timeout=90)
        seen = set(os.listdir(f"/proc/{running.pid('scheduler')}/root"))
        assert seen.isdisjoint({"boot", "home", "var", "sys"}), seen


def test_another_profile_than_the_one_that_runs_is_refused() -> None:
    """It said "runs already", and who asked for another one had what there was."""
    with instance(CONFIGURATION) as running:
        running.wait_ready()
        assert running.run("up", "--profile", "bare").returncode == 0
        other = running.run("up", "--profile", "docker", check=False)
        assert (other.returncode, other.stdout) == (1, "")
        assert "profile bare runs already; `sagong down` first" in other.stderr
