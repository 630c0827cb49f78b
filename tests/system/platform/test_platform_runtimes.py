"""The runtime is swapped for another one and back: who made a container matters to nobody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from shutil import which

import pytest
from tests.system.platform.rig import IMAGE, Checker, Platform, needs_docker, wait_for

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(400),
    needs_docker,
    pytest.mark.skipif(which("runc") is None, reason="needs runc (package runc)"),
]

# One failed check is enough.
CHECKED = ("--health-cmd", "test -e /proc/1", "--health-interval", "150ms", "--health-retries", "1")


@pytest.fixture
def names(whole: Platform) -> Iterator[list[str]]:
    """Containers that are removed whatever happens; the runtime of before is there again."""
    made: list[str] = []
    try:
        yield made
    finally:
        whole.running.run("swap", "runtime", "runtime_linux", "--quiet", check=False)
        whole.run("docker", "rm", "-f", *made)


def checked(whole: Platform, name: str) -> str:
    """A container with a health check, and from then on what is told of its health."""
    whole("docker", "run", "-d", "--name", name, *CHECKED, IMAGE, "sleep", "1000")
    wait_for(lambda: health(whole, name)["Status"] == "healthy", 60, name)
    return whole("docker", "info", "-f", "{{json .SystemTime}}").strip().strip('"')


def health(whole: Platform, name: str) -> dict[str, object]:
    """As Docker shows it."""
    found = json.loads(whole("docker", "inspect", "-f", "{{json .State.Health}}", name))
    assert isinstance(found, dict)
    return found


def probed(whole: Platform, name: str) -> None:
    """A check that has begun after now has succeeded."""
    now = whole("docker", "info", "-f", "{{json .SystemTime}}").strip().strip('"')

    def again() -> bool:
        log = health(whole, name)["Log"]
        assert isinstance(log, list)
        return any(one["Start"] > now and one["ExitCode"] == 0 for one in log)

    wait_for(again, 60, f"a check of {name}")


def test_a_checked_container_stays_healthy_over_swaps_of_its_runtime(
    whole: Platform, names: list[str]
) -> None:
    """There and back, while others come and go and are entered: nothing fails meanwhile."""
    names += ["swapped-first", "swapped-second"]
    since = checked(whole, "swapped-first")
    with (
        Checker(lambda: whole("docker", "run", "--rm", IMAGE, "true")) as ran,
        Checker(lambda: whole("docker", "exec", "swapped-first", "true")) as entered,
        Checker(lambda: whole("docker", "exec", "-i", "swapped-first", "cat", given=b"x")) as fed,
    ):
        for runtime in ("runtime_oci", "runtime_linux"):
            whole.running.run("swap", "runtime", runtime, "--quiet")
            for checker in (ran, entered, fed):
                checker.wait_answers(3)
            probed(whole, "swapped-first")
            if runtime == "runtime_oci":
                checked(whole, "swapped-second")
            probed(whole, "swapped-second")
    assert (ran.failures, entered.failures, fed.failures) == ([], [], [])
    told = ("events", "--since", since, "--until", "0s", "--filter", "event=health_status")
    assert "unhealthy" not in whole("docker", *told)
    for name in names:
        assert health(whole, name)["FailingStreak"] == 0
