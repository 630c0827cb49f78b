"""Questions that no container answers: passed on to the machine's nameservers, one after another."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

from sagong_network_bridge.question import SERVER_FAILURE, Question, failed

__all__ = ["Forwarder", "Inquiry", "Reply", "nameservers_of"]

Reply = Callable[[bytes], None]
_PATIENCE = 2.0
_ROUNDS = 2
_MOST = 1024
_RESOLV_CONF = "/etc/resolv.conf"


def nameservers_of(text: str) -> tuple[str, ...]:
    """The nameservers of a resolv.conf."""
    lines = (line.split() for line in text.splitlines())
    return tuple(words[1] for words in lines if len(words) > 1 and words[0] == "nameserver")


# SERVFAIL, NOTIMP, REFUSED
_NO_WORD = (2, 4, 5)


class Inquiry(NamedTuple):
    """A question, the asker's own nameservers (none: the machine's), and whether by TCP."""

    question: Question
    nameservers: tuple[str, ...] = ()
    stream: bool = False


class _Pending:
    """A question on its way to one nameserver after the other."""

    def __init__(self, data: bytes, inquiry: Inquiry, reply: Reply) -> None:
        self.data = data
        self.question, self.nameservers, self.stream = inquiry
        self.reply = reply
        self.attempt = 0
        self.deadline = 0.0
        self.channel: socket.socket | None = None
        self.incoming = bytearray()
        self.outgoing = b""
        self.refusal = b""


class Forwarder:
    """All questions on their way."""

    def __init__(self, selector: selectors.BaseSelector, nameservers: tuple[str, ...]) -> None:
        self._selector = selector
        self._fixed = nameservers
        self._read: tuple[str, ...] = ()
        self._stamp: tuple[int, int] = (0, 0)
        self._pending: set[_Pending] = set()

    def forward(self, data: bytes, inquiry: Inquiry, reply: Reply) -> None:
        """Ask the nameservers; failure after all of them stayed silent."""
        if len(self._pending) >= _MOST:
            reply(failed(inquiry.question, SERVER_FAILURE))
            return
        pending = _Pending(data, inquiry, reply)
        self._pending.add(pending)
        self._try_next(pending)

    def patience(self) -> float | None:
        """Seconds until a question runs out of patience; None when nothing is on its way."""
        if not self._pending:
            return None
        first = min(pending.deadline for pending in self._pending)
        return max(0.0, first - time.monotonic()) + 0.01

    def expire(self) -> None:
        """Go to the next nameserver where one is silent."""
        now = time.monotonic()
        for pending in [pending for pending in self._pending if pending.deadline <= now]:
            self._try_next(pending)

    def _nameservers(self) -> tuple[str, ...]:
        """The configured ones, or those of resolv.conf, read again when it changes."""
        if self._fixed:
            return self._fixed
        with contextlib.suppress(OSError):
            found = os.stat(_RESOLV_CONF)
            stamp = (found.st_mtime_ns, found.st_ino)
            if stamp != self._stamp:
                with open(_RESOLV_CONF) as file:
                    self._read = nameservers_of(file.read())
                self._stamp = stamp
        return self._read

    def _try_next(self, pending: _Pending) -> None:
        self._close(pending)
        servers = pending.nameservers or self._nameservers()
        while servers and pending.attempt < len(servers) * _ROUNDS:
            server = servers[pending.attempt % len(servers)]
            pending.attempt += 1
            pending.deadline = time.monotonic() + _PATIENCE
            with contextlib.suppress(OSError):
                self._ask(pending, server)
                return
            self._close(pending)
        self._finish(pending, pending.refusal or failed(pending.question, SERVER_FAILURE))

    def _ask(self, pending: _Pending, server: str) -> None:
        """A socket of its own for each question: an unpredictable port, and only this peer."""
        host, _, port = server.partition("#")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        kind = socket.SOCK_STREAM if pending.stream else socket.SOCK_DGRAM
        channel = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        pending.channel = channel
        pending.incoming.clear()
        pending.outgoing = b""
        with contextlib.suppress(BlockingIOError):
            channel.connect((host, int(port or 53)))
        if pending.stream:
            pending.outgoing = struct.pack(">H", len(pending.data)) + pending.data
            events = selectors.EVENT_READ | selectors.EVENT_WRITE
        else:
            channel.send(pending.data)
            events = selectors.EVENT_READ
        self._selector.register(channel, events, lambda: self._ready(pending))

    def _ready(self, pending: _Pending) -> None:
        try:
            answer = self._stream_answer(pending) if pending.stream else self._answer(pending)
        except BlockingIOError:
            return
        except OSError:
            self._try_next(pending)
            return
        if answer and answer[:2] == pending.data[:2] and pending.question.raw in answer[12:300]:
            self._take(pending, answer)

    def _take(self, pending: _Pending, answer: bytes) -> None:
        """Who can't or won't say is not the last word while another one has not been asked."""
        pending.refusal = answer
        servers = pending.nameservers or self._nameservers()
        if answer[3] & 0x0F in _NO_WORD and pending.attempt < len(servers):
            self._try_next(pending)
        else:
            self._finish(pending, answer)

    @staticmethod
    def _answer(pending: _Pending) -> bytes:
        assert pending.channel is not None
        return pending.channel.recv(65535)

    def _stream_answer(self, pending: _Pending) -> bytes:
        channel = pending.channel
        assert channel is not None
        if pending.outgoing:
            pending.outgoing = pending.outgoing[channel.send(pending.outgoing) :]
            if not pending.outgoing:
                self._selector.modify(channel, selectors.EVENT_READ, lambda: self._ready(pending))
        data = channel.recv(65537)
        if not data:
            raise ConnectionResetError("the nameserver closed the connection")
        pending.incoming += data
        if len(pending.incoming) < 2:
            return b""
        (length,) = struct.unpack_from(">H", pending.incoming)
        whole = len(pending.incoming) >= length + 2
        return bytes(pending.incoming[2 : length + 2]) if whole else b""

    def _finish(self, pending: _Pending, answer: bytes) -> None:
        self._close(pending)
        self._pending.discard(pending)
        pending.reply(answer)

    def _close(self, pending: _Pending) -> None:
        if pending.channel is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(pending.channel)
            pending.channel.close()
            pending.channel = None
