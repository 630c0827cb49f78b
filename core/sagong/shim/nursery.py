"""A helper that does nothing but fork: what becomes a process in a container, one ahead of need.

A fork write-protects what its parent has touched, and a monitor would copy that again at every
start. The nursery is forked from the monitor once, touches little, and lets its children be the
monitor's (CLONE_PARENT), which reaps them. It ends with its monitor, by the end of their channel.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from sagong.linux import process, syscalls
from sagong.shim import lean
from sagong.shim.forking import sibling_in
from sagong.shim.loop import READ, Loop, Timer
from sagong.shim.pages import Pages, copy

__all__ = ["Newborn", "Nursery"]

# Not while starts follow each other: the next child would take the processor from them.
_AHEAD_SECONDS = 0.03
_IDLE_SECONDS = 15.0
_TITLE = "sagong-nursery"
_WISH_SIZE = 32 << 10
_FIRST, _FURTHER = b"1", b"2"


class Newborn(NamedTuple):
    """A child that waits for what comes over the channel: the first of a pid namespace, or in one."""

    pid: int
    channel: socket.socket


Then = Callable[[Newborn | None], None]
Grow = Callable[[socket.socket], NoReturn]


class Nursery:
    """The monitor's side. `grow` is what each child does with the other end of its channel."""

    def __init__(self, loop: Loop, grow: Grow, known: Pages) -> None:
        self._loop = loop
        self._grow = grow
        self._channel: socket.socket | None = None
        self._spare: Newborn | None = None
        self._waiting: deque[Then] = deque()
        self._entering: deque[Then] = deque()
        self._asked = 0
        self._used = 0.0
        self._timer: Timer | None = None
        self._known = known

    def take(self, then: Then) -> None:
        """Call `then` with a child, at once or soon; with None where there is no nursery yet.

        The first start of several makes none: most often it is the only one.
        """
        first = self._timer is None
        self._used = time.monotonic()
        self._later(_AHEAD_SECONDS, self._get_ready)
        spare, self._spare = self._spare, None
        if spare is None and not first and self._is_there():
            self._waiting.append(then)
            self._ask()
        else:
            then(spare)

    def take_into(self, space: int, then: Then) -> None:
        """As `take`, with a child in the pid namespace of a descriptor; none is made ahead of need."""
        first = self._timer is None
        self._used = time.monotonic()
        if first:
            self._later(_IDLE_SECONDS, self._rest)
        if first or not self._is_there() or not self._send(_FURTHER, (space,)):
            then(None)
        else:
            self._entering.append(then)

    def _is_there(self) -> bool:
        """Whether the nursery is, begun now if it was not."""
        if self._channel is None:
            with contextlib.suppress(OSError):
                self._begin()
        return self._channel is not None

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.later(seconds, action)

    def _get_ready(self) -> None:
        """Have a child ready for the next start, if one comes soon."""
        self._later(_IDLE_SECONDS, self._rest)
        if self._is_there() and self._spare is None and not self._asked:
            self._ask(self._known.ranges or b"")

    def _rest(self) -> None:
        """No start has come for a while."""
        left = self._used + _IDLE_SECONDS - time.monotonic()
        if left > 0:
            self._later(left, self._rest)
            return
        self._timer = None
        self.close()

    def _begin(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if lean.fork() == 0:
            try:
                _tend(theirs, self._grow)
            finally:
                os._exit(1)
        theirs.close()
        ours.setblocking(False)
        self._channel = ours
        self._loop.add(ours.fileno(), READ, lambda _: self._hear())

    def _ask(self, ranges: bytes = b"") -> None:
        """For a child; one that is made ahead of need copies pages before somebody waits for it."""
        if self._send(_FIRST + ranges):
            self._asked += 1

    def _send(self, wish: bytes, descriptors: tuple[int, ...] = ()) -> bool:
        if self._channel is None:
            return False
        try:
            process.send_descriptors(self._channel, wish, descriptors)
        except OSError:
            self.close()
            return False
        return True

    def _hear(self) -> None:
        while self._channel is not None:
            try:
                data, descriptors = process.receive_descriptors(self._channel, 32, 1)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", ()
            if not data:
                self.close()
                return
            newborn = None
            if descriptors:
                newborn = Newborn(int(data[1:]), socket.socket(fileno=descriptors[0]))
            if data[:1] == _FURTHER:
                self._entering.popleft()(newborn)
            elif newborn is not None:
                self._asked -= 1
                self._born(newborn)

    def _born(self, newborn: Newborn) -> None:
        if self._waiting:
            self._waiting.popleft()(newborn)
        elif self._spare is None:
            self._spare = newborn
        else:
            newborn.channel.close()

    def close(self) -> None:
        """End it, with the child that is ready; who waits for one is told that there is none."""
        channel, self._channel = self._channel, None
        if channel is not None:
            self._loop.drop(channel.fileno())
            channel.close()
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.channel.close()
        self._asked = 0
        waiting = (*self._waiting, *self._entering)
        self._waiting.clear()
        self._entering.clear()
        for then in waiting:
            then(None)


def _tend(channel: socket.socket, grow: Grow) -> None:
    """In the nursery: a child for each word, until the monitor ends or has no more use for it."""
    os.chdir("/")  # in a monitor's directory it would be taken for one
    gc.disable()
    signal.set_wakeup_fd(-1)
    _keep_only(channel)
    lean.show_title(_TITLE, lean.argument_area())
    while True:
        wish, descriptors = process.receive_descriptors(channel, _WISH_SIZE, 1)
        if not wish:
            os._exit(0)
        kind = wish[:1]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = lean.fork_sibling() if kind == _FIRST else sibling_in(descriptors[0])
        except OSError:
            # It has ended meanwhile: whoever asked finds that out by himself.
            pid = -1
        if pid == 0:
            channel.close()
            ours.close()
            copy(wish[1:])
            grow(theirs)
        theirs.close()
        for descriptor in descriptors:
            os.close(descriptor)
        told = (ours.fileno(),) if pid > 0 else ()
        process.send_descriptors(channel, b"%s%d" % (kind, pid), told)
        ours.close()


def _keep_only(channel: socket.socket) -> None:
    """Close all that the monitor has open: a program's input, held here, would never end."""
    kept = channel.fileno()
    if kept > 3:
        syscalls.close_range(3, kept - 1)
    syscalls.close_range(kept + 1)
