"""One ZeroMQ socket in an asyncio loop: edge-triggered receive, a frame per peer and tick to send.

zmq.asyncio is several times slower than the socket's descriptor in `add_reader`. That descriptor is
edge-triggered (https://libzmq.readthedocs.io/en/latest/zmq_getsockopt.html, ZMQ_FD): whoever sends
or receives must look at ZMQ_EVENTS afterwards, or a wake-up is lost. Each drain is bounded, and the
rest is rescheduled, so that one busy peer does not starve the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import zmq

from sagong.wire import Envelope, encode

__all__ = ["BusSocket"]

_LOG = logging.getLogger("sagong.bus")
_DRAIN_BOUND = 64
_SEND_BATCH = 512

Receive = Callable[[list[zmq.Frame]], None]
Lost = Callable[[bytes], None]


class BusSocket:
    """Owns a ROUTER or DEALER; `receive` gets each message's frames, `lost` an unreachable peer."""

    def __init__(
        self, context: zmq.Context[Any], kind: int, *, receive: Receive, lost: Lost | None = None
    ) -> None:
        self.raw: zmq.Socket[bytes] = context.socket(kind)
        self.raw.linger = 0
        self.raw.sndhwm = self.raw.rcvhwm = 4096
        self.raw.maxmsgsize = 65 << 20
        self._router = kind == zmq.ROUTER
        if self._router:
            self.raw.router_mandatory = 1
        self._receive = receive
        self._lost = lost or (lambda peer: None)
        self._outbox: dict[bytes, list[Envelope]] = {}
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
        return len(self._outbox.get(peer, ()))

    def close(self) -> None:
        """Flush what can be flushed, then close."""
        if self._closed:
            return
        self._flush()
        self._closed = True
        self._loop.remove_reader(self._fd)
        self.raw.close(linger=200)

    def _schedule(self) -> None:
        if not self._scheduled and not self._closed:
            self._scheduled = True
            self._loop.call_soon(self._wake)

    def _wake(self) -> None:
        self._scheduled = False
        if self._closed:
            return
        if self._outbox:
            self._flush()
        self._drain()

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, {}
        for peer, envelopes in outbox.items():
            for start in range(0, len(envelopes), _SEND_BATCH):
                if not self._send_batch(peer, envelopes[start : start + _SEND_BATCH]):
                    rest = envelopes[start:]
                    self._outbox[peer] = rest + self._outbox.get(peer, [])
                    break

    def _send_batch(self, peer: bytes, batch: list[Envelope]) -> bool:
        frames = encode(batch)
        if self._router:
            frames = [peer, *frames]
        try:
            self.raw.send_multipart(frames, zmq.NOBLOCK, copy=True)
        except zmq.Again:
            return False  # high-water mark: the descriptor wakes us when there is room
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._lost(peer)
        return True

    def _drain(self) -> None:
        for _ in range(_DRAIN_BOUND):
            try:
                frames = self.raw.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            try:
                self._receive(frames)
            except Exception:
                _LOG.exception("a message could not be handled")
            if self._closed:
                return
        else:
            self._schedule()
        if self._outbox and int(self.raw.get(zmq.EVENTS)) & zmq.POLLOUT:
            self._schedule()
