"""One gRPC health check (grpc.health.v1.Health/Check) over HTTP/2 with prior knowledge.

A framer for a single unary call: it sends its own headers as HPACK literals and does not decode the
server's: an answer SERVING in the data is the only success. Sources: RFC 9113, RFC 7541,
https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator

__all__ = ["SERVING", "check_health", "read_status", "request_bytes"]

SERVING = 1
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_ACK, _END_STREAM, _END_HEADERS, _PADDED = 1, 1, 4, 8
_LONGEST_FRAME = 1 << 16


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _text(value: bytes) -> bytes:
    """A string literal without Huffman coding (RFC 7541, 5.2)."""
    if len(value) < 127:
        return bytes([len(value)]) + value
    rest, encoded = len(value) - 127, b"\x7f"
    while rest >= 128:
        encoded += bytes([rest % 128 + 128])
        rest //= 128
    return encoded + bytes([rest]) + value


def _header(name: bytes, value: bytes) -> bytes:
    """A literal header field without indexing, new name (RFC 7541, 6.2.2)."""
    return b"\x00" + _text(name) + _text(value)


def request_bytes(authority: str, service: str) -> bytes:
    """Everything that the client sends first."""
    headers = b"".join(
        _header(name, value)
        for name, value in (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", b"/grpc.health.v1.Health/Check"),
            (b":authority", authority.encode()),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", b"kube-probe/1.32"),
        )
    )
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    body = b"\x00" + struct.pack(">I", len(message)) + message
    return (
        _PREFACE
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, 1, headers)
        + _frame(_DATA, _END_STREAM, 1, body)
    )


def _varint(number: int) -> bytes:
    encoded = b""
    while number > 127:
        encoded += bytes([number % 128 + 128])
        number //= 128
    return encoded + bytes([number])


def read_status(data: bytes) -> int | None:
    """The status of a HealthCheckResponse in gRPC's framing; None if it is not whole or compressed."""
    if len(data) < 5 or data[0]:
        return None
    size = struct.unpack(">I", data[1:5])[0]
    message = data[5 : 5 + size]
    if len(message) < size:
        return None
    # Field 1 as a varint; an absent one is UNKNOWN, 0.
    return message[1] if len(message) >= 2 and message[0] == 0x08 else 0


class _Reader:
    """Cuts what comes into frames."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        """(kind, flags, stream, payload) of each frame that is whole."""
        self._buffer += data
        while len(self._buffer) >= 9:
            size = int.from_bytes(self._buffer[:3], "big")
            if size > _LONGEST_FRAME:
                raise ConnectionError(f"frame of {size} bytes: this is no gRPC server")
            if len(self._buffer) < 9 + size:
                return
            kind, flags = self._buffer[3], self._buffer[4]
            stream = int.from_bytes(self._buffer[5:9], "big") & 0x7FFFFFFF
            payload = self._buffer[9 : 9 + size]
            self._buffer = self._buffer[9 + size :]
            yield kind, flags, stream, payload


async def check_health(host: str, port: int, service: str) -> int | None:
    """The status that the server tells; None if it ended the call without one."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request_bytes(f"{host}:{port}", service))
        frames, data = _Reader(), b""
        while received := await reader.read(1 << 16):
            for kind, flags, stream, payload in frames.feed(received):
                if kind == _SETTINGS and not flags & _ACK:
                    writer.write(_frame(_SETTINGS, _ACK, 0, b""))
                elif kind == _PING and not flags & _ACK:
                    writer.write(_frame(_PING, _ACK, 0, payload))
                elif kind == _DATA and stream == 1:
                    data += _unpadded(payload, flags)
                ends = kind in (_DATA, _HEADERS) and stream == 1 and flags & _END_STREAM
                if ends or kind == _GOAWAY or (kind == _RESET and stream == 1):
                    return read_status(data)
        return read_status(data)
    finally:
        writer.close()


def _unpadded(payload: bytes, flags: int) -> bytes:
    return payload[1 : len(payload) - payload[0]] if flags & _PADDED and payload else payload
