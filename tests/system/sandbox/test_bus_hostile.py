"""A caller without rights floods a provider of the bus; all others go on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest
import zmq
from sagong_hostile.wire import greeted

from sagong.bus import Access, Provider, Route, proxy, unfinished
from sagong.bus.admission import CONNECTIONS
from sagong.bus.refusals import QUIET_SECONDS
from sagong.contract import Message, method, slot
from sagong.pace import Pace
from sagong.wire import EMPTY, VERSION, Envelope, Kind, encode

pytestmark = pytest.mark.root
UID = 58911


class Word(Message):
    """A word."""

    text: str


@slot("parrot", version=1)
class Parrot(Protocol):
    """Says what it hears."""

    @method(idempotent=True)
    async def say(self, word: Word) -> Word:
        """The same."""
        ...

    @method(idempotent=True)
    async def dream(self) -> None:
        """Never come back."""
        ...

    @method(idempotent=True)
    def chatter(self) -> AsyncIterator[Word]:
        """Without end."""
        ...


class Bird:
    """Fills slot `parrot`."""

    def __init__(self) -> None:
        self.said = 0
        self.dreams = 0
        self.chattered = 0

    def say(self, word: Word) -> Word:
        """The same."""
        self.said += 1
        return word

    async def dream(self) -> None:
        """Never come back."""
        self.dreams += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.dreams -= 1

    async def chatter(self) -> AsyncIterator[Word]:
        """Without end."""
        while True:
            self.chattered += 1
            yield Word(text="x" * 1000)


class Cage:
    """A provider, and hostile processes of another uid beside it."""

    def __init__(self, directory: Path, pace: Pace | None) -> None:
        self.path = str(directory / "s")
        self.context: zmq.Context[Any] = zmq.Context()
        self.bird = Bird()
        self.provider = Provider(self.context, self.path, pace=pace)
        self.provider.serve(Parrot, self.bird)
        self.provider.bind()
        self.route = Route(self.context, "parrot")
        self.route.switch(1, self.path)
        self.parrot = proxy(Parrot, self.route)
        self._children: list[int] = []

    def grant(self, *methods: str) -> None:
        self.provider.grant({UID: Access("mallory", frozenset(f"parrot/1/{m}" for m in methods))})

    def attack(self, action: Callable[[str], Any]) -> None:
        """A child without rights that acts until it is killed."""
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            code = 1
            try:
                os.setgroups([])
                os.setresgid(UID, UID, UID)
                os.setresuid(UID, UID, UID)
                action(self.path)
                code = 0
            finally:
                os._exit(code)
        self._children.append(pid)

    async def hears_the_innocent(self) -> None:
        """A caller with rights is answered, again and again."""
        for _ in range(20):
            async with asyncio.timeout(60):
                assert (await self.parrot.say(Word(text="hello"))).text == "hello"

    def ended(self) -> list[int]:
        """Exit codes of those attacks that have ended."""
        found = []
        for pid in list(self._children):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                self._children.remove(pid)
                found.append(os.waitstatus_to_exitcode(status))
        return found

    def end_attacks(self) -> None:
        """Kill those that attack."""
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    async def close(self) -> None:
        self.end_attacks()
        self.route.close()
        await self.provider.close()
        self.context.destroy(linger=0)


@contextlib.asynccontextmanager
async def caged(directory: Path, pace: Pace | None = None) -> AsyncIterator[Cage]:
    """A cage that is cleared away."""
    directory.chmod(0o755)
    made = Cage(directory, pace)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may enter."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="sagong-bird-") as name:
        yield Path(name)


async def until(condition: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit, what
        await asyncio.sleep(0.01)


def dealer(path: str) -> zmq.Socket[bytes]:
    """A raw socket of an attacker, in a context of its own."""
    made: zmq.Socket[bytes] = zmq.Context().socket(zmq.DEALER)
    made.linger = 0
    made.connect(f"ipc://{path}")
    return made


def asked(kind: Kind, id_: int, name: str, body: msgspec.Raw = EMPTY) -> Envelope:
    return Envelope(VERSION, kind, id_, name and f"parrot/1/{name}", 0, 0, "", body)


def flood(frames: list[bytes]) -> Callable[[str], None]:
    """Send the same message for ever, and read no answer."""

    def go(path: str) -> None:
        made = dealer(path)
        while True:
            made.send_multipart(frames)

    return go


WORD = msgspec.Raw(msgspec.msgpack.encode({"text": "x" * 1000}))
FLOODS = {
    "ungranted calls": encode([asked(Kind.CALL, n, "dream") for n in range(4096)]),
    "unknown methods": encode([asked(Kind.CALL, n, "nothing") for n in range(4096)]),
    "pings": encode([asked(Kind.PING, 1, "")] * 4096),
    "answers nobody reads": encode([asked(Kind.CALL, 1, "say", WORD)] * 16),
    "malformed": [b"\xff" * 100],
    "too many envelopes": [b"\xdd\x00\x7f\xff\xff" + b"\x90" * (1 << 20)],
    "a long method": encode([Envelope(VERSION, Kind.CALL, 1, "x" * 10_000, 0, 0, "", EMPTY)]),
    "a long cause": encode([Envelope(VERSION, Kind.CALL, 1, "x", 0, 0, "y" * 10_000, EMPTY)]),
}


@pytest.mark.parametrize("kind", FLOODS)
async def test_floods_are_shut_out_and_said_once(
    place: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    caplog.set_level(logging.WARNING, "sagong.bus")
    async with caged(place) as cage:
        cage.grant("say")
        cage.attack(flood(FLOODS[kind]))
        await until(
            lambda: any("shut out" in r.message for r in caplog.records), f"{kind} is let through"
        )
        await cage.hears_the_innocent()
    assert len(caplog.records) <= 4, [r.message for r in caplog.records]


async def test_granted_calls_beyond_a_pace_are_not_carried_out(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel had such a pace, and nobody asked whether it was kept."""

    def chat(path: str) -> None:
        made = dealer(path)
        while True:
            made.send_multipart(encode([asked(Kind.CALL, 1, "say", WORD)]))
            made.recv_multipart()

    caplog.set_level(logging.WARNING, "sagong.bus")
    async with caged(place, Pace(burst=8, rate=0.001)) as cage:
        cage.grant("say")
        cage.attack(chat)
        await until(
            lambda: any("shut out" in r.message for r in caplog.records), "it goes on for ever"
        )
        assert cage.bird.said == 8
        await cage.hears_the_innocent()
    assert len(caplog.records) <= 4, [r.message for r in caplog.records]


