"""Twenty `docker run` in flight, an open exec and a followed log: every part swapped, then killed."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest
from tests import sample_image
from tests.system.instance import Instance, instance
from tests.system.platform.rig import IMAGE, Checker, Platform, needs_docker, wait_for

pytestmark = [pytest.mark.root, needs_docker]

SWAPPED = ("runtime", "network", "image", "state-local", "docker", "node", "volume", "metrics")
# The zygote comes back when it is needed, so it is killed before the kernel that would need it.
KILLED = (*SWAPPED, "zygote", "runtime-companion", "kernel", "keeper")
COUNT = "i=0; while :; do echo $i; i=$((i+1)); usleep 20000; done"
STATE = "{{.State.Pid}} {{.State.StartedAt}} {{.State.Running}}"


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

    def end(self) -> None:
        """Take it away."""
        for process in (self.log, self.exec):
            process.kill()
            process.communicate()
        self._platform("docker", "rm", "-f", "steady")

    @staticmethod
    def _read(process: subprocess.Popen[bytes], seen: list[int]) -> None:
        assert process.stdout is not None
        seen.extend(map(int, process.stdout))


class Runs:
    """`docker run` again and again, each with an output and an exit code of its own."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._numbers = itertools.count()
        self.cut = 0
        self.may_be_cut = False

    def __call__(self) -> None:
        """One; only while the API's own process is killed it may fail, and must say so."""
        number = next(self._numbers)
        code = number % 256
        script = f"echo {number}; exit {code}"
        done = self._platform.run("docker", "run", "--rm", IMAGE, "sh", "-c", script)
        if (done.returncode, done.stdout) == (code, f"{number}\n"):
            return
        if self.may_be_cut and done.returncode in (1, 125) and done.stderr:
            self.cut += 1
            return
        raise AssertionError(
            f"{number}: {done.returncode} instead of {code}, {done.stdout!r} {done.stderr!r}"
        )


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """An engine with the sample image."""
    home = tmp_path_factory.mktemp("home")
    with instance('profile = "docker"\n') as running:
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
        Checker(lambda: listed(platform)) as shown,
    ):
        runs.wait_answers(10)
        for unit in SWAPPED:
            platform.swap(unit)
            assert steady.answers(), unit
            runs.wait_answers(5)
    assert runs.failures == []
    assert shown.failures == []
    assert steady.log.poll() is None, "the followed log ended"
    steady.check()
    assert platform("docker", "ps", "-aq", "--filter", "name=steady").split() != []
    assert len(platform("docker", "ps", "-aq").split()) == 1


@pytest.mark.timeout(400)
def test_kills_fail_nothing_but_what_was_cut(platform: Platform, steady: Steady) -> None:
    runner = Runs(platform)
    with Checker(runner, threads=20, pause=0) as runs:
        runs.wait_answers(10)
        for victim in KILLED:
            if victim == "docker":
                # What is in flight there is cut with its connection.
                runner.may_be_cut = True
            else:
                listed_during = Checker(lambda: listed(platform)).__enter__()
            os.kill(platform.running.pid(victim), signal.SIGKILL)
            _wait_back(platform.running, victim)
            runs.wait_answers(5)
            if victim == "docker":
                time.sleep(0)
                runner.may_be_cut = False
                steady.follow()
                steady.talk()
            else:
                listed_during.__exit__()
                assert listed_during.failures == [], victim
            assert steady.answers(), victim
    assert runs.failures == []
    assert steady.log.poll() is None, "the followed log ended"
    steady.check()
    assert len(platform("docker", "ps", "-aq").split()) == 1 + runner.cut * 0


def _wait_back(running: Instance, victim: str) -> None:
    running.wait_ready(30)
    wait_for(lambda: running.pid(victim))
