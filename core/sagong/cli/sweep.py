"""What `sagong down --all` takes away: containers, mounts, directories of the run."""

from __future__ import annotations

import shutil
import sys

from sagong.config import Paths
from sagong.contracts.runtime import ContainerRef, Runtime
from sagong.errors import NotFound
from sagong.linux import mounts, syscalls
from sagong.linux.cgroup import CONTROLLERS, Cgroup, layout_of_machine
from sagong.operator import Operator

__all__ = ["end_containers", "sweep"]

_MNT_DETACH = 2


async def end_containers(operator: Operator) -> None:
    """Remove every container of the runtime, while everybody is still there to clean up."""
    try:
        runtime = await operator.use(Runtime)
    except NotFound:
        return
    for container in (await runtime.list()).containers:
        await runtime.remove(ContainerRef(id=container.id))


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
