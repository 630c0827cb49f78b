"""One TCP connection of a container to the resolver: questions with their lengths, in order."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import time
from collections.abc import Callable

__all__ = ["Stream"]

Reply = Callable[[bytes], None]
_IDLE = 10.0
_MOST = 1 << 17


class Stream:
    """Reads questions and writes answers; it is closed when idle, or when its peer reads nothing."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        connection: socket.socket,
        ask: Callable[[bytes, Reply], None],
        ended: Callable[[Stream], None],
    ) -> None:
        self._selector = selector
        self._connection = connection
        self._ask = ask
        self._ended = ended
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self.deadline = time.monotonic() + _IDLE
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ, self._ready)

    def _ready(self) -> None:
        try:
            self._write()
            data = self._connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not data:
            self.close()
            return
        self._incoming += data
        while len(self._incoming) >= 2:
            (length,) = struct.unpack_from(">H", self._incoming)
            if len(self._incoming) < length + 2:
                break
            question = bytes(self._incoming[2 : length + 2])
            del self._incoming[: length + 2]
            self._ask(question, self._reply)

    def _reply(self, answer: bytes) -> None:
        if self._connection.fileno() < 0 or len(self._outgoing) > _MOST:
            return
        self.deadline = time.monotonic() + _IDLE
        self._outgoing += struct.pack(">H", len(answer)) + answer
        with contextlib.suppress(BlockingIOError, OSError):
            self._write()

    def _write(self) -> None:
        while self._outgoing:
            sent = self._connection.send(self._outgoing)
            del self._outgoing[:sent]

    def close(self) -> None:
        """End it; twice is no error."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(self._connection)
        self._connection.close()
        self._ended(self)
