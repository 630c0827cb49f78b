"""The calling side, one generation of one provider: calls in flight and open streams by id."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import deque
from typing import Any

import msgspec
import zmq

from sagong.bus.socket import BusSocket
from sagong.call import current
from sagong.contract import MethodSpec
from sagong.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    SagongError,
)
from sagong.wire import (
    EMPTY,
    VERSION,
    WINDOW,
    Envelope,
    Flag,
    Kind,
    decode,
    pack_value,
    unpack_error,
)

__all__ = ["Link", "Lost", "Moved", "Stream"]

_IN_FLIGHT = 65536
# Deadlines of calls that were answered are thrown away when there are so many.
_STALE = 1024


class Moved(Exception):
    """The provider did not execute the call and drains: ask the next generation.

    `begun`: it is a stream that may have begun.
    """

    def __init__(self, *, begun: bool = False) -> None:
        super().__init__()
        self.begun = begun


class Lost(Exception):
    """The provider is gone; the call may have been executed."""


class Stream:
    """An open stream's items on the caller's side; at most a window of them wait here."""

    def __init__(self, spec: MethodSpec) -> None:
        self.spec = spec
        self.items: deque[msgspec.Raw] = deque()
        self.failure: BaseException | None = None
        self.ended = False
        self.taken = 0
        self._waiter: asyncio.Future[None] | None = None

    def put(self, body: msgspec.Raw) -> None:
        """An item came."""
        self.items.append(body)
        self._wake()

    def end(self, failure: BaseException | None = None) -> None:
        """Nothing more will come."""
        self.ended = True
        self.failure = failure
        self._wake()

    async def wait_change(self) -> None:
        """Wait until an item or the end is there."""
        if self.items or self.ended:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Link:
    """A DEALER to one provider generation."""

    def __init__(self, context: zmq.Context[Any], path: str) -> None:
        self.path = path
        self._loop = asyncio.get_running_loop()
        self._socket = BusSocket(context, zmq.DEALER, receive=self._receive)
        self._socket.raw.connect(f"ipc://{path}")
        self._ids = itertools.count(1)
        self._calls: dict[int, tuple[asyncio.Future[Any], MethodSpec]] = {}
        self._streams: dict[int, Stream] = {}
        self._deadlines: list[tuple[int, int]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._dead = False

    @property
    def raw(self) -> zmq.Socket[bytes]:
        """The socket, for a monitor on it."""
        return self._socket.raw

    @property
    def busy(self) -> bool:
        """Whether a call is in flight or a stream open."""
        return bool(self._calls or self._streams)

    async def call(self, spec: MethodSpec, body: msgspec.Raw, deadline: int) -> Any:
        """One call until `deadline` (CLOCK_MONOTONIC ns); raises the peer's error, Moved or Lost."""
        self._check_room()
        id_ = next(self._ids)
        future = self._loop.create_future()
        self._calls[id_] = (future, spec)
        self._watch_deadline(deadline, id_)
        self._ask(Kind.CALL, id_, spec, deadline, body)
        try:
            return await future
        except asyncio.CancelledError:
            self._send(Kind.CANCEL, id_)
            raise
        finally:
            self._calls.pop(id_, None)

    def open(self, spec: MethodSpec, body: msgspec.Raw) -> tuple[int, Stream]:
        """Open a stream; the caller takes items with `credit` and ends with `cancel`."""
        self._check_room()
        id_ = next(self._ids)
        stream = self._streams[id_] = Stream(spec)
        self._ask(Kind.OPEN, id_, spec, 0, body)
        return id_, stream

    def credit(self, id_: int, stream: Stream) -> None:
        """Count a taken item; credit is given back at half a window."""
        stream.taken += 1
        if stream.taken >= WINDOW // 2 and not stream.ended:
            self._send(Kind.CREDIT, id_, body=pack_value(stream.taken))
            stream.taken = 0

    def cancel(self, id_: int) -> None:
        """Leave a stream."""
        stream = self._streams.pop(id_, None)
        if stream is not None and not stream.ended and not self._dead:
            self._send(Kind.CANCEL, id_)

    def fail(self, *, executed: bool = True) -> None:
        """The provider is known to be dead: nothing in flight will be answered, or executed later.

        Nor was it, if it is known that nothing has been `executed`.

        What it has not read yet would else go to its successor, if that listens at the same path,
        after the caller was told that it may look what happened.
        """
        self._dead = True
        self._socket.abandon()
        for future, _ in list(self._calls.values()):
            if not future.done():
                future.set_exception(Lost() if executed else Moved())
        for stream in self._streams.values():
            stream.end(Lost() if executed else Moved())

    def close(self) -> None:
        """Fail what is in flight and close the socket."""
        self._socket.close()
        self.fail()
        if self._timer:
            self._timer.cancel()

    def _check_room(self) -> None:
        if self._dead:
            raise Lost
        if len(self._calls) + len(self._streams) >= _IN_FLIGHT:
            raise ResourceExhausted(f"{_IN_FLIGHT} calls in flight to {self.path}; wait for some")

    def _ask(
        self, kind: Kind, id_: int, spec: MethodSpec, deadline: int, body: msgspec.Raw
    ) -> None:
        cause = current().cause_of_child()
        self._socket.send(Envelope(VERSION, kind, id_, spec.wire_name, deadline, 0, cause, body))

    def _send(self, kind: Kind, id_: int, body: msgspec.Raw = EMPTY) -> None:
        self._socket.send(Envelope(VERSION, kind, id_, "", 0, 0, "", body))

    def _receive(self, frames: list[zmq.Frame]) -> None:
        try:
            envelopes = decode([frame.buffer for frame in frames])
        except InvalidArgument:
            return
        for envelope in envelopes:
            found = self._calls.get(envelope.id)
            if found is not None:
                self._answered(*found, envelope)
            elif envelope.id in self._streams:
                self._streamed(self._streams[envelope.id], envelope)

    def _answered(self, future: asyncio.Future[Any], spec: MethodSpec, envelope: Envelope) -> None:
        if future.done():
            return
        if envelope.kind == Kind.REPLY:
            try:
                future.set_result(spec.result_decoder.decode(envelope.body))
            except msgspec.MsgspecError as error:
                future.set_exception(SagongError(f"{spec.wire_name}: bad answer: {error}"))
        elif envelope.kind == Kind.ERROR:
            future.set_exception(unpack_error(envelope.body))
        elif envelope.kind == Kind.GOAWAY:
            future.set_exception(Moved())

    def _streamed(self, stream: Stream, envelope: Envelope) -> None:
        if envelope.kind == Kind.ITEM:
            if len(stream.items) < WINDOW:
                stream.put(envelope.body)
            elif not stream.ended:
                stream.end(Internal(f"{stream.spec.wire_name}: more items than were asked for"))
                self._send(Kind.CANCEL, envelope.id)
        elif envelope.kind == Kind.END:
            stream.end()
        elif envelope.kind == Kind.ERROR:
            stream.end(unpack_error(envelope.body))
        elif envelope.kind == Kind.GOAWAY:
            stream.end(Moved(begun=not envelope.flags & Flag.UNBEGUN))

    def _watch_deadline(self, deadline: int, id_: int) -> None:
        if len(self._deadlines) > _STALE + 2 * len(self._calls):
            # Most were answered: kept until their time, those of quick calls would be without number.
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._calls]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (deadline, id_))
        if self._timer is None or self._deadlines[0][0] == deadline:
            self._arm()

    def _arm(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        while self._deadlines and self._deadlines[0][1] not in self._calls:
            heapq.heappop(self._deadlines)
        if self._deadlines:
            wait = (self._deadlines[0][0] - time.monotonic_ns()) / 1e9
            self._timer = self._loop.call_later(max(wait, 0.0), self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = time.monotonic_ns()
        while self._deadlines and self._deadlines[0][0] <= now:
            _, id_ = heapq.heappop(self._deadlines)
            found = self._calls.get(id_)
            if found is not None and not found[0].done():
                found[0].set_exception(
                    DeadlineExceeded(f"{found[1].wire_name}: no answer before the deadline")
                )
                self._send(Kind.CANCEL, id_)
        self._arm()
