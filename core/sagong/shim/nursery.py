"""Helpers of a monitor that do nothing but make what becomes a process in a container.

A fork write-protects what its parent has touched, and a monitor would copy that again at every
start. A nurse is forked from the monitor once, touches little, and lets its children be the monitor's
(CLONE_PARENT), which reaps them. It ends with its monitor, by the end of their channel.

The first process of a new pid namespace lives in the nurse's memory until its program begins
(`vforking`): nobody is in that namespace who could look into it. All others are forked. A nurse has one
such child at a time. While that waits for a start that is not asked for yet, another nurse serves.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, NoReturn, Protocol

from sagong.linux import process, syscalls
from sagong.shim import lean
from sagong.shim.forking import sibling_in
from sagong.shim.loop import READ, Loop, Timer
from sagong.shim.vforking import Program, Vfork, lends_memory

__all__ = ["Newborn", "Nurse", "Nursery", "Upbringing"]

_IDLE_SECONDS = 15.0
# A mount may hang: who waits for a nurse whose child takes so long gets one of his own. Who waits
# for others' children alone does not: another nurse would take longer than all of them.
_PATIENCE_SECONDS = 0.25
_TITLE = "sagong-nursery"
_WISH_SIZE = 64
_FIRST, _FURTHER, _IDLE = b"1", b"2", b"0"


class Newborn(NamedTuple):
    """A forked child that waits for what comes over the channel."""

    pid: int
    channel: socket.socket


class Upbringing(Protocol):
    """What children do. It must not matter to `begin` that its memory is the nurse's (`Vfork`)."""

    def settle(self) -> None:
        """In a nurse, before all: what holds for every child."""
        ...

    def begin(self, nurse: socket.socket, pid: int) -> Program | None:
        """In a child of the nurse's memory, `pid` for the monitor: the next message is its order."""
        ...

    def refused(self, error: OSError) -> None:
        """There, too: the program that `begin` gave was not executed."""
        ...

    def grow(self, channel: socket.socket) -> NoReturn:
        """In a forked child: its order comes over this channel."""
        ...


class Nurse:
    """One helper, as its monitor has it."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.busy = False
        # Its child waits until somebody wants it, however long that takes.
        self.holds = False
        self._since = 0.0
        self.entering: deque[Callable[[Newborn | None], None]] = deque()

    def order(self, text: bytes, descriptors: tuple[int, ...], *, ahead: bool) -> bool:
        """Have a child begun, which takes the order; False when the nurse has ended."""
        if not self.send(_FIRST + text, descriptors):
            return False
        self.busy, self.holds, self._since = True, ahead, time.monotonic()
        return True

    def lags(self, now: float) -> bool:
        """Whether its child takes so long that it may never be done."""
        return self.busy and now - self._since >= _PATIENCE_SECONDS

    def send(self, wish: bytes, descriptors: tuple[int, ...]) -> bool:
        """One message; False when it can't be sent."""
        try:
            process.send_descriptors(self.channel, wish, descriptors)
        except OSError:
            return False
        return True


