"""A launcher that can't listen for want of room says so in a line; its kernel tries again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.small_disk import small_disk
from tests.system.chaos.faults import no_inodes
from tests.system.instance import environment

pytestmark = pytest.mark.root


def test_a_launcher_without_room_for_its_socket_says_so_in_a_line(tmp_path: Path) -> None:
    with small_disk(tmp_path, "1m"):
        for name in ("root", "containers", "s"):
            (tmp_path / name).mkdir()
        with no_inodes(tmp_path):
            program = (
                "import sys; from sagong_runtime_linux.launcher import main; main(sys.argv[1])"
            )
            done = subprocess.run(
                [sys.executable, "-c", program, str(tmp_path)],
                env=environment(),
                capture_output=True,
                text=True,
                timeout=60,
            )
    place = f"{tmp_path}/launcher.sock"
    said = f"sagong-launcher: listening at {place}: no space left on device; make room there\n"
    assert (done.returncode, done.stderr) == (1, said)