async def test_connections_of_a_uid_are_bounded(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def connect(path: str) -> None:
        kept = []
        while True:
            made = socket.socket(socket.AF_UNIX)
            try:
                made.connect(path)
                kept.append(made)
            except OSError:
                time.sleep(0.01)
            if len(kept) > 3 * CONNECTIONS:
                kept.clear()

    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    began = time.monotonic()
    async with caged(place) as cage:
        before = open_files()
        cage.attack(connect)
        await until(lambda: bool(caplog.records), "nothing was refused")
        for _ in range(50):
            await cage.hears_the_innocent()
        await until(lambda: open_files() < before + 2 * CONNECTIONS, "connections stay")
    periods = int((time.monotonic() - began) / QUIET_SECONDS)
    refused = [r.__dict__ for r in caplog.records if r.message == "connection refused"]
    assert {r["uid"] for r in refused} == {UID}
    # Said once; those that follow are a number at the end of a period, where it took so long.
    assert ["times" in r for r in refused] == [False] + [True] * (len(refused) - 1)
    assert len(refused) <= 1 + periods


async def test_calls_in_flight_are_counted_over_all_connections(place: Path) -> None:
    def dream(path: str) -> None:
        sockets = [dealer(path) for _ in range(8)]
        for made in sockets:
            for start in range(0, 2000, 100):
                made.send_multipart(
                    encode([asked(Kind.CALL, start + n, "dream") for n in range(100)])
                )
        time.sleep(60)

    async with caged(place) as cage:
        cage.grant("dream")
        cage.attack(dream)
        await until(lambda: cage.bird.dreams == 4096, f"{cage.bird.dreams} of 4096 dream")
        await cage.hears_the_innocent()
        await asyncio.sleep(0.2)
        assert cage.bird.dreams == 4096
        assert cage.provider.counters.in_flight == 4096


async def test_the_same_id_twice_does_not_hide_a_call(place: Path) -> None:
    def dream(path: str) -> None:
        made = dealer(path)
        made.send_multipart(encode([asked(Kind.CALL, 1, "dream")] * 100))
        time.sleep(60)

    async with caged(place) as cage:
        cage.grant("dream")
        cage.attack(dream)
        await until(lambda: cage.bird.dreams > 0, "it does not dream")
        await cage.hears_the_innocent()
        assert cage.bird.dreams == 1


async def test_credit_without_end_does_not_fill_memory(place: Path) -> None:
    """Whoever gives credit and reads nothing gets a window, whatever it gives."""

    def listen(path: str) -> None:
        made = dealer(path)
        made.rcvhwm = 1
        made.send_multipart(encode([asked(Kind.OPEN, 1, "chatter")]))
        credit = msgspec.Raw(msgspec.msgpack.encode(1 << 40))
        made.send_multipart(encode([asked(Kind.CREDIT, 1, "", credit)]))
        time.sleep(60)

    async with caged(place) as cage:
        cage.grant("chatter")
        cage.attack(listen)
        await until(lambda: cage.bird.chattered > 0, "it is silent")
        await cage.hears_the_innocent()
        assert cage.bird.chattered <= 2 * 64 + 1


async def test_an_unread_flood_does_not_make_the_provider_spin(place: Path) -> None:
    """Once a peer that read nothing made the provider try again at every turn of its loop."""

    def answers(path: str) -> None:
        made = dealer(path)
        made.rcvhwm = 1
        for id_ in range(3000):
            made.send_multipart(encode([asked(Kind.CALL, id_, "say", WORD)]))
            time.sleep(0.0005)
        time.sleep(60)

    async with caged(place) as cage:
        cage.grant("say")
        cage.attack(answers)
        await until(lambda: bool(cage.provider._socket._waiting), "everything was taken")
        cage.provider._socket._wake, turns = counted(cage.provider._socket._wake)  # type: ignore[method-assign]
        await asyncio.sleep(1.0)
        assert turns[0] < 2000
        await cage.hears_the_innocent()


def counted(function: Callable[[], None]) -> tuple[Callable[[], None], list[int]]:
    """A function that counts how often it is called."""
    count = [0]

    def call() -> None:
        count[0] += 1
        function()

    return call, count


async def test_a_provider_that_sends_more_than_asked_for_is_left(place: Path) -> None:
    """The other way round: a hostile provider can't fill the memory of its callers."""
    context: zmq.Context[Any] = zmq.Context()
    server = context.socket(zmq.ROUTER)
    server.bind(f"ipc://{place}/h")
    route = Route(context, "parrot")
    route.switch(1, f"{place}/h")

    async def answer() -> None:
        while not server.poll(0):
            await asyncio.sleep(0.01)
        peer, frame = server.recv_multipart()
        id_ = msgspec.msgpack.decode(frame, type=list[Envelope])[0].id
        item = asked(Kind.ITEM, id_, "", WORD)
        for _ in range(100):
            server.send_multipart([peer, *encode([item] * 100)])

    task = asyncio.create_task(answer())
    try:
        taken = 0
        with pytest.raises(Exception, match="more items than were asked for"):
            async for _ in proxy(Parrot, route).chatter():
                taken += 1
                await asyncio.sleep(0.001)
        assert taken <= 2 * 64
    finally:
        await task
        route.close()
        context.destroy(linger=0)


async def test_parts_without_end_are_cut_however_small(
    place: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drip(path: str) -> None:
        made = greeted(path)
        with contextlib.suppress(OSError):
            while True:
                made.sendall(b"\x01\x01x")
                time.sleep(0.001)

    monkeypatch.setattr(unfinished, "_TIMES", 25)
    async with caged(place) as cage:
        cage.grant("say")
        cage.attack(drip)
        await until(
            lambda: any("without an end" in r.message for r in caplog.records), "it drips on"
        )
        await until(lambda: bool(cage.ended()), "its connection is not cut")
        await cage.hears_the_innocent()
    assert len(caplog.records) == 1, [r.message for r in caplog.records]


async def test_who_sends_large_messages_that_end_is_served(place: Path) -> None:
    """As large as the bus carries, one after the other: that is no message without an end."""

    def say(path: str) -> None:
        body = msgspec.Raw(msgspec.msgpack.encode({"text": "x" * (30 << 20)}))
        made = dealer(path)
        for number in range(6):
            made.send_multipart(encode([asked(Kind.CALL, number, "say", body)]))
            answer = msgspec.msgpack.decode(made.recv_multipart()[0], type=list[Envelope])[0]
            assert answer.kind == Kind.REPLY

    async with caged(place) as cage:
        cage.grant("say")
        cage.attack(say)
        await until(lambda: cage.ended() == [0], "it was not served")
