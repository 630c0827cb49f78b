"""SPDY/3.1 framing, server side, without I/O: bytes in, events out; calls give bytes to send.

Source: draft-mbelshe-httpbis-spdy-00 and its 3.1 revision. Clients of the Kubernetes API do no flow
control by WINDOW_UPDATE; neither does this: the connection's own back-pressure bounds both sides.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping

import msgspec

from sagong.errors import InvalidArgument
from sagong_kube.streams.spdy_dictionary import DICTIONARY

__all__ = ["DataCame", "GoneAway", "Spdy", "SpdyEvent", "StreamOpened", "StreamReset"]

_HEAD = struct.Struct(">II")
_CONTROL = 0x8003 << 16
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _HEADERS = 1, 2, 3, 4, 6, 7, 8
_FIN = 1
_FRAME_LIMIT = 1 << 20
_HEADERS_LIMIT = 64 << 10
_DATA_PIECE = 32 << 10


class StreamOpened(msgspec.Struct, frozen=True):
    """The peer opened a stream; its headers have lower-case names."""

    stream: int
    headers: dict[str, str]
    fin: bool


class DataCame(msgspec.Struct, frozen=True):
    """Bytes of a stream; with `fin` the peer sends no more on it."""

    stream: int
    data: bytes
    fin: bool


class StreamReset(msgspec.Struct, frozen=True):
    """The peer gave a stream up."""

    stream: int


class GoneAway(msgspec.Struct, frozen=True):
    """The peer opens no further streams."""


SpdyEvent = StreamOpened | DataCame | StreamReset | GoneAway


class Spdy:
    """One connection's state: an unfinished frame and the two header compressors."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._answers = bytearray()

    def feed(self, data: bytes) -> Iterator[SpdyEvent]:
        """Take bytes, yield what they say; frames that need an answer put it into `answers`."""
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            first, second = _HEAD.unpack_from(self._buffer)
            length = second & 0xFFFFFF
            if length > _FRAME_LIMIT:
                raise InvalidArgument(f"SPDY frame of {length} bytes exceeds {_FRAME_LIMIT}")
            end = _HEAD.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_HEAD.size : end])
            del self._buffer[:end]
            event = self._event(first, second >> 24, payload)
            if event is not None:
                yield event

    def answers(self) -> bytes:
        """What must be sent because of what came (pings)."""
        taken = bytes(self._answers)
        self._answers.clear()
        return taken

    def _event(self, first: int, flags: int, payload: bytes) -> SpdyEvent | None:
        if not first & 0x80000000:
            return DataCame(first, payload, bool(flags & _FIN))
        if (first >> 16) & 0x7FFF != 3:
            raise InvalidArgument(f"SPDY version {(first >> 16) & 0x7FFF}: only 3 is spoken here")
        try:
            return self._control(first & 0xFFFF, flags, payload)
        except struct.error:
            raise InvalidArgument("SPDY control frame is shorter than its type needs") from None

    def _control(self, kind: int, flags: int, payload: bytes) -> SpdyEvent | None:
        match kind:
            case 1:
                (stream,) = struct.unpack_from(">I", payload)
                headers = self._read_headers(payload[10:])
                return StreamOpened(stream & 0x7FFFFFFF, headers, bool(flags & _FIN))
            case 3:
                (stream, _status) = struct.unpack_from(">II", payload)
                return StreamReset(stream & 0x7FFFFFFF)
            case 6:
                (number,) = struct.unpack_from(">I", payload)
                # Even numbers are ours; only a peer's own ping is echoed.
                if number & 1:
                    self._answers += _control(_PING, 0, payload[:4])
            case 7:
                return GoneAway()
            case 8:
                self._read_headers(payload[4:])
        return None

    def _read_headers(self, block: bytes) -> dict[str, str]:
        try:
            plain = self._inflate.decompress(block, _HEADERS_LIMIT)
        except zlib.error as error:
            raise InvalidArgument(f"SPDY header block can't be inflated: {error}") from None
        if self._inflate.unconsumed_tail:
            raise InvalidArgument(f"SPDY header block exceeds {_HEADERS_LIMIT} bytes")
        (count,) = struct.unpack_from(">I", plain)
        at, headers = 4, {}
        for _ in range(count):
            name, at = _text(plain, at)
            headers[name.lower()], at = _text(plain, at)
        return headers

    def reply(self, stream: int, headers: Mapping[str, str] | None = None) -> bytes:
        """Accept a stream."""
        pairs = list((headers or {}).items())
        plain = len(pairs).to_bytes(4, "big") + b"".join(_packed(k) + _packed(v) for k, v in pairs)
        block = self._deflate.compress(plain) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return _control(_SYN_REPLY, 0, struct.pack(">I", stream) + block)

    @staticmethod
    def data(stream: int, data: bytes, *, fin: bool = False) -> bytes:
        """Bytes of a stream, in frames of moderate size."""
        if len(data) <= _DATA_PIECE:
            return _HEAD.pack(stream, (_FIN << 24 if fin else 0) | len(data)) + data
        pieces = [data[at : at + _DATA_PIECE] for at in range(0, len(data), _DATA_PIECE)]
        frames = [_HEAD.pack(stream, len(piece)) + piece for piece in pieces]
        return b"".join(frames) + (_HEAD.pack(stream, _FIN << 24) if fin else b"")

    @staticmethod
    def reset(stream: int, status: int = 5) -> bytes:
        """Give a stream up (5: cancel)."""
        return _control(_RST_STREAM, 0, struct.pack(">II", stream, status))

    @staticmethod
    def goaway(last_stream: int) -> bytes:
        """Say that the connection ends."""
        return _control(_GOAWAY, 0, struct.pack(">II", last_stream, 0))


def _control(kind: int, flags: int, payload: bytes) -> bytes:
    return _HEAD.pack(_CONTROL | kind, flags << 24 | len(payload)) + payload


def _packed(text: str) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(4, "big") + raw


def _text(plain: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from(">I", plain, at)
    end = at + 4 + length
    if end > len(plain):
        raise InvalidArgument("SPDY header block ends within a header")
    return plain[at + 4 : end].decode("utf-8", "replace"), end
