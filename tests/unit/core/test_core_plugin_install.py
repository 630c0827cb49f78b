"""What `sagong plugin install` says when pip fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from sagong.cli import main
from sagong.cli.plugin import reason
from sagong.config import Paths
from sagong.errors import NotFound
from sagong.shelf import Record, Shelf

SILENT_INDEX = """
  error: subprocess-exited-with-error
  × pip subprocess to install build dependencies did not run successfully.
  │ exit code: 1
  ╰─> [7 lines of output]
      WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(…)'
      ERROR: Could not find a version that satisfies the requirement hatchling>=1.25
      ERROR: No matching distribution found for hatchling>=1.25
      [end of output]

  note: This error originates from a subprocess, and is likely not a problem with pip.
"""


def test_the_errors_of_pips_children_are_told_and_that_an_index_is_silent() -> None:
    said = reason(SILENT_INDEX)
    assert "No matching distribution found for hatchling>=1.25" in said
    assert "its index does not answer" in said
    assert "note:" not in said
    assert "index" not in reason(SILENT_INDEX.replace("connection broken by", ""))


def test_what_says_no_error_is_told_by_its_last_lines() -> None:
    assert reason("one\ntwo\n\nthree\nfour\nfive\n") == "two; three; four; five"


def installed(number: int, **changed: str) -> Record:
    """What the same wheel is after its installation into one environment or another."""
    site = "lib/python3.11/site-packages"
    files = {
        "pyvenv.cfg": f"home {number}",
        "bin/tool": f"shebang {number}",
        f"{site}/zz-sagong.pth": f"places {number}",
        f"{site}/own/__init__.py": "code",
        f"{site}/own/__pycache__/__init__.cpython-311.pyc": f"time {number}",
        f"{site}/own-1.dist-info/METADATA": "name",
        f"{site}/own-1.dist-info/RECORD": f"list {number}",
        f"{site}/own-1.dist-info/direct_url.json": f"from {number}",
    }
    files |= {f"{site}/{path}": digest for path, digest in changed.items()}
    return Record(
        name="own", version="1", package="own", home=f"/{number}", directory=f"/{number}/{site}/own",
        source="own.whl", installed=float(number), files=files,
    )  # fmt: skip


def test_the_same_wheel_has_the_same_digest_wherever_it_is_installed() -> None:
    assert installed(1).digest == installed(2).digest
    assert installed(1).digest != installed(2, **{"own/__init__.py": "other code"}).digest
    assert installed(1).digest != installed(2, **{"own/more.py": "more"}).digest
    later = {p.replace("3.11", "3.13"): d for p, d in installed(1).files.items()}
    assert msgspec.structs.replace(installed(1), files=later).digest == installed(1).digest


@pytest.mark.root
def test_a_hook_that_a_unit_is_to_load_is_not_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/sagong.toml").write_text('[units.docker]\nhooks = ["guard"]\n')
    assert main(["--root", str(tmp_path), "plugin", "remove", "guard"]) == 1
    said = capsys.readouterr().err
    assert "guard is a hook of docker" in said and "`sagong swap docker`" in said


def test_who_asks_for_what_is_not_there_is_told_what_is(tmp_path: Path) -> None:
    """`sagong swap scheduler perl` finds scheduler_perl, `sagong plugin remove perl` does not."""
    shelf = Shelf(Paths.below(tmp_path))
    with pytest.raises(NotFound, match="plugin perl was not installed here; those that were: none"):
        shelf.remove("perl")
    shelf.place("own")
    shelf.put(installed(1))
    with pytest.raises(NotFound, match="those that were: own"):
        shelf.remove("perl")


MANIFEST = """
[plugin]
name = "{name}"
version = "1"
summary = "of a test"
class = "{name}:Class"
[provides]
scheduler = 1
"""


@pytest.mark.root
def test_two_installations_at_once_follow_each_other(tmp_path: Path) -> None:
    """The second one made its environment where the first one's was, and took it away."""
    running = []
    for name in ("one", "two", "three"):
        package = tmp_path / name
        package.mkdir()
        (package / "plugin.toml").write_text(MANIFEST.format(name=name))
        (package / "__init__.py").write_text("class Class: ...\n")
        command = [sys.executable, "-m", "sagong.cli", "--root", str(tmp_path / "root"), "plugin"]
        running.append(
            subprocess.Popen([*command, "install", str(package)], stderr=subprocess.PIPE, text=True)
        )
    for process in running:
        assert process.communicate()[1] == ""
        assert process.returncode == 0
