"""Notices that the kernel killed a process of a cgroup for memory."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable

from sagong.linux.cgroup import Cgroup
from sagong.shim.loop import READ, Loop

__all__ = ["OomWatch"]

# The event comes when memory is short, the counter rises a moment later when somebody was killed.
_CHECK_SECONDS = (0.005, 0.1, 1.0)


class OomWatch:
    """Calls `killed` when the cgroup's count of kills grew; version 1 by eventfd, 2 by poll.

    Where nobody may be killed (version 1's oom_kill_disable), once when its processes are held instead.
    """

    def __init__(self, loop: Loop, group: Cgroup, killed: Callable[[], None]) -> None:
        self._loop = loop
        self._killed = killed
        self._directory = group.directory("memory")
        self._descriptors: list[int] = []
        self.count = 0
        self._held = False
        if self._directory is None:
            return
        # A cgroup without notifications is still checked at the end.
        with contextlib.suppress(OSError):
            if os.path.exists(f"{self._directory}/memory.oom_control"):
                self._watch_v1(self._directory)
            else:
                self._watch_v2(self._directory)

    def _watch_v1(self, directory: str) -> None:
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._descriptors.append(event)
        control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        self._descriptors.append(control)
        register = os.open(f"{directory}/cgroup.event_control", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(register, f"{event} {control}".encode())
        finally:
            os.close(register)
        self._loop.add(event, READ, lambda _: self._event(event))

    def _watch_v2(self, directory: str) -> None:
        events = os.open(f"{directory}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
        self._descriptors.append(events)
        self._loop.add(events, select.EPOLLPRI, lambda _: self._event(events))

    def _event(self, descriptor: int) -> None:
        with contextlib.suppress(OSError):
            os.read(descriptor, 4096)
            os.lseek(descriptor, 0, os.SEEK_SET)
        for seconds in _CHECK_SECONDS:
            self._loop.later(seconds, self.check)

    def check(self) -> None:
        """Compare the kernel's counter with what was told."""
        fields = self._read()
        now = int(fields.get("oom_kill", 0))
        held = fields.get("under_oom") == "1" and fields.get("oom_kill_disable") == "1"
        if now > self.count or (held and not self._held):
            self.count, self._held = now, held
            self._killed()

    def _read(self) -> dict[str, str]:
        for name in ("memory.oom_control", "memory.events"):
            try:
                with open(f"{self._directory}/{name}", "rb", buffering=0) as file:
                    return dict(line.split() for line in file.read().decode().splitlines())
            except OSError:
                continue
        return {}

    def close(self) -> None:
        """Stop watching."""
        for descriptor in self._descriptors:
            self._loop.drop(descriptor)
            os.close(descriptor)
        self._descriptors.clear()
