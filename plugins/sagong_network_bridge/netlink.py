"""Netlink sockets: batches of requests in one message, answers read at once, dumps as attributes.

The kernel works requests off inside sendmsg(2), so when that returns every error is already there:
nobody asks for acknowledgements and nobody waits.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

__all__ = [
    "NETFILTER",
    "NLM_CREATE",
    "NLM_DUMP",
    "NLM_EXCL",
    "NLM_REPLACE",
    "NLM_REQUEST",
    "ROUTE",
    "Channel",
    "Request",
    "attribute",
    "attributes",
    "nested",
]

ROUTE = 0
NETFILTER = 12

NLM_REQUEST = 0x1
NLM_DUMP = 0x300
NLM_REPLACE = 0x100
NLM_EXCL = 0x200
NLM_CREATE = 0x400

_ERROR = 2
_DONE = 3
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_SOL_NETLINK = 270
_EXTENDED_ACK = 11
_CAPPED_ACK = 10
_SEND_BUFFER = 32 << 20
_RECEIVE_BUFFER = 4 << 20
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33


class Request(NamedTuple):
    """One message: its type, flags, payload, and what it does, for errors.

    `tolerated` are errors that mean the wanted state was there already.
    """

    kind: int
    flags: int
    payload: bytes
    what: str
    tolerated: tuple[int, ...] = ()


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    length = len(value) + 4
    return _ATTRIBUTE.pack(length, kind) + value + b"\0" * (-length % 4)


def nested(kind: int, *values: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | 0x8000, b"".join(values))


def attributes(data: bytes | memoryview, offset: int = 0) -> dict[int, bytes]:
    """The attributes of a payload by kind; of a repeated one the last."""
    return dict(listed(data, offset))


def listed(data: bytes | memoryview, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """The attributes of a payload in order."""
    end = len(data)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            return
        yield kind & 0x3FFF, bytes(data[offset + 4 : offset + length])
        offset += (length + 3) & ~3


class Channel:
    """A netlink socket, `opened` by somebody else or here; it belongs to the network namespace in
    which it was opened."""

    def __init__(
        self, protocol: int = ROUTE, *, large: bool = False, opened: socket.socket | None = None
    ) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = opened or socket.socket(socket.AF_NETLINK, kind, protocol)
        self._socket.setblocking(False)
        self._sequence = 0
        self._turn = threading.Lock()
        for option in (_EXTENDED_ACK, _CAPPED_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        if large:
            self._widen()
        if not self._socket.getsockname()[0]:
            self._socket.bind((0, 0))  # one that a predecessor had is bound for ever

    def _widen(self) -> None:
        """A batch is one message however long; a user namespace's root has to do without."""
        for option, size in ((_SO_SNDBUFFORCE, _SEND_BUFFER), (_SO_RCVBUFFORCE, _RECEIVE_BUFFER)):
            with contextlib.suppress(PermissionError):
                self._socket.setsockopt(socket.SOL_SOCKET, option, size)

    def fileno(self) -> int:
        """The descriptor."""
        return self._socket.fileno()

    @property
    def address(self) -> int:
        """The socket's number among those of its namespace and protocol."""
        return int(self._socket.getsockname()[0])

    def close(self) -> None:
        """Let go of the socket and with it of its namespace."""
        self._socket.close()

    def send(self, requests: Sequence[Request]) -> None:
        """Do them all in order; OSError names the first that failed, later ones were done, too."""
        if not requests:
            return
        with self._turn:
            self._exchange(requests)

    def _exchange(self, requests: Sequence[Request]) -> None:
        first = self._sequence + 1
        data = bytearray()
        for request in requests:
            data += self._message(request)
        self._socket.send(data)
        for sequence, code, reason in self._errors():
            position = sequence - first
            if not 0 <= position < len(requests):
                continue
            request = requests[position]
            if code not in request.tolerated:
                reason = f": {reason}" if reason else ""
                self._drain()
                raise OSError(code, f"{request.what}: {os.strerror(code)}{reason}")

    def dump(self, request: Request) -> Iterator[tuple[int, bytes]]:
        """Kind and payload of each answer."""
        with self._turn:
            yield from self._dump(request)

    def _dump(self, request: Request) -> Iterator[tuple[int, bytes]]:
        self._socket.send(self._message(request._replace(flags=request.flags | NLM_DUMP)))
        self._socket.setblocking(True)
        try:
            while True:
                for kind, sequence, payload in self._received(self._socket.recv(1 << 17)):
                    if sequence != self._sequence:
                        continue
                    if kind == _DONE:
                        return
                    if kind == _ERROR:
                        self._raise_code(payload, request)
                        return
                    yield kind, payload
        finally:
            self._socket.setblocking(False)

    def ask(self, request: Request) -> tuple[int, bytes] | None:
        """The one answer of a request that is no dump."""
        with self._turn:
            return self._ask(request)

    def _ask(self, request: Request) -> tuple[int, bytes] | None:
        self._socket.send(self._message(request))
        with contextlib.suppress(BlockingIOError):
            while True:
                for kind, sequence, payload in self._received(self._socket.recv(1 << 16)):
                    if sequence != self._sequence:
                        continue
                    if kind == _ERROR:
                        self._raise_code(payload, request)
                        return None
                    return kind, payload
        return None

    def subscribe(self, group: int) -> None:
        """Receive what the kernel tells this multicast group."""
        self._socket.setsockopt(_SOL_NETLINK, 1, group)

    def notices(self) -> Iterator[tuple[int, bytes]]:
        """What has come for the subscribed groups; OSError ENOBUFS if some was lost."""
        with contextlib.suppress(BlockingIOError):
            while True:
                for kind, _, payload in self._received(self._socket.recv(1 << 17)):
                    yield kind, payload

    def _message(self, request: Request) -> bytes:
        self._sequence = (self._sequence + 1) & 0x7FFFFFFF
        length = _HEADER.size + len(request.payload)
        flags = request.flags | NLM_REQUEST
        header = _HEADER.pack(length, request.kind, flags, self._sequence, 0)
        return header + request.payload + b"\0" * (-length % 4)

    def _drain(self) -> None:
        for _ in self._errors():
            pass

    def _errors(self) -> Iterator[tuple[int, int, str]]:
        with contextlib.suppress(BlockingIOError):
            while True:
                for kind, sequence, payload in self._received(self._socket.recv(1 << 17)):
                    if kind == _ERROR:
                        code = -struct.unpack_from("=i", payload)[0]
                        if code:
                            yield sequence, code, _reason(payload)

    @staticmethod
    def _received(data: bytes) -> Iterator[tuple[int, int, bytes]]:
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
            if length < _HEADER.size:
                return
            yield kind, sequence, data[offset + _HEADER.size : offset + length]
            offset += (length + 3) & ~3

    @staticmethod
    def _raise_code(payload: bytes, request: Request) -> None:
        code = -struct.unpack_from("=i", payload)[0]
        if code and code not in request.tolerated:
            raise OSError(code, f"{request.what}: {os.strerror(code)}")


def _reason(payload: bytes) -> str:
    """The kernel's own words, when it has some: attribute 1 behind the echoed header."""
    text = attributes(payload, 4 + _HEADER.size).get(1, b"")
    return text.rstrip(b"\0").decode(errors="replace")
