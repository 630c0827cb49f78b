"""What `sagong down` ends with --containers, and takes away with --all: who does not end, mounts, …"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from sagong.config import Paths
from sagong.linux import mounts, syscalls
from sagong.linux.cgroup import CONTROLLERS, Cgroup, layout_of_machine

__all__ = ["end_containers", "end_platform", "sweep"]

_MNT_DETACH = 2
_KILL_SECONDS = 10.0
_WATCHERS = ("sagong-launcher", "sagong-monitor", "sagong-nursery")


def end_containers(paths: Paths, seconds: float) -> None:
    """SIGTERM to the first process of each container; SIGKILL to what is left after `seconds`.

    The platform is down, so nobody starts them again: whoever brings it up does, by their policies.
    """
    group = Cgroup(layout_of_machine(), paths.cgroup, (*CONTROLLERS, "unified", "named"))
    for pid in group.pids():
        if _is_first(pid):
            _signal(pid, signal.SIGTERM)
    limit = time.monotonic() + seconds
    while group.pids() and time.monotonic() < limit:
        time.sleep(0.05)
    group.kill()


def end_platform(paths: Paths, *, everybody: bool = False) -> set[str]:
    """Kill what is left of the platform itself; the names of whom. Those that watch containers write
    down how they end, and are left to do so unless it is for `everybody`.
    """
    names: set[str] = set()
    limit, quiet = time.monotonic() + _KILL_SECONDS, 0
    # While the list is read one may fork another, and end: twice nothing is nothing.
    while quiet < 2 and time.monotonic() < limit:
        found = {
            pid: name
            for pid, name in _platform(paths)
            if everybody or not name.startswith(_WATCHERS)
        }
        for pid in found:
            _signal(pid, signal.SIGKILL)
        names |= set(found.values())
        quiet = 0 if found else quiet + 1
        time.sleep(0.05)
    return names


def _platform(paths: Paths) -> Iterator[tuple[int, str]]:
    """Processes and their names, by what each was given as standard error.

    Titles, arguments and directories change in a process's life; that does not, and is its children's
    from the fork on. Containers have FIFOs and terminals (ADR 301).
    """
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{number}/fd/2").startswith(f"{paths.run}/log/"):
                yield int(number), Path(f"/proc/{number}/comm").read_text().strip()
        except OSError:
            continue  # it has ended


def _is_first(pid: int) -> bool:
    """Whether it is the first process of a pid namespace other than ours."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    numbers = next(row for row in status.splitlines() if row.startswith("NSpid:")).split()
    return len(numbers) > 2 and numbers[-1] == "1"


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def sweep(paths: Paths) -> None:
    """Unmount everything below the run directory, then delete the run directory, if it is one."""
    if Path(paths.run, "kernel").is_dir():
        _clear(paths)
    layout = layout_of_machine()
    for path in (*layout.groups(paths.unit_group("*", "*")), paths.cgroup):
        try:
            Cgroup(layout, path, (*CONTROLLERS, "unified", "named")).remove()
        except (OSError, TimeoutError) as error:
            print(f"control group {path} stays: {error}", file=sys.stderr)


def _clear(paths: Paths) -> None:
    below = f"{paths.run}/"
    targets = [e.target for e in mounts.mount_table() if e.target.startswith(below)]
    for target in sorted(targets, key=len, reverse=True):
        try:
            syscalls.umount(target, _MNT_DETACH)
        except OSError:
            continue  # it went with another one
    shutil.rmtree(paths.run, ignore_errors=True)
