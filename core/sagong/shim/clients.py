"""Clients of a session: frames in, frames out, with bounded buffers both ways."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from typing import TYPE_CHECKING

from sagong.errors import InvalidArgument
from sagong.frames import Frame, FrameReader, pack
from sagong.shim.loop import READ, WRITE, Loop

if TYPE_CHECKING:
    from sagong.shim.replay import Replay
    from sagong.shim.session import Session

__all__ = ["Client"]

OUTPUT_LIMIT = 1 << 20
_REPLAY_MARK = 256 << 10
_READ_SIZE = 64 << 10
# A client that reads nothing after the end gets this long to take the rest.
_LINGER_SECONDS = 30.0
_SIZE = struct.Struct(">HH")
_CODE = struct.Struct(">i")


class Client:
    """One connection to a session. While it replays the log, live output reaches it by the log."""

    def __init__(
        self, loop: Loop, channel: socket.socket, session: Session, *, stdin: bool
    ) -> None:
        self._loop = loop
        self._channel = channel
        self._session = session
        self._reader = FrameReader()
        self._out = bytearray()
        self._replay: Replay | None = None
        self._mask = READ
        self._input_paused = False
        self._ending = False
        self._code: int | None = None
        self.stdin = stdin
        self.closed = False
        channel.setblocking(False)
        loop.add(channel.fileno(), READ, self._ready)

    @property
    def full(self) -> bool:
        """Whether the session should wait before it reads more output."""
        return len(self._out) > OUTPUT_LIMIT and not self.closed

    def begin(self, early: bytes, replay: Replay | None) -> None:
        """Start: bytes that came with the token, and the past if it was asked for."""
        self._replay = replay
        if replay is not None:
            self._pump_replay()
        if early:
            self._take(early)

    def send(self, kind: int, data: bytes) -> None:
        """Queue output; a replaying client gets it from the log."""
        if self._replay is None and not self.closed and not self._ending:
            self._put(kind, data)
            self._flush()

    def _put(self, kind: int, data: bytes) -> None:
        for start in range(0, len(data), _READ_SIZE):
            self._out += pack(kind, data[start : start + _READ_SIZE])

    def end(self, code: int) -> None:
        """The session is over: replay the rest, tell the code, hang up when all is sent."""
        self._code = code
        if self._replay is None:
            self._say_end()
            self._flush()

    def _say_end(self) -> None:
        self._ending = True
        self._out += pack(Frame.EXIT, _CODE.pack(self._code or 0))
        self._loop.later(_LINGER_SECONDS, self.close)

    def _pump_replay(self) -> None:
        while self._replay is not None and len(self._out) < _REPLAY_MARK:
            batch = self._replay.next()
            if batch is None:
                self._finish_replay()
                break
            for stream, data in batch:
                self._put(stream, data)
        self._flush()

    def _finish_replay(self) -> None:
        """At the log's end: what is in no line yet, and from now on the live output."""
        if self._replay is None:
            return
        self._replay.close()
        self._replay = None
        for stream in (1, 2):
            partial = self._session.partial(stream)
            if partial:
                self._put(stream, partial)
        if self._code is not None:
            self._say_end()

    def _ready(self, events: int) -> None:
        if events & READ:
            self._receive()
        elif events & (select.EPOLLHUP | select.EPOLLERR):
            self.close()
        if not self.closed and events & WRITE:
            self._flush()

    def _receive(self) -> None:
        try:
            data = self._channel.recv(_READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if data:
            self._take(data)
            return
        # Half-closed: no more input, but the client may go on reading.
        self._input_ended()
        self._set_mask(self._mask & ~READ)

    def _take(self, data: bytes) -> None:
        try:
            for kind, payload in self._reader.feed(data):
                self._frame(kind, payload)
        except InvalidArgument:
            self.close()

    def _frame(self, kind: int, payload: bytes) -> None:
        if kind == Frame.STDIN and self.stdin:
            self._session.write_input(payload)
            if self._session.input_full and not self._input_paused:
                self._input_paused = True
                self._set_mask(self._mask & ~READ)
        elif kind == Frame.EOF:
            self._input_ended()
        elif kind == Frame.RESIZE and len(payload) == _SIZE.size:
            self._session.resize(*_SIZE.unpack(payload))
        elif kind == Frame.SIGNAL and len(payload) == 1:
            self._session.signal(payload[0])

    def resume_input(self) -> None:
        """The session took what was waiting."""
        if self._input_paused and not self.closed:
            self._input_paused = False
            self._set_mask(self._mask | READ)

    def _input_ended(self) -> None:
        if self.stdin:
            self.stdin = False
            self._session.client_input_ended()

    def _set_mask(self, mask: int) -> None:
        if mask != self._mask and not self.closed:
            self._mask = mask
            self._loop.change(self._channel.fileno(), mask)

    def _flush(self) -> None:
        if self.closed:
            return
        was_full = self.full
        try:
            while self._out:
                sent = self._channel.send(memoryview(self._out)[:_READ_SIZE])
                del self._out[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self._replay is not None and len(self._out) < _REPLAY_MARK:
            self._loop.later(0.0, self._pump_replay)
        self._set_mask(self._mask | WRITE if self._out else self._mask & ~WRITE)
        if self._ending and not self._out:
            self.close()
        elif was_full and not self.full:
            self._session.client_drained()

    def close(self) -> None:
        """Hang up; the session goes on without this client."""
        if self.closed:
            return
        self.closed = True
        self._loop.drop(self._channel.fileno())
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        self._channel.close()
        if self._replay is not None:
            self._replay.close()
            self._replay = None
        if not self._ending:
            self._input_ended()
        self._session.client_left(self)
