"""A disk without room keeps the kernel from writing down what it decides, and from nothing else.

A plugin that needs some to begin says so, and begins when there is.
"""

from __future__ import annotations

import mmap
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sagong.errors import SagongError
from tests.small_disk import small_disk
from tests.system.instance import Instance, instance

pytestmark = pytest.mark.root

CONFIGURATION = """
profile = "bare"
[units.greeter]
[units.desk]
"""


@pytest.fixture
def running() -> Iterator[Instance]:
    """What it has until a reboot is on a disk of its own, and so are its data."""
    root = Path(tempfile.mkdtemp(prefix="sgt-", dir="/tmp"))
    (root / "run").mkdir()
    (root / "lib").mkdir()
    try:
        with (
            small_disk(root / "run", "32m"),
            small_disk(root / "lib", "8m"),
            instance(CONFIGURATION, root) as found,
        ):
            yield found
    finally:
        shutil.rmtree(root, ignore_errors=True)


def begin_a_page(log: Path) -> None:
    """What is said next has room, however full the disk is: its page is the log's already."""
    with log.open("ab") as file:
        file.write(b"\n" * ((1 - log.stat().st_size) % mmap.PAGESIZE))


def fill(file: Path) -> None:
    """Until nothing more fits."""
    with file.open("wb", buffering=0) as filler:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    filler.write(bytes(size))
            except OSError:
                continue


def test_who_dies_while_the_disk_is_full_comes_back_and_is_known_to_the_next_kernel(
    running: Instance,
) -> None:
    filler, before = running.paths.run / "filler", running.pid("desk")
    log = running.paths.run / "log/kernel.log"
    begin_a_page(log)
    fill(filler)
    os.kill(before, signal.SIGKILL)
    wait_until(running, lambda: "the journal can't be written" in log.read_text())
    filler.unlink()
    running.wait_ready()
    after = running.pid("desk")
    assert after != before
    journal = running.paths.run / "kernel/processes.json"
    wait_until(running, lambda: f'"pid":{after},' in journal.read_text())
    os.kill(running.pid("kernel"), signal.SIGKILL)
    running.wait_ready()
    wait_until(running, lambda: pid_of(running, "desk") == after)


def test_who_has_no_room_to_begin_says_so_in_a_line_and_begins_when_there_is(
    running: Instance,
) -> None:
    filler, before = running.paths.data / "filler", running.pid("desk")
    shutil.rmtree(running.paths.data / "plugins/desk")
    log = running.paths.run / "log/desk.log"
    fill(filler)
    os.kill(before, signal.SIGKILL)
    wait_until(running, lambda: "start failed: desk: the disk" in log.read_text())
    assert "Traceback" not in log.read_text()
    filler.unlink()
    running.wait_ready()
    assert pid_of(running, "desk") not in (0, before)


def wait_until(running: Instance, holds: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < limit, running.logs()
        time.sleep(0.1)


def pid_of(running: Instance, name: str) -> int:
    """Zero while there is none."""
    try:
        return running.pid(name)
    except (LookupError, SagongError):
        return 0
