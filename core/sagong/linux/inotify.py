"""Following directories by inotify(7): one awaitable, which costs nothing while nothing happens."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sagong.linux import syscalls

__all__ = ["DirectoryWatch", "Event", "read_events"]

_CLOSE_WRITE, _MOVED_FROM, _MOVED_TO = 0x8, 0x40, 0x80
_CREATE, _DELETE, _DELETE_SELF, _ATTRIB = 0x100, 0x200, 0x400, 0x4
_ONLYDIR = 0x01000000
_MASK = _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _ATTRIB
_EVENT = struct.Struct("iIII")
_BLOCK = 1 << 16


class Event(NamedTuple):
    """What happened to a watched directory, or to `name` in it."""

    mark: int
    mask: int
    name: str


def read_events(descriptor: int) -> Iterator[Event]:
    """What an inotify descriptor tells now; nothing if there is nothing."""
    try:
        data = os.read(descriptor, _BLOCK)
    except BlockingIOError:
        return
    position = 0
    while position < len(data):
        mark, mask, _, length = _EVENT.unpack_from(data, position)
        position += _EVENT.size + length
        name = data[position - length : position].rstrip(b"\0")
        yield Event(mark, mask, os.fsdecode(name))


class DirectoryWatch:
    """`wait` returns when a file of one of the directories is complete anew, moved, or gone.

    A file that is only begun says nothing: its writer closes it. Links are complete when they are made.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        self._fd = syscalls.call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        self._paths: dict[int, Path] = {}
        self._changed = asyncio.Event()
        try:
            for path in directories:
                raw = os.fsencode(path)
                mark = syscalls.call(
                    "inotify_add_watch", self._fd, raw, _MASK | _ONLYDIR, path=str(path)
                )
                self._paths[mark] = path
        except OSError:
            os.close(self._fd)
            raise
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    async def wait(self) -> None:
        """Wait for a change since the last time."""
        await self._changed.wait()
        self._changed.clear()

    def close(self) -> None:
        """Stop looking."""
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _read(self) -> None:
        if any(self._counts(*event) for event in read_events(self._fd)):
            self._changed.set()

    def _counts(self, mark: int, mask: int, name: str) -> bool:
        if mask & ~(_CREATE | _ATTRIB) or mark not in self._paths:
            return True  # queue overflow and the like: look at everything
        if mask & _ATTRIB:
            return bool(name)
        try:
            found = os.lstat(self._paths[mark] / name)
        except OSError:
            return True
        return found.st_nlink > 1 or (found.st_mode & 0o170000) == 0o120000
