"""A provider's reception as a fuzz target: what a peer may send it, once it is past libzmq."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import tempfile
from collections.abc import AsyncIterator
from typing import Any, Protocol

import msgspec
import zmq

from sagong.bus import Access, Provider
from sagong.contract import Message, method, slot
from sagong.wire import EMPTY, VERSION, Envelope, Kind, encode

__all__ = ["PROVIDER_SEEDS", "receive"]

_TURNS = 8


class Word(Message):
    """A word."""

    text: str


@slot("parrot", version=1)
class Parrot(Protocol):
    """Says what it hears, at once, later, and again and again."""

    @method(idempotent=True)
    async def say(self, word: Word) -> Word: ...

    @method(idempotent=True)
    async def think(self, word: Word) -> Word: ...

    @method(idempotent=True)
    def chatter(self, word: Word) -> AsyncIterator[Word]: ...


class Bird:
    """Fills slot `parrot`."""

    def say(self, word: Word) -> Word:
        """At once."""
        return word

    async def think(self, word: Word) -> Word:
        """Later."""
        await asyncio.sleep(0)
        return word

    async def chatter(self, word: Word) -> AsyncIterator[Word]:
        """Again and again."""
        while True:
            yield word


class _Stage:
    """A loop of its own with a provider that nobody is connected to."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.place = tempfile.TemporaryDirectory(prefix="sagong-fuzz-")
        self.provider = self.loop.run_until_complete(self._made())

    async def _made(self) -> Provider:
        found = Provider(zmq.Context(), f"{self.place.name}/s")
        found.serve(Parrot, Bird())
        found.bind()
        return found

    async def feed(self, frames: list[bytes]) -> None:
        """As the provider's socket does with a message of a uid that is no one's."""
        stranger: Any = self.provider
        stranger._receive([zmq.Frame(b"peer!"), *map(zmq.Frame, frames)])
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        tasks = [task for calls in stranger._tasks.values() for task in calls.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not stranger._tasks and not stranger._streams and not stranger._under_way
        stranger._admission.forgive(-1)


@functools.cache
def _stage(pid: int) -> _Stage:
    return _Stage()


def receive(data: bytes) -> None:
    """The first byte says what is granted; then frames, cut where a marker stands."""
    stage = _stage(os.getpid())
    names = [
        n for bit, n in enumerate(("say", "think", "chatter")) if data[:1] and data[0] >> bit & 1
    ]
    granted = Access("mallory", frozenset(f"parrot/1/{name}" for name in names))
    stage.provider.grant({-1: granted})
    with contextlib.suppress(asyncio.CancelledError):
        stage.loop.run_until_complete(stage.feed(data[1:].split(b"\xc1\xc1")))


def _sent(*envelopes: Envelope) -> bytes:
    return b"\x07" + b"\xc1\xc1".join(bytes(frame) for frame in encode(list(envelopes)))


_WORD = msgspec.Raw(msgspec.msgpack.encode({"text": "x"}))
_CREDIT = msgspec.Raw(msgspec.msgpack.encode(32))
PROVIDER_SEEDS = (
    _sent(Envelope(VERSION, Kind.CALL, 1, "parrot/1/say", 0, 0, "", _WORD)),
    _sent(
        Envelope(VERSION, Kind.OPEN, 2, "parrot/1/chatter", 0, 0, "a.1", _WORD),
        Envelope(VERSION, Kind.CREDIT, 2, "", 0, 0, "", _CREDIT),
        Envelope(VERSION, Kind.CANCEL, 2, "", 0, 0, "", EMPTY),
    ),
    _sent(
        Envelope(VERSION, Kind.CALL, 3, "parrot/1/think", 0, 0, "", _WORD),
        Envelope(VERSION, Kind.CALL, 3, "parrot/1/think", 1, 0, "", _WORD),
        Envelope(VERSION, Kind.PING, 4, "", 0, 0, "", EMPTY),
    ),
)
