"""What the tests mount is unmounted, also when they are killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.system.instance import environment

pytestmark = pytest.mark.root

SCRIPT = """
import os, signal, sys
from pathlib import Path
from tests.small_disk import small_disk
with small_disk(Path(sys.argv[1]), "1m"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_disk_of_a_test_that_was_killed_is_unmounted(tmp_path: Path) -> None:
    """A file system in a file stayed mounted below /tmp when a test had no time left."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    assert subprocess.run(command, env=environment(), check=False).returncode == -9
    limit = time.monotonic() + 60
    while str(tmp_path) in Path("/proc/self/mounts").read_text():
        assert time.monotonic() < limit
        time.sleep(0.05)
