"""Places where volumes are mounted, by the deputy's hands; blocking."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from sagong.deputy import Line
from sagong.linux import mounts
from sagong.linux.quota import mark
from sagong_volume_local.backing import Backing
from sagong_volume_local.mounter import Drop, Limit, Mount, Pin

__all__ = ["Pins", "is_mounted"]

_PATIENCE = 20.0
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Pins:
    """What is mounted below one directory, and limits of projects."""

    def __init__(self, channel: socket.socket) -> None:
        self._line = Line(channel)

    def mount(self, pin: Path, backing: Backing, data: str) -> None:
        """What stands behind a volume."""
        what = Mount(pin.name, backing.type, backing.device, backing.flags, data)
        self._line.wait(what, _PATIENCE)

    def attach(self, directory: int, pin: Path) -> None:
        """A part of a volume, instead of what was there."""
        self.drop(pin)
        self._line.ask(Pin(pin.name), (directory,))

    def drop(self, pin: Path) -> None:
        """Unmount and remove; one that isn't there is no error."""
        if os.path.lexists(pin):
            self._line.ask(Drop(pin.name))

    def limit(self, path: Path, project: int, size: int) -> None:
        """Count what is below the directory as this project, and limit it to `size` bytes."""
        directory = os.open(path, _DIRECTORY)
        try:
            mark(directory, project)
            self._line.ask(Limit(project, size), (directory,))
        finally:
            os.close(directory)

    def lift(self, path: Path, project: int) -> None:
        """Lift a project's limit, so that its number can be used again."""
        directory = os.open(path, _DIRECTORY)
        try:
            self._line.ask(Limit(project, 0), (directory,))
        finally:
            os.close(directory)


def is_mounted(pin: Path) -> bool:
    """Whether something is mounted there, seen in the table: a server may not answer."""
    return any(entry.target == str(pin) for entry in mounts.mount_table())
