"""Whoever runs instances, tests and benchmarks, leaves none behind, whatever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sagong.cli.lifecycle import end
from sagong.config import Paths
from sagong.linux.cgroup import layout_of_machine
from tests.system.instance import REPOSITORY, environment, instance

pytestmark = pytest.mark.root

CONFIGURATION = 'profile = "bare"\n[units.exporter]\nidle_seconds = 0.0\n'
SCRIPT = """
import asyncio, sys, time
from pathlib import Path
from hostile_contract import Attack, Hostile
from sagong.operator import connect
from tests.bench import machine
from tests.system.instance import instance
if sys.argv[2] == "machine":
    machine.enter()
with instance('profile = "bare"\\n[units.hostile]', Path(sys.argv[1])) as running:
    async def go():
        async with connect(running.paths) as operator:
            await (await operator.use(Hostile)).begin(Attack(name="computes"))
    asyncio.run(go())
    print("computes", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(
    ("place", "number"),
    [("here", signal.SIGKILL), ("machine", signal.SIGTERM), ("machine", signal.SIGKILL)],
)
def test_an_instance_ends_with_whoever_made_it(
    tmp_path: Path, place: str, number: signal.Signals
) -> None:
    """Nine processes that computed once outlived a test that was interrupted."""
    script, root = tmp_path / "script.py", Path(f"/tmp/sgt-left-{os.getpid()}")
    script.write_text(SCRIPT)
    root.mkdir()
    known = environment()
    known["PYTHONPATH"] += f":{REPOSITORY}"
    command = [sys.executable, str(script), str(root), place]
    with subprocess.Popen(command, env=known, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "computes\n"
        groups = list(layout_of_machine().groups(Paths.below(root).unit_group("*", "*")))
        assert groups
        running.send_signal(number)
        running.wait(60)
    limit = time.monotonic() + 60
    while left := [*processes(root), *living(groups)]:
        assert time.monotonic() < limit, left
        time.sleep(0.1)
    while root.exists():
        assert time.monotonic() < limit
        time.sleep(0.1)


def test_who_does_not_end_in_time_is_killed_by_down_with_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It said that the keeper does not end, and left the platform as it was."""
    with instance(CONFIGURATION) as running:
        running.wait_ready()
        groups = list(layout_of_machine().groups(running.paths.unit_group("*", "*")))
        known = [running.pid(name) for name in ("keeper", "kernel", "exporter", "zygote")]
        for pid in known:
            os.kill(pid, signal.SIGSTOP)
        assert end(running.paths, 0.5, everything=True, patience=1.0)
        assert not running.paths.run.exists()
        assert living(groups) == []
        # A zombie, whom nobody has reaped yet, has no program any more.
        assert not any(Path(f"/proc/{pid}/exe").exists() for pid in known)
    said = capsys.readouterr().err
    assert "not ended after 1 s, and killed: sagong-exporter, sagong-keeper, sagong-kernel" in said


def living(groups: list[str]) -> list[str]:
    known = set(layout_of_machine().groups("*"))
    return [group for group in groups if group in known]


def processes(root: Path) -> list[str]:
    """Those that name this place on their command line."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().decode(errors="replace").split("\0")
            if str(root) in " ".join(words) and place.parent.name != str(os.getpid()):
                found.append(" ".join(words))
        except OSError:
            continue
    return found
