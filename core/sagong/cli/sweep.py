"""What `sagong down` ends with --containers, and what it takes away with --all: mounts, cgroups, …"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

from sagong.config import Paths
from sagong.linux import mounts, syscalls
from sagong.linux.cgroup import CONTROLLERS, Cgroup, layout_of_machine

__all__ = ["end_containers", "sweep"]

_MNT_DETACH = 2


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
