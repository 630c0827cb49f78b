"""Growth: who writes into directories of its own is noticed at once, and not only now and then.

inotify(7) tells of the first change once (IN_ONESHOT) and again a moment later, so that whoever writes
without end wakes the kernel's process a few times a second and no more. What is written deeper below
is not seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from sagong.linux import syscalls
from sagong.linux.inotify import read_events

__all__ = ["Growth"]

_MODIFY, _CREATE = 0x2, 0x100
_ONLYDIR, _DONT_FOLLOW, _ONESHOT = 0x01000000, 0x02000000, 0x80000000
_MASK = _MODIFY | _CREATE | _ONLYDIR | _DONT_FOLLOW | _ONESHOT
_EVERY = 0.02


class Growth:
    """Watches directories; `grew` is told of each in which something was written."""

    def __init__(self, grew: Callable[[Path], None]) -> None:
        self._grew = grew
        self._loop = asyncio.get_running_loop()
        self._fd = syscalls.call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        self._marks: dict[int, Path] = {}
        self._wanted: set[Path] = set()
        self._resting: dict[Path, asyncio.TimerHandle] = {}
        self._loop.add_reader(self._fd, self._read)

    def watch(self, places: Iterable[Path]) -> None:
        """Watch exactly these from now on."""
        self._wanted = set(places)
        for mark in [m for m, path in self._marks.items() if path not in self._wanted]:
            del self._marks[mark]
            with contextlib.suppress(OSError):
                syscalls.call("inotify_rm_watch", self._fd, mark)
        for path in self._wanted - set(self._marks.values()) - self._resting.keys():
            self._mark(path)

    def close(self) -> None:
        """Watch nothing any more."""
        for timer in self._resting.values():
            timer.cancel()
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _mark(self, path: Path) -> None:
        """Tell once; a directory that is not there yet, or no more, is tried again later."""
        self._resting.pop(path, None)
        with contextlib.suppress(OSError):
            mark = syscalls.call("inotify_add_watch", self._fd, os.fsencode(path), _MASK)
            self._marks[mark] = path

    def _read(self) -> None:
        for event in read_events(self._fd):
            path = self._marks.pop(event.mark, None)
            if path is not None and path in self._wanted:
                self._resting[path] = self._loop.call_later(_EVERY, self._mark, path)
                self._grew(path)
