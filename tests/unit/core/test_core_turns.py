"""Turns of callers at a provider: nobody waits for all that others have sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
import zmq

from sagong.bus import turns
from sagong.bus.turns import Turns
from sagong.wire import EMPTY, VERSION, Envelope, Kind

BUSY, RARE = 7, 8


class Clock:
    """Time that passes only while something is worked on."""

    def __init__(self) -> None:
        self.now = 0

    def monotonic_ns(self) -> int:
        return self.now


class Hall:
    """Turns, and who was served; each envelope takes `cost` nanoseconds, a message's decoding more."""

    def __init__(self, clock: Clock, cost: int, decoding: int = 0) -> None:
        self.served: list[int] = []
        self._clock, self._cost, self._decoding = clock, cost, decoding
        self.turns = Turns(self._decode, self._dispatch, lambda uid: False)

    def send(self, uid: int, envelopes: int) -> None:
        assert self.turns.put(b"", uid, [zmq.Frame(bytes([envelopes]))])

    def _decode(self, peer: bytes, uid: int, frames: Sequence[zmq.Frame]) -> list[Envelope]:
        self._clock.now += self._decoding
        return [
            Envelope(VERSION, Kind.CALL, n, "", 0, 0, "", EMPTY) for n in range(frames[0].bytes[0])
        ]

    def _dispatch(self, peer: bytes, uid: int, envelope: Envelope) -> None:
        self._clock.now += self._cost
        self.served.append(uid)

    async def waits(self) -> int:
        """How much of the busy caller is served before the rare one, who comes now."""
        before = len(self.served)
        asyncio.get_running_loop().call_soon(self.send, RARE, 1)
        await until(lambda: RARE in self.served[before:])
        return self.served[before:].index(RARE)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never comes to it")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(turns, "time", made)
    return made


@pytest.mark.parametrize(
    ("cost", "alone", "among"), [(1_000, 64, 8), (30_000, 9, 4), (1_000_000, 1, 1)]
)
async def test_who_comes_waits_for_one_turn_of_another(
    clock: Clock, cost: int, alone: int, among: int
) -> None:
    hall = Hall(clock, cost)
    for _ in range(100):
        hall.send(BUSY, 200)
    clock.now += 1_000_000_000
    assert await hall.waits() <= alone
    for _ in range(20):
        assert await hall.waits() <= among


async def test_decoding_is_part_of_a_turn_and_never_all_of_it(clock: Clock) -> None:
    """Messages that take longer to decode than a turn is are served nevertheless, one at a time."""
    hall = Hall(clock, cost=1_000, decoding=2_000_000)
    for _ in range(5):
        hall.send(BUSY, 3)
    assert await hall.waits() <= 2
    await until(lambda: hall.served.count(BUSY) == 15)


async def test_messages_of_nothing_take_turns_too(clock: Clock) -> None:
    """Once a line of messages that could not be read was read to its end in one turn."""
    hall = Hall(clock, cost=1_000, decoding=50_000)
    hall.send(BUSY, 100)
    for _ in range(1000):
        hall.send(BUSY, 0)
    await until(lambda: hall.served.count(BUSY) == 100)
    before = clock.now
    await hall.waits()
    assert clock.now - before < 1_000_000


async def test_the_order_of_a_caller_is_kept(clock: Clock) -> None:
    seen: list[int] = []

    def decode(peer: bytes, uid: int, frames: Sequence[zmq.Frame]) -> list[Envelope]:
        first = frames[0].bytes[0]
        return [Envelope(VERSION, Kind.CALL, first + n, "", 0, 0, "", EMPTY) for n in range(20)]

    def dispatch(peer: bytes, uid: int, envelope: Envelope) -> None:
        clock.now += 40_000
        seen.append(envelope.id)

    found = Turns(decode, dispatch, lambda uid: False)
    for first in range(0, 200, 20):
        assert found.put(b"", BUSY, [zmq.Frame(bytes([first]))])
    await until(lambda: len(seen) == 200)
    assert seen == list(range(200))
