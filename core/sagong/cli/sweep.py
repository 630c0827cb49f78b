"""What `sagong down --all` takes away when all processes have ended: mounts, directories, cgroups."""

from __future__ import annotations

import shutil
import sys

from sagong.config import Paths
from sagong.linux import mounts, syscalls
from sagong.linux.cgroup import CONTROLLERS, Cgroup, layout_of_machine

__all__ = ["sweep"]

_MNT_DETACH = 2


def sweep(paths: Paths) -> None:
    """Unmount everything below the run directory, then delete the run directory."""
    below = f"{paths.run}/"
    targets = [e.target for e in mounts.mount_table() if e.target.startswith(below)]
    for target in sorted(targets, key=len, reverse=True):
        try:
            syscalls.umount(target, _MNT_DETACH)
        except OSError:
            continue  # it went with another one
    shutil.rmtree(paths.run, ignore_errors=True)
    layout = layout_of_machine()
    for path in (f"{paths.cgroup}-plugins", paths.cgroup):
        try:
            Cgroup(layout, path, (*CONTROLLERS, "unified")).remove()
        except (OSError, TimeoutError) as error:
            print(f"control group {path} stays: {error}", file=sys.stderr)
