"""Bells: files of control groups that ring when what they count grows (`pids.events`, `memory.events`).

The kernel wakes whoever polls such a file for EPOLLPRI, a hundred times a second at most for each
(cgroup_file_notify). Files that can't ring, as some of version 1, are left to whoever looks now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Callable, Mapping

__all__ = ["Bells"]


class Bells:
    """Watches files by path; `rung` is told the path of one that rang, and whose it is."""

    def __init__(self, rung: Callable[[str, str], None]) -> None:
        self._rung = rung
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._known: dict[str, tuple[int, str]] = {}
        self._paths: dict[int, str] = {}
        self._loop.add_reader(self._epoll.fileno(), self._look)

    def watch(self, owners: Mapping[str, str]) -> None:
        """Watch exactly these paths from now on; of each, whose it is."""
        for path in self._known.keys() - owners.keys():
            self._drop(path)
        for path in owners.keys() - self._known.keys():
            self._add(path, owners[path])

    def close(self) -> None:
        """Watch nothing any more."""
        self._loop.remove_reader(self._epoll.fileno())
        for path in list(self._known):
            self._drop(path)
        self._epoll.close()

    def _add(self, path: str, owner: str) -> None:
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._known[path] = descriptor, owner
            self._paths[descriptor] = path
            os.read(descriptor, 1)  # what is poll'ed for is what came since the last read
            self._epoll.register(descriptor, select.EPOLLPRI)

    def _drop(self, path: str) -> None:
        descriptor, _ = self._known.pop(path)
        del self._paths[descriptor]
        os.close(descriptor)

    def _look(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            path = self._paths.get(descriptor)
            if path is None:
                continue
            try:
                os.pread(descriptor, 1, 0)
            except OSError:
                self._epoll.unregister(descriptor)  # its group is gone
            self._rung(path, self._known[path][1])
