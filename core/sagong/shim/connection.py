"""The plugin's side of a control channel: requests with answers, events, its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import msgspec

from sagong.errors import Internal, Unavailable, from_code
from sagong.shim.channel import CONTROL
from sagong.shim.messages import framed

__all__ = ["Connection", "connect"]

Event = Callable[[dict[str, Any]], None]
_DECODER = msgspec.json.Decoder(dict[str, Any])


class Connection(asyncio.Protocol):
    """Numbers requests, hands answers to who waits, events to `event`."""

    def __init__(self, name: str, event: Event, lost: Callable[[], None]) -> None:
        self._name = name
        self._event = event
        self._lost = lost
        self._buffer = bytearray()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._number = 0
        self._preface = b""
        self._transport: asyncio.Transport | None = None
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Cut into messages."""
        self._buffer += data
        while len(self._buffer) >= 4:
            end = 4 + int.from_bytes(self._buffer[:4], "big")
            if len(self._buffer) < end:
                return
            message = _DECODER.decode(self._buffer[4:end])
            del self._buffer[:end]
            self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        if "n" not in message:
            self._event(message)
            return
        future = self._waiting.pop(message["n"], None)
        if future is None or future.done():
            return
        error = message.get("error")
        if error is None:
            future.set_result(message["ok"])
        else:
            future.set_exception(from_code(error["code"], error["message"]))

    def connection_lost(self, exc: Exception | None) -> None:
        """Who waits may try again: all that is asked here is idempotent."""
        self.closed = True
        for future in self._waiting.values():
            if not future.done():
                text = f"{self._name} ended during the request"
                future.set_exception(Unavailable(text, maybe_executed=True))
        self._waiting.clear()
        self._lost()

    def post(self, request: dict[str, Any]) -> None:
        """Send without waiting for an answer."""
        if self._transport is None or self.closed:
            raise Unavailable(f"{self._name} is not connected")
        self._transport.write(self._preface + framed(msgspec.json.encode(request)))
        self._preface = b""

    def begin_with(self, request: dict[str, Any]) -> None:
        """Send this together with the next request, so that both arrive in one read."""
        self._preface = framed(msgspec.json.encode(request))

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send and wait for the answer; its error is raised."""
        self._number += 1
        number = self._number
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self.post({**request, "n": number})
            return await future
        finally:
            self._waiting.pop(number, None)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None and not self.closed:
            self._transport.close()


async def connect(
    path: str, name: str, event: Event, lost: Callable[[], None], *, monitor: bool
) -> Connection:
    """Connect to the launcher or to a monitor; Unavailable when nobody is there."""
    loop = asyncio.get_running_loop()
    try:
        transport, protocol = await loop.create_unix_connection(
            lambda: Connection(name, event, lost), path
        )
    except OSError as error:
        raise Unavailable(f"{name} at {path}: {error.strerror or error}") from None
    if not isinstance(protocol, Connection):
        raise Internal(f"{name}: no connection")
    if monitor:
        transport.write(CONTROL + b"\n")
    return protocol
