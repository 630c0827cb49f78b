"""WebSocket (RFC 6455) on a taken-over connection: handshake, frames, control frames.

No extensions are negotiated. A message longer than the limit ends the connection with code 1009.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import struct
from typing import TYPE_CHECKING

from sagong.errors import InvalidArgument
from sagong.http.raw import RawStream

if TYPE_CHECKING:
    from sagong.http.request import Request

__all__ = ["WebSocket", "accept"]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_U16 = struct.Struct(">H")
_U64 = struct.Struct(">Q")


class _Violation(Exception):
    """The client broke the protocol; `code` is what we close with."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class WebSocket:
    """Messages to and from the client; `protocol` is the agreed subprotocol, "" if none."""

    def __init__(self, raw: RawStream, protocol: str, limit: int) -> None:
        self.protocol = protocol
        self._raw = raw
        self._limit = limit
        self._buffer = bytearray()
        self._closing = False
        self._heard = asyncio.Event()

    async def receive(self) -> bytes | str | None:
        """The next message: bytes, or str of a text; None after the client's close or end."""
        parts: list[bytes] = []
        kind, total = 0, 0
        while True:
            try:
                frame = await self._frame()
                if frame is None:
                    return None
                final, opcode, payload = frame
                if opcode >= _CLOSE:
                    if self._control(opcode, payload):
                        return None
                    continue
                kind = _message_kind(kind, opcode)
                if payload:  # of empty ones a client may send any number
                    parts.append(payload)
                total += len(payload)
                if total > self._limit:
                    raise _Violation(1009, "message too long")
                if final:
                    return _decoded(kind, b"".join(parts))
            except _Violation as error:
                await self.close(error.code, str(error))
                return None

    def send(self, data: bytes | str) -> None:
        """Write a message without waiting; follow with `drain`."""
        opcode, payload = (_TEXT, data.encode()) if isinstance(data, str) else (_BINARY, data)
        if not self._closing:
            self._raw.write(_pack(opcode, payload))

    async def drain(self) -> None:
        """Wait until the client keeps up; ConnectionError when it is gone."""
        await self._raw.drain()

    def ping(self) -> None:
        """Ask for a sign of life."""
        if not self._closing:
            self._raw.write(_pack(_PING, b""))

    async def wait_heard(self, seconds: float) -> None:
        """Wait for the client's first frame, but no longer; it needs somebody in `receive`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._heard.wait()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye; the connection ends when the handler returns."""
        if not self._closing:
            self._raw.write(_pack(_CLOSE, _U16.pack(code) + reason.encode()[:120]))
            self._closing = True

    def _control(self, opcode: int, payload: bytes) -> bool:
        """Answer a control frame; True for the client's close."""
        if opcode == _PING and not self._closing:
            self._raw.write(_pack(_PONG, payload))
        if opcode != _CLOSE:
            return False
        if len(payload) == 1:
            raise _Violation(1002, "malformed close")
        if not self._closing:
            self._raw.write(_pack(_CLOSE, payload[:2]))
            self._closing = True
        return True

    async def _frame(self) -> tuple[bool, int, bytes] | None:
        if not await self._need(2):
            return None
        first, second = self._buffer[0], self._buffer[1]
        opcode = first & 0x0F
        if first & 0x70 or opcode not in (0, 1, 2, 8, 9, 10) or not second & 0x80:
            raise _Violation(1002, "malformed or unmasked frame")
        length = second & 0x7F
        if opcode >= _CLOSE and (length > 125 or not first & 0x80):
            raise _Violation(1002, "malformed control frame")
        width = {126: 2, 127: 8}.get(length, 0)
        if not await self._need(2 + width + 4):
            return None
        if width:
            packer = _U16 if width == 2 else _U64
            length = packer.unpack_from(self._buffer, 2)[0]
        if length > self._limit:
            raise _Violation(1009, "message too long")
        start = 2 + width + 4
        if not await self._need(start + length):
            return None
        mask = bytes(self._buffer[start - 4 : start])
        payload = _masked(bytes(self._buffer[start : start + length]), mask)
        del self._buffer[: start + length]
        self._heard.set()
        return bool(first & 0x80), opcode, payload

    async def _need(self, count: int) -> bool:
        while len(self._buffer) < count:
            data = await self._raw.read()
            if not data:
                return False
            self._buffer += data
        return True


def accept(request: Request, protocols: tuple[str, ...], limit: int) -> WebSocket:
    """Do the handshake; InvalidArgument when the request is none."""
    key = request.header("sec-websocket-key")
    if request.method != "GET" or request.upgrade != "websocket" or not _is_key(key):
        raise InvalidArgument("not a WebSocket handshake")
    if request.header("sec-websocket-version") != "13":
        raise InvalidArgument("only WebSocket version 13 is spoken here")
    offered = [p.strip() for p in request.header("sec-websocket-protocol").split(",") if p.strip()]
    chosen = next((p for p in offered if p in protocols), "")
    if offered and protocols and not chosen:
        raise InvalidArgument(f"none of the subprotocols {', '.join(offered)} is spoken here")
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": base64.b64encode(digest).decode(),
    }
    if chosen:
        headers["Sec-WebSocket-Protocol"] = chosen
    return WebSocket(request.hijack(101, headers), chosen, limit)


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def _message_kind(kind: int, opcode: int) -> int:
    """The message's kind after one more frame of it."""
    if opcode == _CONTINUATION:
        if not kind:
            raise _Violation(1002, "continuation of nothing")
        return kind
    if kind:
        raise _Violation(1002, "a new message within another")
    return opcode


def _decoded(kind: int, data: bytes) -> bytes | str:
    if kind == _BINARY:
        return data
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _Violation(1007, "text is not UTF-8") from None


def _masked(data: bytes, mask: bytes) -> bytes:
    """XOR with the repeated mask, as one big number: as fast as it gets without C of our own."""
    size = len(data)
    if not size:
        return data
    pattern = (mask * (size // 4 + 1))[:size]
    number = int.from_bytes(data, "little") ^ int.from_bytes(pattern, "little")
    return number.to_bytes(size, "little")


def _pack(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, size))
    elif size < 65536:
        head = bytes((0x80 | opcode, 126)) + _U16.pack(size)
    else:
        head = bytes((0x80 | opcode, 127)) + _U64.pack(size)
    return head + payload
