"""One ZeroMQ socket in an asyncio loop: edge-triggered receive, a frame per peer and tick to send.

zmq.asyncio is several times slower than the socket's descriptor in `add_reader`. That descriptor is
edge-triggered (https://libzmq.readthedocs.io/en/latest/zmq_getsockopt.html, ZMQ_FD): whoever sends
or receives must look at ZMQ_EVENTS afterwards, or a wake-up is lost. Each drain is bounded, and the
rest is rescheduled, so that one busy peer does not starve the loop.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import zmq

from sagong.wire import Envelope, encode

__all__ = ["BusSocket"]

_LOG = logging.getLogger("sagong.bus")
_DRAIN_BOUND = 64
_HANDSHAKE_MS = 10_000
_LINGER_MS = 200
_SEND_BATCH = 512
# As plain numbers: flags of an enumeration are made anew by each operation.
_NOW, _NOW_MORE, _READABLE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE), int(zmq.POLLIN)

_MARK = 4096
# What waits for one peer beyond what ZeroMQ itself holds for it. Past that it is given up.
_WAITING_ENVELOPES = 16384
_WAITING_BYTES = 72 << 20
_RETRY_SECONDS, _RETRY_MOST = 0.002, 0.1

Receive = Callable[[list[zmq.Frame]], None]
Lost = Callable[[bytes], None]


@dataclass
class _Waiting:
    """Envelopes for a peer that takes no more at the moment."""

    envelopes: deque[Envelope] = field(default_factory=deque)
    size: int = 0

    def add(self, envelopes: Iterable[Envelope]) -> bool:
        """Queue them; false when that is too much."""
        for envelope in envelopes:
            self.envelopes.append(envelope)
            self.size += len(envelope.body)
        return len(self.envelopes) <= _WAITING_ENVELOPES and self.size <= _WAITING_BYTES

    def take(self) -> list[Envelope]:
        """The next batch; it stays queued until `drop`."""
        return list(itertools.islice(self.envelopes, _SEND_BATCH))

    def drop(self, count: int) -> None:
        """They are sent."""
        for _ in range(count):
            self.size -= len(self.envelopes.popleft().body)


class BusSocket:
    """Owns a ROUTER or DEALER; `receive` gets each message's frames, `lost` an unreachable peer.

    A peer that does not take what it is sent keeps nobody else waiting. What waits for it is bounded;
    past that it is dropped, and `overrun` told.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        kind: int,
        *,
        receive: Receive,
        lost: Lost | None = None,
        overrun: Lost | None = None,
        mark: int = _MARK,
    ) -> None:
        self.raw: zmq.Socket[bytes] = context.socket(kind)
        self.raw.linger = 0
        self.raw.sndhwm = self.raw.rcvhwm = mark
        self.raw.handshake_ivl = _HANDSHAKE_MS
        self.raw.maxmsgsize = 65 << 20
        self._router = kind == zmq.ROUTER
        if self._router:
            self.raw.router_mandatory = 1
        self._receive = receive
        self._lost = lost or (lambda peer: None)
        self._overrun = overrun or (lambda peer: None)
        self._outbox: dict[bytes, list[Envelope]] = {}
        self._waiting: dict[bytes, _Waiting] = {}
        self._retry: asyncio.TimerHandle | None = None
        self._rest = _RETRY_SECONDS
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self._closed = False
        self._fd: int = self.raw.fileno()
        self._loop.add_reader(self._fd, self._wake)

    def send(self, envelope: Envelope, peer: bytes = b"") -> None:
        """Queue an envelope; all of one peer and tick leave as one message."""
        self._outbox.setdefault(peer, []).append(envelope)
        self._schedule()

    def queued(self, peer: bytes = b"") -> int:
        """Envelopes not yet handed to ZeroMQ."""
        waiting = self._waiting.get(peer)
        return len(self._outbox.get(peer, ())) + (len(waiting.envelopes) if waiting else 0)

    def close(self) -> None:
        """Flush what can be flushed, then close."""
        if self._closed:
            return
        self._flush()
        self._end(_LINGER_MS)

    def abandon(self) -> None:
        """Close at once: what was not sent yet reaches nobody, also not who comes to the same place."""
        if not self._closed:
            self._end(0)

    def _end(self, linger: int) -> None:
        self._closed = True
        if self._retry:
            self._retry.cancel()
        self._loop.remove_reader(self._fd)
        self.raw.close(linger=linger)

    def _schedule(self) -> None:
        if not self._scheduled and not self._closed:
            self._scheduled = True
            self._loop.call_soon(self._wake)

    def _wake(self) -> None:
        self._scheduled = False
        if self._closed:
            return
        if self._waiting and not self._router:
            self._send_waiting()
        if self._outbox:
            self._flush()
        self._drain()

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, {}
        for peer, envelopes in outbox.items():
            if peer in self._waiting:
                self._wait(peer, envelopes)
                continue
            for start in range(0, len(envelopes), _SEND_BATCH):
                if not self._send_batch(peer, envelopes[start : start + _SEND_BATCH]):
                    self._wait(peer, envelopes[start:])
                    break

    def _wait(self, peer: bytes, envelopes: list[Envelope]) -> None:
        """Its high-water mark is reached: try again in a moment, and not at every turn for others."""
        if not self._waiting.setdefault(peer, _Waiting()).add(envelopes) and self._router:
            del self._waiting[peer]
            self._overrun(peer)
            return
        self._retry_later()

    def _retry_later(self) -> None:
        if self._waiting and self._retry is None and not self._closed:
            self._retry = self._loop.call_later(self._rest, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        if not self._closed:
            self._rest = (
                _RETRY_SECONDS if self._send_waiting() else min(self._rest * 2, _RETRY_MOST)
            )
            self._retry_later()
            self._schedule()  # sending may have swallowed a wake-up

    def _send_waiting(self) -> bool:
        """Send what can be sent to those that were behind; whether anything could."""
        sent = False
        for peer, waiting in list(self._waiting.items()):
            while waiting.envelopes and self._send_batch(peer, batch := waiting.take()):
                waiting.drop(len(batch))
                sent = True
            if not waiting.envelopes:
                del self._waiting[peer]
        return sent

    def _send_batch(self, peer: bytes, batch: list[Envelope]) -> bool:
        frames = encode(batch)
        if self._router:
            frames = [peer, *frames]
        try:
            # Not send_multipart, which looks at each frame's type; nor recv_multipart below, which asks
            # the socket after each frame whether that was the last.
            for frame in frames[:-1]:
                self.raw.send(frame, _NOW_MORE)
            self.raw.send(frames[-1], _NOW)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._lost(peer)
        return True

    def _drain(self) -> None:
        for _ in range(_DRAIN_BOUND):
            # An exception that says no takes three times as long as the question.
            if not int(self.raw.get(zmq.EVENTS)) & _READABLE:
                break
            try:
                self._receive(self._message())
            except Exception:
                _LOG.exception("a message could not be handled")
            if self._closed:
                return
        else:
            self._schedule()

    def _message(self) -> list[zmq.Frame]:
        frames = [self.raw.recv(_NOW, copy=False)]
        while frames[-1].more:
            frames.append(self.raw.recv(_NOW, copy=False))
        return frames
