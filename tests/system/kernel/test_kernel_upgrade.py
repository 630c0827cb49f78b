"""`sagong upgrade` with other code on the disk: taken into use, or refused in the middle of it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sagong.contracts.scheduler import Scheduler
from sagong.operator import connect
from tests.system.instance import Instance, instance
from tests.system.kernel.load import QUESTION

pytestmark = pytest.mark.root

CONFIGURATION = """
profile = "bare"
[units.metrics]
plugin = "metrics_cgroup"
[units.scheduler]
plugin = "scheduler_dated"
[units.desk]
[units.greeter]
"""
MANIFEST = """
[plugin]
name = "scheduler_dated"
version = "{version}"
summary = "answers with its version"
class = "sagong_scheduler_dated:Dated"
[provides]
scheduler = 1
"""
CODE = '''
from sagong.contracts.scheduler import Placement, Verdict

class Dated:
    """Every pod to a node that is called like this version."""

    def __init__(self, host):
        {at_start}

    def place(self, question):
        return Verdict(placements=(Placement(namespace="default", name="p", node="{version}"),))
'''


def install(packages: Path, version: str, at_start: str = "pass") -> None:
    """Put this version in the place of the one that is installed, as pip does."""
    place = packages / "sagong_scheduler_dated"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    (place / "plugin.toml").write_text(MANIFEST.format(version=version))
    (place / "__init__.py").write_text(CODE.format(version=version, at_start=at_start))


@pytest.fixture
def packages() -> Iterator[Path]:
    """A directory that sandboxes show, as they show the interpreter's."""
    with tempfile.TemporaryDirectory(prefix="sagong-packages-", dir="/tmp") as place:
        Path(place).chmod(0o755)
        install(Path(place), "1.0")
        yield Path(place)


@contextlib.asynccontextmanager
async def asked(running: Instance) -> AsyncIterator[list[str]]:
    """The scheduler is asked again and again; who answered, in turn. No question may fail."""
    async with connect(running.paths) as operator:
        scheduler = await operator.use(Scheduler)
        found: list[str] = []
        stopping = asyncio.Event()

        async def ask() -> None:
            while not stopping.is_set():
                found.append((await scheduler.place(QUESTION)).placements[0].node)
                await asyncio.sleep(0.005)

        asking = asyncio.create_task(ask())
        try:
            yield found
        finally:
            stopping.set()
            await asking


async def wait_more(answers: list[str]) -> None:
    """Until some have been given from now on."""
    before = len(answers)
    while len(answers) < before + 10:
        await asyncio.sleep(0.005)


def in_turn(answers: list[str]) -> list[str]:
    """Without repetitions."""
    return [one for one, before in zip(answers, ["", *answers]) if one != before]


async def test_new_code_is_taken_into_use_while_all_is_asked(packages: Path) -> None:
    with instance(CONFIGURATION, packages=(packages,)) as running:
        running.wait_ready()
        async with asked(running) as answers:
            install(packages, "2.0.0")
            await wait_more(answers)
            assert in_turn(answers) == ["1.0"]
            told = await asyncio.to_thread(running.run, "upgrade", "--trial", "0.1")
            assert "scheduler: upgraded" in told.stdout
        assert in_turn(answers) == ["1.0", "2.0.0"]


async def test_one_that_fails_in_the_middle_changes_nothing_for_who_is_served(
    packages: Path,
) -> None:
    with instance(CONFIGURATION, packages=(packages,)) as running:
        order = [u.name for u in sorted(running.wait_ready().units, key=lambda unit: unit.rank)]
        place = order.index("scheduler")
        assert 0 < place < len(order) - 1, f"scheduler is not in the middle of {order}"
        before = {name: running.pid(name) for name in ("kernel", *order)}
        async with asked(running) as answers:
            install(packages, "2.0.0", 'raise RuntimeError("no such device")')
            told = await refused(running)
            assert "scheduler: scheduler_dated does not start: " in told
            assert "no such device" in told
            done = ", ".join(["kernel", *order[:place]])
            assert f"{done} upgraded before; all else is as it was" in told
            install(packages, "2.0.01", "this is no Python")
            assert "SyntaxError" in await refused(running, "scheduler")
        assert in_turn(answers) == ["1.0"]
        running.wait_ready()
        changed = [name for name in before if before[name] != running.pid(name)]
        assert changed == ["kernel", *order[:place]]
        # Mended, it is taken up where it was left.
        install(packages, "2.0.1")
        await asyncio.to_thread(running.run, "upgrade", "scheduler", "--trial", "0.1")
        async with asked(running) as answers:
            await wait_more(answers)
        assert in_turn(answers) == ["2.0.1"]


async def refused(running: Instance, *parts: str) -> str:
    """What an upgrade that fails says."""
    words = ("upgrade", *parts, "--trial", "0.1")
    told = await asyncio.to_thread(running.run, *words, check=False)
    assert told.returncode == 1
    return told.stderr
