"""Bells: counters of control groups that tell when they grow (`pids.events`, `memory.events`).

In version 2 whoever polls such a file for EPOLLPRI is woken, a hundred times a second at most for each
(cgroup_file_notify). Those of version 1 never ring; they are read ten times a second, by descriptors
that stay open: a microsecond each.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Callable, Iterable
from dataclasses import dataclass

__all__ = ["Bells"]

_PEEK_EVERY = 0.1
_SIZE = 4096


@dataclass
class _Counter:
    """An open file, its text when it was read last, and whether it rings."""

    path: str
    descriptor: int
    rings: bool
    text: bytes = b""


class Bells:
    """Watches files; `rung` is told the path and the text of one that has changed."""

    def __init__(self, rung: Callable[[str, str], None]) -> None:
        self._rung = rung
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._known: dict[str, _Counter] = {}
        self._loop.add_reader(self._epoll.fileno(), self._ring)
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, paths: Iterable[str]) -> None:
        """Watch exactly these from now on; what they have counted before is told at once."""
        wanted = set(paths)
        for path in self._known.keys() - wanted:
            os.close(self._known.pop(path).descriptor)
        for path in wanted - self._known.keys():
            with contextlib.suppress(OSError):
                self._add(path)
        self._peek_later()

    def close(self) -> None:
        """Watch nothing any more."""
        self._loop.remove_reader(self._epoll.fileno())
        self.watch(())
        self._epoll.close()

    def _add(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        rings = not os.path.exists(os.path.join(os.path.dirname(path), "tasks"))
        counter = self._known[path] = _Counter(path, descriptor, rings)
        if rings:
            self._epoll.register(descriptor, select.EPOLLPRI)
        self._read(counter)

    def _ring(self) -> None:
        rung = {descriptor for descriptor, _ in self._epoll.poll(0)}
        for counter in [c for c in self._known.values() if c.descriptor in rung]:
            if not self._read(counter):
                self._epoll.unregister(counter.descriptor)  # its group is gone

    def _peek_later(self) -> None:
        """As long as there is one that does not ring."""
        silent = any(not counter.rings for counter in self._known.values())
        if silent and self._timer is None:
            self._timer = self._loop.call_later(_PEEK_EVERY, self._peek)
        elif not silent and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _peek(self) -> None:
        self._timer = None
        for counter in [c for c in self._known.values() if not c.rings]:
            self._read(counter)
        self._peek_later()

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
