"""Calls, streams, deadlines, cancellation, access and replacement, over real ipc sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import zmq

from sagong.bus import Access, Provider, Route, proxy
from sagong.call import PassedOn, current, deadline, detached
from sagong.contract import Message, method, slot
from sagong.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
    Unimplemented,
)


class Word(Message):
    text: str


class Count(Message):
    number: int


@slot("echo", version=1)
class Echo(Protocol):
    """Says back."""

    @method(idempotent=True, raises=(NotFound,), seconds=60.0)
    async def say(self, word: Word) -> Word: ...

    @method(idempotent=False, seconds=60.0)
    async def once(self, word: Word) -> Word: ...

    @method(idempotent=True, seconds=60.0)
    def count(self, count: Count) -> AsyncIterator[Count]: ...


class Speaker:
    """What words mean: `wait` waits, `missing` is NotFound, `break` is a defect."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.sent = 0
        self.closed = 0
        self.release = asyncio.Event()
        self.last = False

    async def say(self, word: Word) -> Word:
        match word.text:
            case "wait":
                try:
                    await self.release.wait()
                except asyncio.CancelledError:
                    self.cancelled += 1
                    raise
            case "pass on":
                await self.release.wait()
                if not self.last:
                    raise PassedOn("ask my successor")
            case "missing":
                raise NotFound("no such word")
            case "break":
                raise ValueError("a defect")
            case "cause":
                return Word(text=current().cause)
            case "deadline":
                return Word(text=str(current().deadline))
        return word

    once = say

    async def count(self, count: Count) -> AsyncIterator[Count]:
        try:
            for number in range(count.number):
                self.sent += 1
                yield Count(number=number)
        finally:
            self.closed += 1


