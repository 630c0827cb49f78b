"""Twenty `docker run` in flight, an open exec and a followed log: every part swapped, then killed."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest
from tests import sample_image
from tests.system.chaos.processes import Processes
from tests.system.instance import Instance, instance
from tests.system.platform.rig import (
    IMAGE,
    Checker,
    Platform,
    ended,
    needs_docker,
    settled,
    wait_footprint,
    wait_for,
)

from sagong.errors import SagongError

pytestmark = [pytest.mark.root, needs_docker]

SWAPPED = ("runtime", "network", "image", "state-local", "docker", "node", "volume", "metrics")
# The zygote comes back when it is needed, so it is killed before the kernel that would need it.
KILLED = (*SWAPPED, "zygote", "runtime-companion", "kernel", "keeper")
LIFE = 3_000_000  # of a container, in microseconds
COUNT = "i=0; while :; do echo $i; i=$((i+1)); usleep 50000; done"
STATE = "{{.State.Pid}} {{.State.StartedAt}} {{.State.Running}}"
# Twenty that begin together would have more namespaces kept in store than there were before.
CONFIGURATION = """
profile = "docker"
[units.network.settings]
pool_most = 4
"""


class Steady:
    """A container that counts, its log followed, and a dialogue with an exec in it."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        platform("docker", "run", "-d", "--name", "steady", IMAGE, "sh", "-c", COUNT)
        self._born = platform("docker", "inspect", "-f", STATE, "steady")
        self.follow()
        self.talk()

    def follow(self) -> None:
        """Begin to follow the log."""
        self.seen: list[int] = []
        self.log = self._platform.start("docker", "logs", "-f", "steady")
        threading.Thread(target=self._read, args=(self.log, self.seen), daemon=True).start()

    def talk(self) -> None:
        """Begin a dialogue."""
        self.exec = self._platform.start("docker", "exec", "-i", "steady", "cat")

    def answers(self) -> bool:
        """Whether the dialogue goes on."""
        assert self.exec.stdin is not None and self.exec.stdout is not None
        try:
            self.exec.stdin.write(b"word\n")
            self.exec.stdin.flush()
        except OSError:
            return False
        return self.exec.stdout.readline() == b"word\n"

    def check(self) -> None:
        """It is the same container, it counts on, and no line is lost or told twice."""
        assert self._platform("docker", "inspect", "-f", STATE, "steady") == self._born
        kept = [int(n) for n in self._platform("docker", "logs", "steady").split()]
        assert kept == list(range(len(kept)))
        wait_for(lambda: len(self.seen) >= len(kept))
        assert self.seen == list(range(len(self.seen)))

    def leave(self) -> None:
        """End the two clients."""
        for process in (self.log, self.exec):
            process.kill()
            process.wait()

    def end(self) -> None:
        """Take it away."""
        self.leave()
        self._platform("docker", "rm", "-f", "steady")

    @staticmethod
    def _read(process: subprocess.Popen[bytes], seen: list[int]) -> None:
        assert process.stdout is not None
        seen.extend(map(int, process.stdout))


class Runs:
    """`docker run` again and again, each with an output and an exit code of its own.

    Each container lives for a while: twenty in flight are then a steady stream of beginnings and
    ends, and not a machine without a processor left.
    """

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._numbers = itertools.count()
        self._outage = (math.inf, math.inf)
        self.cut = 0

    def __call__(self) -> None:
        """One; only what the end of the API's own process cut may fail, and must say so."""
        number, began = next(self._numbers), time.monotonic()
        code = number % 256
        script = f"usleep {LIFE}; echo {number}; exit {code}"
        done = self._platform.run("docker", "run", "--rm", IMAGE, "sh", "-c", script)
        if (done.returncode, done.stdout) == (code, f"{number}\n"):
            return
        in_flight = began < self._outage[1] and time.monotonic() > self._outage[0]
        assert in_flight and done.returncode in (1, 125) and done.stderr, (
            f"{number}: {done.returncode} instead of {code}, {done.stdout!r} {done.stderr!r}"
        )
        self.cut += 1

    @contextlib.contextmanager
    def cutting(self) -> Iterator[None]:
        """What is in flight now may be cut."""
        self._outage = (time.monotonic(), math.inf)
        yield
        self._outage = (self._outage[0], time.monotonic())


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """An engine with the sample image."""
    home = tmp_path_factory.mktemp("home")
    with instance(CONFIGURATION) as running:
        found = Platform(running, home)
        found("docker", "load", "-i", str(sample_image.build(home).docker_archive))
        yield found


