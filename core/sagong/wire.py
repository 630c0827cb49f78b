"""The wire format of the bus, without sockets: envelopes to frames and back.

One message on a socket is a first frame, a MessagePack array of envelopes gathered in one tick of
the sender's loop, and after it the bodies too large to be copied into it. An envelope is an array
`[version, kind, id, method, deadline, flags, cause, body]`; `docs/reference/wire.md` is the
description for implementers in other languages.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, IntFlag
from typing import Annotated, Any

import msgspec

from sagong.errors import Internal, InvalidArgument, SagongError, from_code

__all__ = [
    "BODY_LIMIT",
    "EMPTY",
    "ENVELOPE_LIMIT",
    "INLINE_LIMIT",
    "NAME_LIMIT",
    "VERSION",
    "WINDOW",
    "Envelope",
    "Flag",
    "Kind",
    "decode",
    "encode",
    "pack_error",
    "pack_value",
    "unpack_error",
]

VERSION = 1
INLINE_LIMIT = 32 << 10
BODY_LIMIT = 64 << 20
ENVELOPE_LIMIT = 4096
NAME_LIMIT = 512
WINDOW = 64


class Kind(IntEnum):
    """What an envelope means. The caller sends CALL, OPEN, CANCEL, CREDIT, PING."""

    CALL = 1  # one question, answered by REPLY, ERROR or GOAWAY
    REPLY = 2
    ERROR = 3  # body: [code, message, detail]; ends a call or a stream
    CANCEL = 4  # the caller no longer wants call or stream `id`
    OPEN = 5  # a stream is asked for, with WINDOW items of credit
    ITEM = 6
    CREDIT = 7  # body: how many more items may be sent
    END = 8  # the stream is complete
    GOAWAY = 9  # not executed and not to be: ask the next generation
    PING = 10  # answered by PONG
    PONG = 11


class Flag(IntFlag):
    """Bits of an envelope's flags."""

    NONE = 0
    FRAME = 1  # the body is the number of the frame that holds it, from 1
    UNBEGUN = 2  # of a GOAWAY: what is asked for has not begun, so it can be asked elsewhere


_Name = Annotated[str, msgspec.Meta(max_length=NAME_LIMIT)]


class Envelope(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One envelope; `deadline` is CLOCK_MONOTONIC in nanoseconds, 0 for none."""

    version: int
    kind: int
    id: int
    method: _Name
    deadline: int
    flags: int
    cause: _Name
    body: msgspec.Raw


EMPTY = msgspec.Raw(b"\xc0")
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[Envelope])
# The first byte of an array of 16 or more elements, and where their number ends.
_LONG_ARRAYS = {0xDC: 3, 0xDD: 5}
_FRAME_NUMBER = msgspec.msgpack.Decoder(int)
_ERROR = msgspec.msgpack.Decoder(tuple[str, str, dict[str, str]])


def encode(envelopes: Sequence[Envelope]) -> list[bytes]:
    """Frames of one message; large bodies get frames of their own."""
    extra: list[bytes] = []
    for envelope in envelopes:
        if len(envelope.body) > INLINE_LIMIT:
            envelopes = [_outlined(e, extra) for e in envelopes]
            break
    return [_ENCODER.encode(envelopes), *extra]


def _outlined(envelope: Envelope, extra: list[bytes]) -> Envelope:
    if len(envelope.body) <= INLINE_LIMIT:
        return envelope
    extra.append(bytes(envelope.body))
    number = msgspec.Raw(_ENCODER.encode(len(extra)))
    return msgspec.structs.replace(envelope, flags=envelope.flags | Flag.FRAME, body=number)


def decode(frames: Sequence[bytes | memoryview]) -> list[Envelope]:
    """Envelopes of one message; `InvalidArgument` says what is malformed."""
    if not frames:
        raise InvalidArgument("wire: a message without frames")
    count = _announced(frames[0])
    if count > ENVELOPE_LIMIT:  # before they are decoded, which could take long
        raise InvalidArgument(f"wire: {count} envelopes exceed {ENVELOPE_LIMIT}")
    try:
        envelopes = _DECODER.decode(frames[0])
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"wire: the first frame is no list of envelopes: {error}") from None
    if len(frames) == 1:
        return envelopes
    return [_inlined(e, frames) if e.flags & Flag.FRAME else e for e in envelopes]


def _announced(frame: bytes | memoryview) -> int:
    """How many elements the array of a frame says that it has; 0 for what is no long array."""
    size = _LONG_ARRAYS.get(frame[0], 0) if frame else 0
    return int.from_bytes(frame[1:size]) if size else 0


def _inlined(envelope: Envelope, frames: Sequence[bytes | memoryview]) -> Envelope:
    try:
        number = _FRAME_NUMBER.decode(envelope.body)
    except msgspec.MsgspecError:
        raise InvalidArgument("wire: a body's frame number is no integer") from None
    if not 1 <= number < len(frames):
        raise InvalidArgument(f"wire: frame {number} of {len(frames) - 1} is named, but not there")
    return msgspec.structs.replace(
        envelope, flags=envelope.flags & ~Flag.FRAME, body=msgspec.Raw(frames[number])
    )


def pack_value(value: Any) -> msgspec.Raw:
    """A message, or None, as a body; `Internal` when it exceeds what the bus carries."""
    if value is None:
        return EMPTY
    body = _ENCODER.encode(value)
    if len(body) > BODY_LIMIT:
        raise Internal(f"a body of {len(body)} bytes exceeds {BODY_LIMIT}; send it as a stream")
    return msgspec.Raw(body)


def pack_error(error: SagongError) -> msgspec.Raw:
    """The body of an ERROR."""
    return msgspec.Raw(_ENCODER.encode((error.code, error.message, error.detail)))


def unpack_error(body: msgspec.Raw) -> SagongError:
    """The exception that a peer's ERROR stands for."""
    try:
        return from_code(*_ERROR.decode(body))
    except msgspec.MsgspecError as error:
        return Internal(f"wire: malformed error from the peer: {error}")