class Nursery:
    """The monitor's side: its nurses, and starts that wait for one."""

    def __init__(self, loop: Loop, upbringing: Upbringing) -> None:
        self._loop = loop
        self._upbringing = upbringing
        self._nurses: list[Nurse] = []
        self._waiting: deque[Callable[[Nurse | None], None]] = deque()
        self._used = 0.0
        self._timer: Timer | None = None
        self._patience: Timer | None = None

    def ready(self) -> None:
        """Have a nurse before one is asked for."""
        if lends_memory() and not self._nurses:
            self._stay()
            self._begin()

    def take(self, then: Callable[[Nurse | None], None]) -> None:
        """Call `then` with an idle nurse, at once or soon; with None where there can be none."""
        if not lends_memory():
            then(None)
            return
        self._waiting.append(then)
        self._serve()

    def take_into(self, space: int, then: Callable[[Newborn | None], None]) -> None:
        """As `take`, with a child in the pid namespace of a descriptor; with None if nobody is idle."""
        self._stay()
        nurse = self._idle()
        if nurse is not None and nurse.send(_FURTHER, (space,)):
            nurse.entering.append(then)
        else:
            then(None)

    def _idle(self) -> Nurse | None:
        return next((nurse for nurse in self._nurses if not nurse.busy), None)

    def _serve(self) -> None:
        """Give nurses to who waits; one more is made when all are kept waiting themselves."""
        self._stay()
        while self._waiting:
            nurse = self._idle()
            if nurse is None and all(nurse.holds for nurse in self._nurses):
                nurse = self._begin()
                if nurse is None:
                    self._waiting.popleft()(None)
                    continue
            if nurse is None:
                break
            self._waiting.popleft()(nurse)
        if self._waiting and self._patience is None:
            self._patience = self._loop.later(_PATIENCE_SECONDS, self._lose_patience)

    def _lose_patience(self) -> None:
        """Who is busy with the same child still is taken for one that will be for long."""
        self._patience = None
        now = time.monotonic()
        for nurse in self._nurses:
            nurse.holds = nurse.holds or nurse.lags(now)
        self._serve()

    def _stay(self) -> None:
        self._used = time.monotonic()
        if self._timer is None:
            self._timer = self._loop.later(_IDLE_SECONDS, self._rest)

    def _rest(self) -> None:
        """No start has come for a while."""
        left = self._used + _IDLE_SECONDS - time.monotonic()
        if left > 0 or self._waiting:
            self._timer = self._loop.later(max(left, 1.0), self._rest)
            return
        self._timer = None
        for nurse in tuple(self._nurses):
            self._lose(nurse)

    def _begin(self) -> Nurse | None:
        """Another nurse, if the machine has room for it."""
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            return None
        try:
            if lean.fork() == 0:
                try:
                    _tend(theirs, self._upbringing)
                finally:
                    os._exit(1)
        except OSError:
            ours.close()
            return None
        finally:
            theirs.close()
        ours.setblocking(False)
        nurse = Nurse(ours)
        self._nurses.append(nurse)
        self._loop.add(ours.fileno(), READ, lambda _: self._hear(nurse))
        return nurse

    def _hear(self, nurse: Nurse) -> None:
        while nurse in self._nurses:
            try:
                data, descriptors = process.receive_descriptors(nurse.channel, 32, 1)
            except BlockingIOError:
                break
            except OSError:
                data, descriptors = b"", ()
            if data == _IDLE:
                nurse.busy = nurse.holds = False
            elif data:
                born = descriptors and Newborn(int(data), socket.socket(fileno=descriptors[0]))
                nurse.entering.popleft()(born or None)
            else:
                self._lose(nurse)
        if self._waiting:
            self._serve()

    def _lose(self, nurse: Nurse) -> None:
        """It has ended, or shall; who waits for a child of it is told that there is none."""
        self._nurses.remove(nurse)
        self._loop.drop(nurse.channel.fileno())
        nurse.channel.close()
        while nurse.entering:
            nurse.entering.popleft()(None)


def _tend(channel: socket.socket, upbringing: Upbringing) -> None:
    """In a nurse: a child for each word, until the monitor ends or has no more use for it."""
    os.chdir("/")  # in a monitor's directory it would be taken for one
    gc.freeze()
    signal.set_wakeup_fd(-1)
    _keep_only(channel)
    lean.show_title(_TITLE, lean.argument_area())
    upbringing.settle()
    lender = Vfork(lambda pid: upbringing.begin(channel, pid), upbringing.refused)
    while True:
        # Its child takes a first process's order, with what comes along, and not this process.
        kind = channel.recv(1, socket.MSG_PEEK)
        if kind == _FIRST:
            if not lender.child():
                os._exit(0)
            channel.send(_IDLE)
        elif kind == _FURTHER:
            _fork_sibling(channel, upbringing)
        else:
            os._exit(0)


def _fork_sibling(channel: socket.socket, upbringing: Upbringing) -> None:
    _, (space,) = process.receive_descriptors(channel, _WISH_SIZE, 1)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        pid = sibling_in(space)
    except OSError:
        # It has ended meanwhile: whoever asked finds that out by himself.
        pid = -1
    if pid == 0:
        channel.close()
        ours.close()
        upbringing.grow(theirs)
    theirs.close()
    os.close(space)
    told = (ours.fileno(),) if pid > 0 else ()
    process.send_descriptors(channel, b"%d" % pid, told)
    ours.close()


def _keep_only(channel: socket.socket) -> None:
    """Close all that the monitor has open: a program's input, held here, would never end."""
    kept = channel.fileno()
    if kept > 3:
        syscalls.close_range(3, kept - 1)
    syscalls.close_range(kept + 1)
