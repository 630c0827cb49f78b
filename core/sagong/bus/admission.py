"""Admission: how much of a provider one uid may take, so that all others keep theirs.

A uid is shut out for a moment when it floods: its connections are cut, new ones too, and what is
still on the way from it is dropped unread; for longer each time it floods again at once. libzmq has
no bound on connections of a peer and no way to end one; but it tells (by a monitor) of each
descriptor that it accepted, the descriptor is ours as well, and `shutdown` ends what it stands for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import zmq

from sagong.bus.refusals import Refusals
from sagong.bus.terms import Terms
from sagong.bus.unfinished import Unfinished
from sagong.errors import ResourceExhausted
from sagong.pace import Pace

__all__ = ["CONNECTIONS", "STRIKES", "Admission", "Gate"]

CONNECTIONS = 128
STRIKES = 256
_STRIKE_SECONDS = 1.0
# Of these a uid has one for each connection, and a few more a second: connecting costs whoever accepts
# ten times what it costs whoever connects.
_CONNECTIONS_A_SECOND = 32.0
# A connection that is refused is so many strikes.
_REFUSED_CONNECTION = 8
_EVENTS = zmq.Event.ACCEPTED | zmq.Event.DISCONNECTED | zmq.Event.CLOSED
_EVENT = struct.Struct("=HI")
_CREDENTIALS = struct.Struct("=3i")
_DRAIN_BOUND = 256


class Admission:
    """Who is shut out, and the counts that lead to it. `trusted` uids never are.

    `flooded` hears of each uid that is shut out, and for how many seconds. `calls` is a pace of calls
    that are granted, where nobody has a reason to call often.
    """

    def __init__(
        self,
        trusted: Collection[int],
        refusals: Refusals,
        who: Callable[[int], str],
        flooded: Callable[[int, float], None] = lambda uid, seconds: None,
        calls: Pace | None = None,
    ) -> None:
        self._trusted = trusted
        self._who = who
        self._flooded = flooded
        self._calls = calls
        self._refusals = refusals
        self._strikes: Counter[int] = Counter()
        self._since = 0.0
        self._shut: dict[int, float] = {}
        self._terms = Terms()
        self._pace = Pace(CONNECTIONS, _CONNECTIONS_A_SECOND)
        self.gate: Gate | None = None

    def shuts_out(self, uid: int) -> bool:
        """Whether nothing is to be taken from a uid now."""
        if not self._shut:
            return False
        until = self._shut.get(uid)
        if until is None:
            return False
        if time.monotonic() < until:
            return True
        del self._shut[uid]
        return False

    def strike(self, uid: int, who: str, weight: int = 1) -> None:
        """It did what it may not; many of these in a second are a flood."""
        now = time.monotonic()
        if now - self._since > _STRIKE_SECONDS:
            self._strikes.clear()
            self._since = now
        self._strikes[uid] += weight
        if self._strikes[uid] >= STRIKES:
            self.shut_out(uid, who, "too many refused requests a second")

    def shut_out(self, uid: int, who: str, why: str) -> None:
        """Cut all its connections, and take nothing from it for a moment."""
        if uid not in self._trusted:
            self._refusals.say("caller shut out for a moment", uid, caller=who, why=why)
            self._shut_out(uid)

    def without_end(self, uid: int) -> None:
        """What it sends never becomes whole: the same."""
        if not self.shuts_out(uid):
            self._refusals.say("message without an end refused", uid, caller=self._who(uid))
            self._shut_out(uid)

    def forgive(self, uid: int) -> None:
        """Whoever has this uid from now on has done nothing yet."""
        self._shut.pop(uid, None)
        self._terms.forget(uid)
        self._pace.forget(uid)
        if self._calls is not None:
            self._calls.forget(uid)
        self._strikes[uid] = 0

    def _shut_out(self, uid: int) -> None:
        self._strikes[uid] = 0
        if self.shuts_out(uid):
            return  # for what it had sent before
        seconds = self._terms.next(uid)
        self._shut[uid] = time.monotonic() + seconds
        if self.gate is not None:
            self.gate.cut(uid)
        self._flooded(uid, seconds)

    def check_pace(self, uid: int) -> None:
        """A granted call is about to begin; ResourceExhausted if they come too fast."""
        if self._calls is None or uid in self._trusted:
            return
        now = time.monotonic()
        if self._calls.wait(uid, now):
            raise ResourceExhausted(f"more than {self._calls.rate:g} calls a second; wait")
        self._calls.take(uid, now)

    def connects(self, uid: int) -> bool:
        """Whether it may have one connection more, by how many it made before, and how fast."""
        now = time.monotonic()
        if self._pace.wait(uid, now):
            return False
        self._pace.take(uid, now)
        return True

    def turned_away(self, uid: int) -> None:
        """It has more connections than it may, or makes them too fast."""
        who = self._who(uid)
        self._refusals.say("connection refused", uid, caller=who, uid=uid, more_than=CONNECTIONS)
        self.strike(uid, who, _REFUSED_CONNECTION)

    def bounds(self, uid: int) -> bool:
        """Whether the bounds are for this uid at all."""
        return uid not in self._trusted


class Gate:
    """The connections of one listening socket, by uid; those beyond a uid's bound are ended.

    `deserted` is set while there is none.
    """

    def __init__(self, raw: zmq.Socket[bytes], path: str, admission: Admission) -> None:
        self._raw = raw
        self._path = path
        self._admission = admission
        self._uids: dict[int, int] = {}
        self._counts: Counter[int] = Counter()
        self._open: set[int] = set()
        self.unfinished = Unfinished(admission.without_end)
        self.deserted = asyncio.Event()
        self.deserted.set()
        self._monitor = _monitor(raw)
        self._fd = self._monitor.fileno()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._look)
        admission.gate = self
        self._look()  # only whoever has found nothing is woken up

    def close(self) -> None:
        """Stop watching; before the socket itself is closed."""
        self.unfinished.close()
        self._loop.remove_reader(self._fd)
        with contextlib.suppress(zmq.ZMQError):
            self._raw.disable_monitor()
        self._monitor.close(linger=0)

    def cut(self, uid: int) -> None:
        """End all connections of a uid."""
        for descriptor in [fd for fd, owner in self._uids.items() if owner == uid]:
            self._end(descriptor)

    def _look(self) -> None:
        """The monitor's descriptor is edge-triggered: read until there is nothing."""
        for _ in range(_DRAIN_BOUND):
            try:
                frames = self._monitor.recv_multipart(zmq.NOBLOCK)
            except zmq.ZMQError:
                return
            event, descriptor = _EVENT.unpack(frames[0])
            if event == zmq.Event.ACCEPTED:
                self._accepted(descriptor)
            else:
                self._left(descriptor)
        self._loop.call_soon(self._look)

    def _accepted(self, descriptor: int) -> None:
        self._left(descriptor)
        self._open.add(descriptor)
        self.deserted.clear()
        uid = _peer(descriptor, self._path)
        if uid is None or not self._admission.bounds(uid):
            return
        self._uids[descriptor] = uid
        self._counts[uid] += 1
        self.unfinished.watch(descriptor, uid)
        if self._admission.shuts_out(uid):
            self._end(descriptor)
        elif not self._admission.connects(uid) or self._counts[uid] > CONNECTIONS:
            self._admission.turned_away(uid)
            self._end(descriptor)

    def _left(self, descriptor: int) -> None:
        self._open.discard(descriptor)
        if not self._open:
            self.deserted.set()
        uid = self._uids.pop(descriptor, None)
        if uid is not None:
            self.unfinished.forget(descriptor)
            self._counts[uid] -= 1
            if not self._counts[uid]:
                del self._counts[uid]

    def _end(self, descriptor: int) -> None:
        """libzmq sees the end of it and closes it; nothing happens if it is somebody else's by now."""
        if _peer(descriptor, self._path) != self._uids.get(descriptor):
            return
        with contextlib.suppress(OSError), _connection(descriptor) as connection:
            connection.shutdown(socket.SHUT_RDWR)


def _monitor(raw: zmq.Socket[bytes]) -> zmq.Socket[Any]:
    """What libzmq tells of the socket's connections.

    Without a high-water mark: at one, libzmq's own thread would wait for us, and with it all traffic.
    """
    address = f"inproc://sagong-gate-{raw.fileno()}"
    raw.monitor(address, _EVENTS)
    made: zmq.Socket[Any] = raw.context.socket(zmq.PAIR)
    made.rcvhwm = 0
    made.connect(address)
    return made


def _peer(descriptor: int, path: str) -> int | None:
    """The uid at the other end of a connection that was accepted at `path`; None for anything else.

    The event comes a little later than what it tells of, so the number may mean another file by now.
    """
    try:
        with _connection(descriptor) as connection:
            if connection.family != socket.AF_UNIX or connection.getsockname() != path:
                return None
            size = _CREDENTIALS.size
            raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
            return int(_CREDENTIALS.unpack(raw)[1])
    except OSError:
        return None


def _connection(descriptor: int) -> socket.socket:
    """A socket of its own for libzmq's descriptor; OSError if it is something else by now."""
    copy = os.dup(descriptor)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