@pytest.fixture
def steady(platform: Platform) -> Iterator[Steady]:
    """The container that nothing may disturb."""
    made = Steady(platform)
    try:
        yield made
    finally:
        made.end()


def listed(platform: Platform) -> None:
    """`docker ps` must always succeed, and know the container."""
    assert "steady" in platform("docker", "ps", "--format", "{{.Names}}").split()


@pytest.mark.timeout(300)
def test_swaps_fail_no_call_stop_no_container_lose_no_line(
    platform: Platform, steady: Steady
) -> None:
    with (
        Checker(Runs(platform), threads=20, pause=0) as runs,
        Checker(lambda: listed(platform), pause=0.3) as shown,
    ):
        runs.wait_answers(5)
        for unit in SWAPPED:
            platform.swap(unit)
            assert steady.answers(), unit
            runs.wait_answers(3)
    assert runs.failures == []
    assert shown.failures == []
    assert steady.log.poll() is None, "the followed log ended"
    steady.check()
    assert len(platform("docker", "ps", "-aq").split()) == 1


@pytest.mark.timeout(300)
def test_kills_fail_nothing_but_what_was_cut(platform: Platform, steady: Steady) -> None:
    before = settled(platform.running)
    runner = Runs(platform)
    with Checker(runner, threads=20, pause=0) as runs:
        runs.wait_answers(5)
        for victim in KILLED:
            _kill(platform, victim, runner, steady)
            assert steady.answers(), victim
            runs.wait_answers(3)
    assert runs.failures == []
    assert steady.log.poll() is None, "the followed log ended"
    steady.check()
    _check_left(platform, runner.cut)
    wait_footprint(platform.running, before)


def _kill(platform: Platform, victim: str, runner: Runs, steady: Steady) -> None:
    if victim != "docker":
        with Checker(lambda: listed(platform), pause=0.3) as shown:
            _kill_and_wait(platform.running, victim)
        assert shown.failures == [], victim
        return
    with runner.cutting():
        _kill_and_wait(platform.running, victim)
    steady.leave()
    steady.follow()
    steady.talk()


def _kill_and_wait(running: Instance, victim: str) -> None:
    pid = running.pid(victim)
    os.kill(pid, signal.SIGKILL)
    # The zygote comes back when it is needed.
    if victim != "zygote":
        wait_for(lambda: _serves_anew(running, victim, pid), 60)
    running.wait_ready()


def _serves_anew(running: Instance, unit: str, before: int) -> bool:
    try:
        return running.pid(unit) != before
    except (LookupError, SagongError):
        return False


def _check_left(platform: Platform, cut: int) -> None:
    """As in Docker: who was cut between create and start leaves a container that never began.

    Those that ran ended and were removed without their client.
    """
    words = ("docker", "ps", "-a", "--format", "{{.Names}} {{.State}}")
    wait_for(lambda: "running" not in platform(*words).replace("steady running", ""))
    left = [line.split() for line in platform(*words).splitlines() if line != "steady running"]
    assert all(state == "created" for _, state in left), left
    assert len(left) <= cut
    if left:
        platform("docker", "rm", *(name for name, _ in left))


def test_the_code_of_an_exec_outlives_its_monitor(platform: Platform) -> None:
    """The command was told 0: it asked before the successor had the program, or before that ended."""
    platform("docker", "run", "-d", "--name", "box", IMAGE, "sleep", "600")
    script = "touch /begun; sleep 4; exit 4"
    with ended(platform.start("docker", "exec", "box", "sh", "-c", script)) as running:
        wait_for(lambda: platform.run("docker", "exec", "box", "ls", "/begun").returncode == 0)
        for monitor in set(Processes(platform.running).monitors().values()):
            os.kill(monitor, signal.SIGKILL)
        assert running.wait(60) == 4
    platform("docker", "rm", "-f", "box")
