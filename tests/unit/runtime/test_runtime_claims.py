"""A run's directory: whose files are at its path."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, cast

from sagong.shim.container import Container
from sagong.shim.session import Session


def begun(directory: Path) -> None:
    """What a plugin and a monitor make for a run."""
    directory.mkdir()
    (directory / "spec.json").write_text("{}")
    os.mkfifo(directory / "stdout")


def test_who_gives_up_late_leaves_what_a_later_run_has_begun(tmp_path: Path) -> None:
    """A prepared start was given up when its plugin had a successor, which ran the container."""
    directory = tmp_path / "c"
    begun(directory)
    request: dict[str, Any] = {"id": "c", "run": 1}
    container = Container(request, str(directory), cast(Any, None))
    container.claim()
    assert not container.superseded
    shutil.rmtree(directory)
    begun(directory)
    assert container.superseded
    nobody = cast(Any, None)
    session = Session(
        nobody, str(directory), {}, log=None, lifelines=nobody, on_exit=nobody, on_end=nobody
    )
    session.discard(files=not container.superseded)
    assert (directory / "stdout").exists()
    session.discard()
    assert not (directory / "stdout").exists()
    container.release()
