"""A disk without room keeps the kernel from writing down what it decides, and from nothing else.

A plugin that needs some to begin says so, and begins when there is.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sagong.errors import SagongError
from tests.small_disk import small_disk
from tests.system.chaos.faults import no_inodes
from tests.system.instance import Instance, instance, lives

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


def test_nothing_is_left_of_one_that_could_not_be_launched(running: Instance) -> None:
    before, log = running.pid("desk"), running.paths.run / "log/kernel.log"
    with no_inodes(running.paths.run) as take:
        os.kill(before, signal.SIGKILL)
        # What it had is room for a part of what the next one needs, until that is taken, too.
        # It may come before: then there was room for all of it.
        while log.read_text().count("can't be launched") < 3:
            take()
            if pid_of(running, "desk") not in (0, before):
                break
    running.wait_ready(gone=before)
    places = (running.paths.run / "slots/desk/bus", running.paths.run / "kernel/lobbies")
    wait_until(running, lambda: [len(names(place)) for place in places] == [1, 1])


@pytest.mark.parametrize("socket", ["bus/s", "keeper"])
def test_a_kernel_that_has_no_room_for_a_socket_comes_when_there_is(
    running: Instance, socket: str
) -> None:
    keeper, before = running.pid("keeper"), running.pid("kernel")
    log = running.paths.run / "log/kernel.log"
    zygote = running.pid("zygote")
    (running.paths.run / "kernel" / socket).unlink()
    with no_inodes(running.paths.run) as take, stopped(keeper):

        def refused() -> bool:
            take()  # what the dead had open still
            return log.read_text().count("the kernel can't start") > 1

        os.kill(before, signal.SIGKILL)
        wait_until(running, lambda: not lives(before) and not lives(zygote))
        take()
        os.kill(keeper, signal.SIGCONT)
        wait_until(running, refused)
    running.wait_ready(gone=before)
    assert "Traceback" not in log.read_text()
    assert running.pid("keeper") == keeper


def test_a_keeper_that_ends_before_it_comes_is_followed_by_another(running: Instance) -> None:
    before = running.pid("keeper")
    log = running.paths.run / "log/kernel.log"
    with open(running.paths.run / "kernel/lock") as lock, ThreadPoolExecutor(1) as beside:
        # Whoever waits has it as soon as the keeper is dead; the next one finds it taken.
        taken = beside.submit(fcntl.flock, lock, fcntl.LOCK_EX)
        wait_until(running, lambda: waits_for_lock(running))
        os.kill(before, signal.SIGKILL)
        taken.result()
        wait_until(running, lambda: "no keeper has come" in log.read_text())
    wait_until(running, lambda: pid_of(running, "keeper") not in (0, before))


def names(place: Path) -> list[str]:
    """What is there of the desk."""
    found = [path.name for path in place.iterdir()]
    return [name for name in found if name.isdigit() or name.startswith("desk.")]


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that does nothing, unless it is told otherwise meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def waits_for_lock(running: Instance) -> bool:
    """Whether somebody waits for the instance's lock, see proc_locks(5)."""
    inode = (running.paths.run / "kernel/lock").stat().st_ino
    waiting = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any("->" in words and words[-3].endswith(f":{inode}") for words in waiting)


def wait_until(running: Instance, holds: Callable[[], object]) -> None:
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
