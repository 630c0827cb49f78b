"""Connections to a monitor or the launcher: control channels, and newcomers not yet known."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable
from typing import Any, Protocol

from sagong.linux import process
from sagong.shim import messages
from sagong.shim.directory import RunDirectory
from sagong.shim.loop import READ, WRITE, Loop
from sagong.shim.messages import MessageReader

__all__ = ["Channel", "Host", "Incoming", "allowed", "listen"]

CONTROL = b"control"
_READ_SIZE = 64 << 10
_LINE_LIMIT = 256
_LINE_SECONDS = 10.0
_OUT_LIMIT = 32 << 20
_MOST_DESCRIPTORS = 4


def allowed(channel: socket.socket, directory: RunDirectory) -> bool:
    """Whether the peer is the plugin, its successor or root, as the kernel says."""
    _, uid, _ = process.peer_credentials(channel)
    return uid in directory.owners()


def listen(path: str, backlog: int) -> socket.socket:
    """A listener at a path, in the place of one before.

    Anybody may connect: who connects is known by its uid, which a swap changes, or by its token.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    os.chmod(path, 0o666)
    listener.listen(backlog)
    listener.setblocking(False)
    return listener


class Channel:
    """A control channel: requests in, answers and events out; never blocks."""

    def __init__(
        self,
        loop: Loop,
        channel: socket.socket,
        reader: MessageReader,
        request: Callable[[Channel, dict[str, Any]], None],
        gone: Callable[[Channel], None],
    ) -> None:
        self._loop = loop
        self.socket = channel
        self.reader = reader
        self.descriptors: list[int] = []
        self._request = request
        self._gone = gone
        self._out = bytearray()
        self.closed = False
        channel.setblocking(False)
        loop.add(channel.fileno(), READ, self._ready)
        loop.later(0.0, lambda: self.take(b""))

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if events & (READ | select.EPOLLHUP | select.EPOLLERR) and not self.closed:
            self._receive()

    def _receive(self) -> None:
        try:
            data, descriptors = process.receive_descriptors(
                self.socket, _READ_SIZE, _MOST_DESCRIPTORS
            )
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", ()
        self.descriptors += descriptors
        if data:
            self.take(data)
        else:
            self.close()

    def take(self, data: bytes) -> None:
        """Bytes that arrived; nonsense ends the channel."""
        try:
            for message in self.reader.feed(data):
                self._request(self, message)
                if self.closed:
                    return
        except ValueError:
            self.close()

    def answer(self, number: int, result: dict[str, Any] | None = None) -> None:
        """A good answer."""
        self._put(messages.answer(number, result))

    def fail(self, number: int, code: str, message: str) -> None:
        """An error."""
        self._put(messages.failure(number, code, message))

    def pass_on(self, answer: bytes) -> None:
        """An answer that is encoded already."""
        self._put(answer)

    def send(self, event: dict[str, Any]) -> None:
        """An event."""
        self._put(messages.encode(event))

    def _put(self, data: bytes) -> None:
        if self.closed:
            return
        self._out += data
        self._flush()
        if len(self._out) > _OUT_LIMIT:
            self.close()

    def _flush(self) -> None:
        try:
            while self._out:
                del self._out[: self.socket.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:
            self._out.clear()
        if not self.closed:
            self._loop.change(self.socket.fileno(), READ | (WRITE if self._out else 0))

    def detach(self) -> socket.socket:
        """Stop serving, leave the connection open."""
        self.closed = True
        self._loop.drop(self.socket.fileno())
        return self.socket

    def close(self) -> None:
        """Hang up."""
        if self.closed:
            return
        self.detach().close()
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()
        self._gone(self)


class Host(Protocol):
    """What a newcomer is led to."""

    loop: Loop
    directory: RunDirectory

    def add_channel(self, channel: socket.socket, reader: MessageReader) -> None:
        """A control channel."""
        ...

    def admit(self, token: str, channel: socket.socket, early: bytes) -> bool:
        """A client with a token; False if it is none."""
        ...


class Incoming:
    """A connection until its first line is read; strangers have ten seconds and 256 bytes."""

    def __init__(self, host: Host, channel: socket.socket) -> None:
        self._host = host
        self._channel = channel
        self._data = b""
        channel.setblocking(False)
        host.loop.add(channel.fileno(), READ, lambda _: self._receive())
        self._timer = host.loop.later(_LINE_SECONDS, self._refuse)

    def _receive(self) -> None:
        try:
            data = self._channel.recv(_READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._data += data
        line, newline, rest = self._data.partition(b"\n")
        if newline:
            self._lead(line.strip(), rest)
        elif not data or len(self._data) > _LINE_LIMIT:
            self._refuse()

    def _lead(self, line: bytes, rest: bytes) -> None:
        self._timer.cancel()
        self._host.loop.drop(self._channel.fileno())
        if line == CONTROL and allowed(self._channel, self._host.directory):
            reader = MessageReader()
            reader.keep(rest)
            self._host.add_channel(self._channel, reader)
        elif not self._host.admit(line.decode("latin-1"), self._channel, rest):
            self._channel.close()

    def _refuse(self) -> None:
        self._timer.cancel()
        self._host.loop.drop(self._channel.fileno())
        with contextlib.suppress(OSError):
            self._channel.close()
