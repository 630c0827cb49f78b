"""Reach: whose sockets a process can see, changed while it runs.

Sockets are hidden by mount namespaces: a sandbox has at `slots` a directory of its own, the *lobby*,
with a *door* for each unit that it may call: an empty directory on which that unit's is mounted. What
it may call from its start is mounted by its plan; for what comes later the kernel makes a door and
enters the process's mount namespace to mount there. The machine's own mounts do not grow by that.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path

from sagong.kernel.population import Process
from sagong.linux import mounts, syscalls
from sagong.sandbox.filesystem import restricted_tree

__all__ = ["Reach"]

_CLONE_FS = 0x200


class Reach:
    """All lobbies; `place` is where each process sees its own."""

    def __init__(self, run: Path) -> None:
        self.place = run / "slots"
        self._lobbies = run / "kernel" / "lobbies"

    def lobby(self, unit: str, generation: int) -> Path:
        """The directory behind what one process sees at `place`."""
        return self._lobbies / f"{unit}.{generation}"

    def door(self, unit: str, generation: int, other: str) -> Path:
        """Where the process will see `other`; its door exists afterwards."""
        (self.lobby(unit, generation) / other).mkdir(parents=True, exist_ok=True)
        return self.place / other

    def prepare(self, unit: str, generation: int, own: Iterable[Path]) -> None:
        """A new process's lobby, with doors for its own directories."""
        for path in own:
            door = self.lobby(unit, generation) / path.relative_to(self.place)
            door.mkdir(parents=True, exist_ok=True)

    def forget(self, unit: str, generation: int) -> None:
        """Take away the lobby of a process that ended."""
        shutil.rmtree(self.lobby(unit, generation), ignore_errors=True)

    def change(
        self, process: Process, wanted: frozenset[str], living: frozenset[str]
    ) -> frozenset[str]:
        """Show `wanted`, hide what is neither wanted nor among the `living`; what is seen then."""
        if _shares_our_mounts(process.record.pid):
            return wanted
        seen = process.reach if process.reach is not None else self._seen(process)
        gone = seen - wanted - living
        new = sorted(wanted - seen)
        if new or gone:
            doors = [str(self.door(process.unit.name, process.generation, n)) for n in new]
            trees = [restricted_tree(door, "read") for door in doors]
            try:
                _inside(process.pidfd, zip(doors, trees), [str(self.place / n) for n in gone])
            finally:
                for tree in trees:
                    os.close(tree)
        return (seen | wanted) - gone

    def _seen(self, process: Process) -> frozenset[str]:
        """What a process sees that an earlier kernel started."""
        targets = (Path(entry.target) for entry in mounts.mount_table(process.record.pid))
        names = (t.name for t in targets if t.parent == self.place)
        return frozenset(names) - {process.unit.name}


def _shares_our_mounts(pid: int) -> bool:
    """On a machine where plugins get no root of their own they see every socket anyway."""
    return os.stat(f"/proc/{pid}/ns/mnt").st_ino == os.stat("/proc/self/ns/mnt").st_ino


def _inside(pidfd: int, shown: Iterable[tuple[str, int]], hidden: Iterable[str]) -> None:
    """Mount and unmount in the mount namespace of a process.

    By a thread that ends with it: a namespace is entered by one thread, whose root, working directory
    and umask are then its own (unshare of CLONE_FS).
    """
    failures: list[OSError] = []

    def work() -> None:
        try:
            syscalls.unshare(_CLONE_FS)
            syscalls.setns(pidfd, syscalls.Namespace.MNT, path=f"mount namespace of pidfd {pidfd}")
            for door, tree in shown:
                syscalls.move_mount(tree, door)
            for door in hidden:
                syscalls.umount(door, mounts.MNT_DETACH)
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=work, name="reach")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