class Bench:
    """A speaker behind a provider, and a route to it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.context: zmq.Context[Any] = zmq.Context()
        self.route = Route(self.context, "echo")
        self.echo = proxy(Echo, self.route)
        self.generation = 0
        self.providers: list[Provider] = []

    def serve(self) -> tuple[Speaker, Provider]:
        """Another generation."""
        self.generation += 1
        speaker = Speaker()
        provider = Provider(self.context, str(self.directory / f"{self.generation}"))
        provider.serve(Echo, speaker)
        provider.bind()
        self.providers.append(provider)
        self.route.switch(self.generation, provider.path)
        return speaker, provider


async def busy(provider: Provider, calls: int) -> None:
    """Wait until it has so many calls under way."""
    async with asyncio.timeout(60):
        while provider.counters.in_flight < calls:
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def bench(directory: Path) -> AsyncIterator[Bench]:
    made = Bench(directory)
    try:
        yield made
    finally:
        made.route.close()
        for provider in made.providers:
            await provider.close()
        made.context.destroy(linger=0)


async def test_a_call_is_answered_and_errors_keep_their_class(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.serve()
        assert (await b.echo.say(Word(text="hello"))).text == "hello"
        with pytest.raises(NotFound, match="no such word"):
            await b.echo.say(Word(text="missing"))
        with pytest.raises(Internal, match="ValueError: a defect"):
            await b.echo.say(Word(text="break"))


async def test_cause_and_deadline_travel(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.serve()
        with detached("request-7"):
            assert (await b.echo.say(Word(text="cause"))).text == "request-7"
        with deadline(10.0):
            near = int((await b.echo.say(Word(text="deadline"))).text)
        far = int((await b.echo.say(Word(text="deadline"))).text)
        assert 0 < near < far


async def test_a_call_ends_at_its_deadline_and_is_cancelled_there(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        speaker, _ = b.serve()
        await b.echo.say(Word(text="warm"))  # a question whose time is over is not even begun
        with deadline(1.0), pytest.raises(DeadlineExceeded):
            await b.echo.say(Word(text="wait"))
        async with asyncio.timeout(60):
            while not speaker.cancelled:
                await asyncio.sleep(0.01)


async def test_a_cancelled_caller_cancels_the_work(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        speaker, provider = b.serve()
        calling = asyncio.create_task(b.echo.say(Word(text="wait")))
        await busy(provider, 1)
        calling.cancel()
        async with asyncio.timeout(60):
            while not speaker.cancelled:
                await asyncio.sleep(0.01)


async def test_work_that_is_given_up_before_it_begins_is_no_warning(tmp_path: Path) -> None:
    """The process ends in the turn in which a call comes; its log said "never awaited"."""
    async with bench(tmp_path) as b:
        _, provider = b.serve()
        await b.echo.say(Word(text="warm"))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            calling = asyncio.create_task(b.echo.say(Word(text="wait")))
            await busy(provider, 1)
            b.providers.remove(provider)
            await provider.close()
            gc.collect()
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)
        assert [str(one.message) for one in told] == []
        assert not provider.counters.in_flight


async def test_a_slow_reader_slows_its_producer(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        speaker, _ = b.serve()
        stream = b.echo.count(Count(number=10_000))
        assert (await anext(stream)).number == 0
        await asyncio.sleep(0.1)
        assert speaker.sent < 200
        async with asyncio.timeout(60):
            assert [c.number async for c in stream] == list(range(1, 10_000))


async def test_who_leaves_a_stream_closes_it_at_the_provider(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        speaker, _ = b.serve()
        stream = b.echo.count(Count(number=10_000))
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        async with asyncio.timeout(60):
            while not speaker.closed:
                await asyncio.sleep(0.01)


async def test_a_call_waits_for_a_provider(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        calling = asyncio.create_task(b.echo.say(Word(text="early")))
        await asyncio.sleep(0.05)
        b.serve()
        assert (await calling).text == "early"


async def test_a_draining_provider_sends_new_calls_to_its_successor(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        old, first = b.serve()
        slow = asyncio.create_task(b.echo.say(Word(text="wait")))
        await busy(first, 1)
        draining = asyncio.create_task(first.drain(60.0))
        await asyncio.sleep(0)
        refused = asyncio.create_task(b.echo.once(Word(text="new")))
        await asyncio.sleep(0.05)
        b.serve()
        assert (await refused).text == "new"
        old.release.set()
        assert (await slow).text == "wait"
        await draining


async def test_a_call_that_outlasts_a_drain_is_given_up_and_asked_of_the_successor(
    tmp_path: Path,
) -> None:
    """It went on beside the successor, and changed what that one had been handed over."""
    async with bench(tmp_path) as b:
        old, first = b.serve()
        slow = asyncio.create_task(b.echo.say(Word(text="wait")))
        once = asyncio.create_task(b.echo.once(Word(text="wait")))
        await busy(first, 2)
        await first.drain(0.1)
        assert not slow.done() and old.cancelled == 0
        await first.cut(60.0)
        assert old.cancelled == 2 and not first.counters.in_flight
        new, _ = b.serve()
        new.release.set()
        assert (await slow).text == "wait"
        with pytest.raises(Unavailable, match="may have been executed") as told:
            await once
        assert told.value.detail["maybe_executed"] == "true"


async def test_what_a_draining_provider_passes_on_its_successor_is_asked(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        old, first = b.serve()
        long = asyncio.create_task(b.echo.once(Word(text="pass on")))
        await busy(first, 1)
        draining = asyncio.create_task(first.drain(60.0))
        await asyncio.sleep(0)
        old.release.set()
        await draining
        assert not long.done()
        new, _ = b.serve()
        new.last = True
        new.release.set()
        assert (await long).text == "pass on"


async def test_who_passes_a_call_on_without_draining_is_unavailable(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        speaker, _ = b.serve()
        speaker.release.set()
        with pytest.raises(Unavailable, match="ask my successor"):
            await b.echo.once(Word(text="pass on"))


async def test_a_drained_provider_refuses_until_its_callers_have_left(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        _, first = b.serve()
        assert (await b.echo.say(Word(text="here"))).text == "here"
        await first.drain(60.0)
        leaving = asyncio.create_task(first.wait_deserted(60.0))
        late = asyncio.create_task(b.echo.once(Word(text="late")))
        await asyncio.sleep(0.05)
        assert not leaving.done() and not late.done()
        b.serve()
        assert (await late).text == "late"
        await leaving


async def test_a_dead_provider_fails_once_and_repeats_what_may_be_repeated(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        _, first = b.serve()
        repeatable = asyncio.create_task(b.echo.say(Word(text="wait")))
        single = asyncio.create_task(b.echo.once(Word(text="wait")))
        stream = b.echo.count(Count(number=10_000))
        await anext(stream)
        await busy(first, 2)
        b.route.bury(first.path)
        with pytest.raises(Unavailable) as caught:
            await single
        assert caught.value.maybe_executed
        with pytest.raises(Unavailable, match="open it again"):
            async for _ in stream:
                pass
        successor, _ = b.serve()
        successor.release.set()
        assert (await repeatable).text == "wait"


async def test_what_a_provider_has_not_done_when_it_ends_is_lost_with_it(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        _, first = b.serve()
        repeatable = asyncio.create_task(b.echo.say(Word(text="wait")))
        single = asyncio.create_task(b.echo.once(Word(text="wait")))
        await busy(first, 2)
        await first.drain(0.05)
        successor, _ = b.serve()
        successor.release.set()
        b.providers.remove(first)
        await first.close()
        b.route.bury(first.path)
        assert (await repeatable).text == "wait"
        with pytest.raises(Unavailable) as caught:
            await single
        assert caught.value.maybe_executed


async def test_only_what_is_granted_may_be_called(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        _, provider = b.serve()
        provider._trusted = set()
        provider.grant({0: Access("tester", frozenset({"echo/1/say"}))})
        assert (await b.echo.say(Word(text="granted"))).text == "granted"
        with pytest.raises(PermissionDenied, match=r"tester may not call echo/1/once"):
            await b.echo.once(Word(text="refused"))
        provider.grant({0: Access("tester", frozenset({"echo/1/*"}))})
        assert (await b.echo.once(Word(text="now"))).text == "now"


async def test_what_is_not_served_and_what_is_malformed_is_said(tmp_path: Path) -> None:
    @slot("other", version=1)
    class Other(Protocol):
        @method(idempotent=True)
        async def say(self, word: Word) -> Word: ...

    @slot("echo", version=1)
    class Wrong(Protocol):
        @method(idempotent=True)
        async def say(self, count: Count) -> Word: ...

    Other.say.__annotations__ = {"word": Word, "return": Word}
    Wrong.say.__annotations__ = {"count": Count, "return": Word}
    async with bench(tmp_path) as b:
        b.serve()
        with pytest.raises(Unimplemented, match="no method other/1/say"):
            await proxy(Other, b.route).say(Word(text="x"))
        with pytest.raises(InvalidArgument, match="text"):
            await proxy(Wrong, b.route).say(Count(number=1))


async def test_garbage_on_the_socket_harms_nobody(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        _, provider = b.serve()
        hostile = b.context.socket(zmq.DEALER)
        hostile.connect(f"ipc://{provider.path}")
        for _ in range(100):
            hostile.send_multipart([b"\xff" * 50, b"", b"\x00"])
        assert (await b.echo.say(Word(text="fine"))).text == "fine"
        async with asyncio.timeout(60):
            while provider.counters.refused < 100:
                await asyncio.sleep(0.01)
        hostile.close(linger=0)


async def test_who_renews_a_way_hears_that_his_stream_has_ended(tmp_path: Path) -> None:
    """Its end is what he renews the way for: the stream must not wait for that."""
    async with bench(tmp_path) as world:
        _, provider = world.serve()
        world.route.renew(provider.path)
        items = aiter(world.echo.count(Count(number=1)))
        first = asyncio.ensure_future(anext(items))
        await asyncio.sleep(0)  # it is on its way, and nothing has come of it
        world.route.bury(provider.path)
        async with asyncio.timeout(60):
            with pytest.raises(Unavailable, match="open it again"):
                await first


async def test_a_stream_that_finds_no_successor_ends_as_any_other(tmp_path: Path) -> None:
    """Whoever hears events opens it anew; a deadline of a call would end his process."""
    async with bench(tmp_path) as world:
        _, provider = world.serve()
        with deadline(1.0):
            first = asyncio.ensure_future(anext(aiter(world.echo.count(Count(number=1)))))
        await asyncio.sleep(0)  # it is on its way, and nothing has come of it
        world.route.bury(provider.path)
        with pytest.raises(Unavailable, match="nothing serves echo now"):
            await first
