"""Turns: in each turn of the loop every caller is served a share; the rest of it waits in line.

Whoever asks little is served at once, however much others ask: their lines are their own, and bounded.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import zmq

from sagong.wire import Envelope

__all__ = ["Turns"]

# What one uid is served in a turn, in envelopes and in nanoseconds: while it is alone, and while others
# were served a moment ago. Whoever comes next waits for no more than that.
_ALONE, _AMONG_OTHERS = (64, 250_000), (8, 100_000)
_MOMENT = 20_000_000
_LINE_MESSAGES = 4096
_LINE_BYTES = 72 << 20

Decode = Callable[[bytes, int, Sequence[zmq.Frame]], list[Envelope]]
Dispatch = Callable[[bytes, int, Envelope], None]
_Waiting = tuple[bytes, Sequence[zmq.Frame], int]


@dataclass
class _Line:
    """What a uid has sent and was not served yet: whole messages, and the rest of one."""

    messages: deque[_Waiting] = field(default_factory=deque)
    size: int = 0
    peer: bytes = b""
    rest: deque[Envelope] = field(default_factory=deque)


@dataclass
class _Served:
    """What a uid was served in this turn: envelopes, and how long they took."""

    count: int = 0
    spent: int = 0

    def reaches(self, share: tuple[int, int]) -> bool:
        """Whether that is all for now; one envelope at least, however long it took to be decoded."""
        return self.count >= share[0] or (self.count > 0 and self.spent >= share[1])


class Turns:
    """Serves envelopes of each uid in their order, a share of them a turn.

    Whoever is shut out (`shut`) loses what it has in line.
    """

    def __init__(self, decode: Decode, dispatch: Dispatch, shut: Callable[[int], bool]) -> None:
        self._decode = decode
        self._dispatch = dispatch
        self._shut = shut
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self._served: dict[int, _Served] = {}
        self._latest, self._changed = -1, -_MOMENT
        self._lines: dict[int, _Line] = {}

    def put(self, peer: bytes, uid: int, frames: Sequence[zmq.Frame]) -> bool:
        """Serve a message, now or when it is its turn; false if the line is too long for it."""
        self._schedule()
        line = self._lines.get(uid)
        if line is None:
            self._serve(uid, peer, self._opened(uid, peer, frames))
            return True
        size = sum(len(frame) for frame in frames)
        if len(line.messages) >= _LINE_MESSAGES or line.size + size > _LINE_BYTES:
            return False
        line.messages.append((peer, frames, size))
        line.size += size
        return True

    def _opened(self, uid: int, peer: bytes, frames: Sequence[zmq.Frame]) -> deque[Envelope]:
        """A message's envelopes; to decode it is part of what the uid is served."""
        began = time.monotonic_ns()
        envelopes = deque(self._decode(peer, uid, frames))
        served = self._served.setdefault(uid, _Served())
        served.spent += time.monotonic_ns() - began
        served.count += not envelopes
        return envelopes

    def _serve(self, uid: int, peer: bytes, envelopes: deque[Envelope]) -> None:
        """Serve of these what the share allows; the rest goes to the head of the line."""
        served, now = self._served.setdefault(uid, _Served()), time.monotonic_ns()
        share = self._share(uid, now)
        while envelopes and not served.reaches(share):
            self._dispatch(peer, uid, envelopes.popleft())
            before, now = now, time.monotonic_ns()
            served.count += 1
            served.spent += now - before
        if envelopes:
            line = self._lines.setdefault(uid, _Line())
            line.peer, line.rest = peer, envelopes

    def _share(self, uid: int, now: int) -> tuple[int, int]:
        """Less while others come, too: who comes once in a while must not find a long turn."""
        if uid != self._latest:
            self._latest, self._changed = uid, now
        return _AMONG_OTHERS if now - self._changed < _MOMENT else _ALONE

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """A new turn: everybody in line is served a share, and whoever is done leaves the line."""
        self._scheduled = False
        self._served.clear()
        for uid, line in list(self._lines.items()):
            if self._shut(uid) or self._advance(uid, line):
                del self._lines[uid]
        if self._lines:
            self._schedule()

    def _advance(self, uid: int, line: _Line) -> bool:
        """Serve from a line; whether it is empty then."""
        rest, line.rest = line.rest, deque()
        self._serve(uid, line.peer, rest)
        share = self._share(uid, time.monotonic_ns())
        while line.messages and not line.rest and not self._served[uid].reaches(share):
            peer, frames, size = line.messages.popleft()
            line.size -= size
            self._serve(uid, peer, self._opened(uid, peer, frames))
        return not line.messages and not line.rest
