"""The event loop of launcher and monitors: poll, timers, signals; no asyncio, hence small."""

from __future__ import annotations

import errno
import heapq
import os
import select
import signal
import time
from collections.abc import Callable
from types import FrameType

__all__ = ["READ", "WRITE", "Loop", "Timer"]

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
Ready = Callable[[int], None]
_FEW = 64


class Timer:
    """Something to be done at a time, unless cancelled."""

    __slots__ = ("action", "at")

    def __init__(self, at: float, action: Callable[[], None]) -> None:
        self.at = at
        self.action: Callable[[], None] | None = action

    def __lt__(self, other: Timer) -> bool:
        return self.at < other.at

    def cancel(self) -> None:
        """Don't do it, and hold nothing of what it would have been done to."""
        self.action = None

    @property
    def cancelled(self) -> bool:
        """Whether it is not to be done."""
        return self.action is None


class Loop:
    """Waits for descriptors and timers and calls who is interested."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._ready: dict[int, Ready] = {}
        self._timers: list[Timer] = []
        # With so many of them those that were cancelled are taken out: most never come to their time.
        self._many = _FEW
        self.running = True

    def add(self, descriptor: int, mask: int, ready: Ready) -> None:
        """Call `ready(events)` when the descriptor is."""
        self._ready[descriptor] = ready
        self._epoll.register(descriptor, mask)

    def change(self, descriptor: int, mask: int) -> None:
        """Be interested in other events; 0 leaves only errors and hang-ups."""
        self._epoll.modify(descriptor, mask)

    def drop(self, descriptor: int) -> None:
        """Forget a descriptor; to be called before it is closed. Unknown is no error."""
        if self._ready.pop(descriptor, None) is not None:
            try:
                self._epoll.unregister(descriptor)
            except OSError:
                return  # Closed already: the kernel has forgotten it by itself.

    def later(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Call `action` once after some time."""
        timer = Timer(time.monotonic() + seconds, action)
        heapq.heappush(self._timers, timer)
        if len(self._timers) > self._many:
            self._timers = [one for one in self._timers if not one.cancelled]
            heapq.heapify(self._timers)
            self._many = max(_FEW, 2 * len(self._timers))
        return timer

    def stop(self) -> None:
        """Leave `run` after the present round."""
        self.running = False

    def run(self) -> None:
        """Serve until `stop`."""
        while self.running:
            for descriptor, events in self._wait():
                ready = self._ready.get(descriptor)
                if ready is not None:
                    ready(events)
            self._run_timers()

    def _wait(self) -> list[tuple[int, int]]:
        while self._timers and self._timers[0].cancelled:
            heapq.heappop(self._timers)
        timeout = -1.0
        if self._timers:
            timeout = max(0.0, self._timers[0].at - time.monotonic())
        try:
            return self._epoll.poll(timeout)
        except OSError as error:
            if error.errno == errno.EINTR:
                return []
            raise

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0].at <= now:
            timer = heapq.heappop(self._timers)
            if timer.action is not None:
                timer.action()

    def watch_signals(self, numbers: tuple[int, ...], seen: Callable[[], None]) -> None:
        """Call `seen` from the loop after any of these signals."""
        for number in numbers:
            signal.signal(number, _ignore)
        self.watch_wakeups(seen)

    def watch_wakeups(self, seen: Callable[[], None]) -> None:
        """The same for signals that have their handlers from the process we were forked from."""
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

        def drained(_: int) -> None:
            os.read(reader, 512)
            seen()

        self.add(reader, READ, drained)

    def close(self) -> None:
        """Release the epoll descriptor; a fork's child does so before anything else."""
        self._ready.clear()
        self._timers.clear()
        self._epoll.close()


def _ignore(number: int, frame: FrameType | None) -> None:
    """The wake-up descriptor tells the loop; a handler must exist for it to be written."""
