"""The wire format, held against an independent MessagePack implementation."""

from __future__ import annotations

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagong import wire
from sagong.errors import InvalidArgument, NotFound, Unavailable
from sagong.wire import Envelope, Flag, Kind


def envelope(body: bytes, *, id_: int = 1) -> Envelope:
    return Envelope(1, Kind.CALL, id_, "echo/1/say", 5, 0, "cause", msgspec.Raw(body))


def test_a_stranger_reads_what_we_send() -> None:
    frames = wire.encode([envelope(msgpack.packb({"a": 1}))])
    assert msgpack.unpackb(frames[0]) == [[1, 1, 1, "echo/1/say", 5, 0, "cause", {"a": 1}]]


def test_we_read_what_a_stranger_sends() -> None:
    sent = msgpack.packb([[1, Kind.REPLY, 7, "", 0, 0, "", {"b": [1, 2]}]])
    (found,) = wire.decode([sent])
    assert (found.kind, found.id) == (Kind.REPLY, 7)
    assert msgpack.unpackb(bytes(found.body)) == {"b": [1, 2]}


def test_a_large_body_has_a_frame_of_its_own() -> None:
    large = msgpack.packb(b"x" * wire.INLINE_LIMIT)
    frames = wire.encode([envelope(b"\x01"), envelope(large, id_=2)])
    assert len(frames) == 2
    first, second = wire.decode(frames)
    assert bytes(first.body) == b"\x01"
    assert bytes(second.body) == large
    assert not second.flags & Flag.FRAME


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "without frames"),
        ([b"\xc1"], "no list of envelopes"),
        ([msgpack.packb([[1, 1]])], "no list of envelopes"),
        ([msgpack.packb([[1, 1, 1, "m", 0, 1, "", 9]]), b"\x01"], "frame 9 of 1"),
        ([msgpack.packb([[1, 1, 1, "m", 0, 1, "", "x"]]), b"\x01"], "no integer"),
    ],
)
def test_what_is_malformed_is_refused(frames: list[bytes], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        wire.decode(frames)


@given(st.lists(st.binary(max_size=300), max_size=4))
def test_no_bytes_crash_the_decoder(frames: list[bytes]) -> None:
    try:
        wire.decode(frames)
    except InvalidArgument:
        pass


@given(st.lists(st.binary(max_size=100_000), min_size=1, max_size=5))
def test_bodies_survive_the_way(bodies: list[bytes]) -> None:
    sent = [envelope(msgpack.packb(body), id_=n) for n, body in enumerate(bodies)]
    found = wire.decode(wire.encode(sent))
    assert [msgpack.unpackb(bytes(e.body)) for e in found] == bodies


def test_an_error_keeps_its_class_message_and_facts() -> None:
    error = wire.unpack_error(wire.pack_error(NotFound("no pod x", detail={"kind": "Pod"})))
    assert isinstance(error, NotFound)
    assert (error.message, error.detail) == ("no pod x", {"kind": "Pod"})
    lost = wire.unpack_error(wire.pack_error(Unavailable("gone", maybe_executed=True)))
    assert isinstance(lost, Unavailable)
    assert lost.maybe_executed
