"""Shows parts of the machine where plugins see them, as long as somebody holds the connection.

A fork of the launcher mounts them, answers, waits for the connection's end and takes them away; what
the fork of a killed one left is taken away by the next. Nothing of them is passed on but by the
shared directory they are in.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Sequence

from sagong.linux import mounts, process, syscalls
from sagong.shim.failure import StartError

__all__ = ["Showing", "linger"]

_PREFIX = "shown-"
_HARMLESS = mounts.MOUNT_ATTR_NODEV | mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NOEXEC


class Showing:
    """What is mounted below `directory`, in the order of the sources."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self.places: list[str] = []

    def show(self, sources: Sequence[str], *, made: Sequence[str] = ()) -> None:
        """Mount each, with what lies below it; all or none. Of `made` what is missing is made."""
        os.makedirs(self._directory, exist_ok=True)
        self._sweep()
        try:
            for source in sources:
                if source in made and not os.path.lexists(source):
                    os.makedirs(source, exist_ok=True)
                self._show(source)
        except BaseException:
            self.hide()
            raise

    def _show(self, source: str) -> None:
        try:
            tree = syscalls.open_tree(source, clone=True, recursive=True)
        except (FileNotFoundError, NotADirectoryError):
            text = f"bind source path does not exist: {source}"
            raise StartError("not_found", text) from None
        try:
            # A peer of the machine's own mounts would take those away when it goes. Who copies files
            # opens what a container has put there, perhaps in this moment: never a device.
            syscalls.mount_setattr(
                "", set_=_HARMLESS, propagation=mounts.MS_PRIVATE, recursive=True, directory=tree
            )
            place = self._place(directory=stat.S_ISDIR(os.fstat(tree).st_mode))
            syscalls.move_mount(tree, place)
        finally:
            os.close(tree)

    def _place(self, *, directory: bool) -> str:
        own = f"{os.getpid()}-{process.start_time()}-{len(self.places)}"
        place = f"{self._directory}/{_PREFIX}{own}"
        if directory:
            os.mkdir(place, 0o755)
        else:
            os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
        self.places.append(place)
        return place

    def hide(self) -> None:
        """Take all away."""
        for place in self.places:
            _drop(place)
        self.places.clear()

    def _sweep(self) -> None:
        """Places of processes that are gone."""
        for name in os.listdir(self._directory):
            if name.startswith(_PREFIX) and not _lives(name):
                _drop(f"{self._directory}/{name}")


def _lives(name: str) -> bool:
    try:
        pid, started, _ = map(int, name.removeprefix(_PREFIX).split("-"))
        return process.start_time(pid) == started
    except (OSError, ValueError):
        return False


def _drop(place: str) -> None:
    with contextlib.suppress(OSError):
        syscalls.umount(place, mounts.MNT_DETACH | mounts.UMOUNT_NOFOLLOW)
    with contextlib.suppress(OSError):
        if os.path.isdir(place):
            os.rmdir(place)
        else:
            os.unlink(place)


def linger(channel: socket.socket) -> None:
    """Wait until the other end is gone; nothing more is said on this connection."""
    with contextlib.suppress(OSError):
        while channel.recv(64):
            continue
