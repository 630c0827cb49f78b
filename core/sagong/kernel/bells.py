"""Bells: counters of control groups; some tell when they grow (`pids.events`, `memory.events`).

In version 2 whoever polls such a file for EPOLLPRI is woken, a hundred times a second at most for each
(cgroup_file_notify). Those of version 1 never ring, nor do counters of processor time: they are read
when somebody peeks, by descriptors that stay open: one to four microseconds each.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Callable, Iterable
from dataclasses import dataclass

__all__ = ["Bells"]

_SIZE = 4096


@dataclass
class _Counter:
    """An open file, its text when it was read last, and whether it rings."""

    path: str
    descriptor: int
    rings: bool
    text: bytes = b""


class Bells:
    """Watches files, also such as come later; `rung` is told path and text of one that has changed."""

    def __init__(self, rung: Callable[[str, str], None]) -> None:
        self._rung = rung
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._wanted: set[str] = set()
        self._known: dict[str, _Counter] = {}
        self._loop.add_reader(self._epoll.fileno(), self._ring)

    def watch(self, paths: Iterable[str]) -> None:
        """Watch exactly these from now on; what they have counted before is told at once."""
        self._wanted = set(paths)
        for path in self._known.keys() - self._wanted:
            os.close(self._known.pop(path).descriptor)
        self._add_missing()

    def peek(self) -> None:
        """Read those that do not ring."""
        for counter in [c for c in self._known.values() if not c.rings]:
            self._read(counter)
        self._add_missing()

    def close(self) -> None:
        """Watch nothing any more."""
        self._loop.remove_reader(self._epoll.fileno())
        self.watch(())
        self._epoll.close()

    def _add_missing(self) -> None:
        for path in self._wanted - self._known.keys():
            with contextlib.suppress(OSError):
                self._add(path)

    def _add(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        old = os.path.exists(os.path.join(os.path.dirname(path), "tasks"))
        rings = path.endswith(".events") and not old
        counter = self._known[path] = _Counter(path, descriptor, rings)
        if rings:
            self._epoll.register(descriptor, select.EPOLLPRI)
        self._read(counter)

    def _ring(self) -> None:
        rung = {descriptor for descriptor, _ in self._epoll.poll(0)}
        for counter in [c for c in self._known.values() if c.descriptor in rung]:
            if not self._read(counter):
                self._epoll.unregister(counter.descriptor)  # its group is gone

    def _read(self, counter: _Counter) -> bool:
        """Tell of a change; false if there is nothing to read any more."""
        try:
            text = os.pread(counter.descriptor, _SIZE, 0)
        except OSError:
            return False
        if text != counter.text:
            counter.text = text
            self._rung(counter.path, text.decode("ascii", "replace"))
        return True
