"""Whoever runs instances, tests and benchmarks, leaves none behind, whatever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sagong.config import Paths
from sagong.linux.cgroup import layout_of_machine
from tests.system.instance import REPOSITORY, environment

pytestmark = pytest.mark.root

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


def living(groups: list[str]) -> list[str]:
    known = set(layout_of_machine().groups("*"))
    return [group for group in groups if group in known]


def processes(root: Path) -> list[str]:
    """Those that name this place on their command line."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(root) in place.read_text() and place.parent.name != str(os.getpid()):
                found.append(place.read_text().replace("\0", " "))
        except OSError:
            continue
    return found
