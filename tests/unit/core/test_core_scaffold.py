"""`sagong new-plugin` makes a repository that passes its own tests at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sagong import manifest
from sagong.cli import main
from sagong.cli.checking import source_mistakes
from sagong.contract import slot_of
from sagong.contracts import protocols

ROOT = Path(__file__).parents[3]
# Slots of strangers are among them: those of the tests.
PLACES = (ROOT / "core", ROOT / "tests/plugins")
SLOTS = sorted({slot_of(protocol).name for protocol in protocols()} - {"kernel"})


@pytest.mark.parametrize("slot", SLOTS)
def test_every_slot_has_a_beginning(slot: str, tmp_path: Path) -> None:
    assert main(["new-plugin", slot, f"my-{slot}", "--directory", str(tmp_path)]) == 0
    package = tmp_path / f"my-{slot}" / f"my_{slot}"
    found = manifest.parse((package / "plugin.toml").read_text(), where=slot)
    assert slot in found.provides
    compile((package / "__init__.py").read_text(), slot, "exec")
    for path in (tmp_path / f"my-{slot}").rglob("*"):
        if path.is_file():
            assert "$" not in path.read_text()
            assert max(map(len, path.read_text().splitlines()), default=0) <= 200, path


def passed(directory: Path, *places: Path) -> int:
    """How many tests pass there; all have to."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*PLACES, *places)))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return int(done.stdout.rpartition(" passed")[0].split()[-1])


def test_what_is_made_passes_at_once(tmp_path: Path) -> None:
    main(["new-plugin", "scheduler", "own", "--directory", str(tmp_path), "--summary", "my own"])
    assert passed(tmp_path / "own") > 30


def test_what_is_made_for_every_slot_passes(tmp_path: Path) -> None:
    """All in one run, since each is quick and pytest is not; and no manifest has a mistake."""
    for slot in SLOTS:
        main(["new-plugin", slot, f"my-{slot}", "--directory", str(tmp_path)])
        assert list(source_mistakes(tmp_path / f"my-{slot}")) == []
    places = [tmp_path / f"my-{slot}" for slot in SLOTS]
    assert passed(tmp_path, *places) > sum(len(slot_of(p).methods) for p in protocols()) / 2


def test_mistakes_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def say(*words: str) -> str:
        assert main(["new-plugin", *words, "--directory", str(tmp_path)]) != 0
        return capsys.readouterr().err

    assert "no slot nothing; there are auth" in say("nothing", "x")
    assert "lower-case letters" in say("state", "My Plugin")
    (tmp_path / "taken").mkdir()
    assert "exists already" in say("state", "taken")
