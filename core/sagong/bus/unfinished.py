"""Messages without an end: parts that arrive on and on while no message becomes whole.

libzmq bounds each frame and counts whole messages; the parts of one that never ends, or many large
frames that stop just before their end, would fill this process unseen. So data that arrives wakes us,
a few times a second at most, until what it belongs to has been read.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import mmap
import os
import select
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["GROWTH", "Unfinished"]

GROWTH = 128 << 20
_EVERY = 0.02
# Whole messages take far fewer, however large: so many times may data arrive for one of them.
_TIMES = 250
_PATIENT_TIMES = 3
_FLAGS = select.EPOLLIN | select.EPOLLET | select.EPOLLONESHOT


@dataclass
class _Arrivals:
    """A connection's owner (a uid), and how often data came since its last whole message."""

    owner: int
    times: int = 0


@dataclass
class _Owner:
    """How large this process was when an owner's first unfinished message began."""

    size: int
    unfinished: int = 0
    times: int = 0


class Unfinished:
    """Watches connections by descriptor; `told` hears of an owner whose messages do not end."""

    def __init__(self, told: Callable[[int], None]) -> None:
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._size = _Size()
        self._known: dict[int, _Arrivals] = {}
        self._owners: dict[int, _Owner] = {}
        self._fired: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._epoll.fileno(), self._look)

    def __bool__(self) -> bool:
        """Whether anything is unfinished, as far as we know."""
        return bool(self._owners)

    def watch(self, descriptor: int, owner: int) -> None:
        """A connection was accepted."""
        self._known[descriptor] = _Arrivals(owner)
        with contextlib.suppress(OSError):  # it has ended already
            self._epoll.register(descriptor, _FLAGS)

    def forget(self, descriptor: int) -> None:
        """It has ended; what of it was unfinished is gone."""
        if self._known.get(descriptor) is not None:
            self.whole(descriptor)
            del self._known[descriptor]
        self._fired.discard(descriptor)
        with contextlib.suppress(OSError):  # closed, and so taken out
            self._epoll.unregister(descriptor)

    def whole(self, descriptor: int) -> None:
        """A message was read from it."""
        one = self._known.get(descriptor)
        if one is None or not one.times:
            return
        one.times = 0
        owner = self._owners[one.owner]
        owner.unfinished -= 1
        if not owner.unfinished:
            del self._owners[one.owner]

    def close(self) -> None:
        """Watch nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._size.close()

    def _look(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            one = self._known.get(descriptor)
            if one is not None:
                self._arrived(descriptor, one)
        if self._fired and self._timer is None:
            self._timer = self._loop.call_later(_EVERY, self._again)

    def _arrived(self, descriptor: int, one: _Arrivals) -> None:
        self._fired.add(descriptor)
        owner = self._owners.get(one.owner)
        if owner is None:
            owner = self._owners[one.owner] = _Owner(self._size.read())
        owner.unfinished += not one.times
        owner.times += 1
        one.times += 1
        large = owner.times >= _PATIENT_TIMES and self._size.read() - owner.size > GROWTH
        if large or one.times > _TIMES:
            self._told(one.owner)
            self._loop.call_later(_EVERY, _give_back)

    def _again(self) -> None:
        """From now on they wake us again."""
        self._timer = None
        fired, self._fired = self._fired, set()
        for descriptor in fired:
            with contextlib.suppress(OSError):
                self._epoll.modify(descriptor, _FLAGS)


class _Size:
    """This process's resident memory; the file stays open, since it is read with many messages."""

    def __init__(self) -> None:
        self._file = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> int:
        """In bytes."""
        return int(os.pread(self._file, 128, 0).split()[1]) * mmap.PAGESIZE

    def close(self) -> None:
        """Give it back."""
        os.close(self._file)


def _give_back() -> None:
    """What libzmq has freed the allocator would keep."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
