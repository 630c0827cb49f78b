"""A platform inside another program."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import sagong
from sagong.contracts.kernel import StatusQuery
from sagong.contracts.scheduler import Question, Scheduler
from sagong.embedding import configuration
from sagong.errors import FailedPrecondition, InvalidArgument
from tests.system.instance import REPOSITORY, environment


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory that plugins' uids may reach; short, as sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="sgt-", dir="/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def test_units_are_written_as_toml() -> None:
    units = {"a-b": {"plugin": 'x"y', "settings": {"n": 1, "on": True, "names": ["é", "\n"]}}}
    read = tomllib.loads(configuration("bare", units))
    assert read == {"profile": "bare", "units": units}


@pytest.mark.root
def test_the_example_runs(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "examples/04-embedding/box.py"), str(root)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Verdict(placements=())") == 2
    assert "serves after" in done.stdout
    assert not (root / "run").exists()


@pytest.mark.root
async def test_it_stays_if_it_shall_and_is_found_again(root: Path) -> None:
    units = {"scheduler": {"plugin": "scheduler_binpack"}}
    async with sagong.platform(root, units=units, stay=True) as box:
        before = await box.kernel.status(StatusQuery())
    async with sagong.platform(root, units=units) as box:
        after = await box.kernel.status(StatusQuery())
        assert after.units[0].processes[0].pid == before.units[0].processes[0].pid
        scheduler = await box.use(Scheduler)
        assert (await scheduler.place(Question(pods=(), nodes=()))).placements == ()
    assert not (root / "run").exists()


@pytest.mark.root
async def test_what_does_not_come_up_leaves_nothing(root: Path) -> None:
    units = {"scheduler": {"plugin": "scheduler_binpack", "settings": {"nonsense": 1}}}
    with pytest.raises(FailedPrecondition, match=r"settings\.nonsense: no such key"):
        async with sagong.platform(root, units=units, seconds=60.0):
            pass
    assert not (root / "run").exists()


@pytest.mark.root
async def test_what_is_wrong_is_said_before_anything_starts(root: Path) -> None:
    with pytest.raises(InvalidArgument, match="colour: no such key"):
        async with sagong.platform(root, units={"scheduler": {"plugin": "x", "colour": "red"}}):
            pass
    (root / "etc/sagong.toml").write_text('profile = "bare"\n')
    with pytest.raises(FailedPrecondition, match="written by somebody else"):
        async with sagong.platform(root):
            pass
    assert not (root / "run").exists()


def test_importing_sagong_imports_next_to_nothing() -> None:
    code = "import sagong, sys; print(sorted(m for m in sys.modules if m.startswith('sagong.')))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
