"""What does not grow, and does not leak, however long a bus is used."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import zmq
from tests.small_disk import mounted

from sagong.bus import Provider, Route, proxy
from sagong.bus.admission import _peer
from sagong.contract import Message, method, slot
from sagong.errors import FailedPrecondition, Internal, InvalidArgument, ResourceExhausted


class Word(Message):
    text: str


@slot("say", version=1)
class Say(Protocol):
    @method(idempotent=True, seconds=3600.0)
    async def say(self, word: Word) -> Word: ...

    @method(idempotent=True, raises=(InvalidArgument,))
    def flow(self, word: Word) -> AsyncIterator[Word]: ...


class Three:
    """An iterator that is no generator."""

    def __init__(self) -> None:
        self._left = 3

    def __aiter__(self) -> Three:
        return self

    async def __anext__(self) -> Word:
        if not self._left:
            raise StopAsyncIteration
        self._left -= 1
        return Word(text=str(self._left))


class Speaker:
    def say(self, word: Word) -> Word:
        return word

    def flow(self, word: Word) -> Any:
        if word.text == "defect":
            raise ValueError("no")
        if word.text == "refused":
            raise InvalidArgument("not this")
        return Three()


@contextlib.asynccontextmanager
async def speaking(tmp_path: Path) -> AsyncIterator[tuple[Any, Route]]:
    context: zmq.Context[Any] = zmq.Context()
    provider = Provider(context, str(tmp_path / "s"))
    provider.serve(Say, Speaker())
    provider.bind()
    route = Route(context, "say")
    route.switch(1, str(tmp_path / "s"))
    try:
        yield proxy(Say, route), route
    finally:
        route.close()
        await provider.close()
        context.destroy(linger=0)


async def test_deadlines_of_answered_calls_are_not_kept(tmp_path: Path) -> None:
    """An hour's worth of quick calls would be hundreds of megabytes."""
    async with speaking(tmp_path) as (say, route):
        for _ in range(40):
            await asyncio.gather(*(say.say(Word(text="x")) for _ in range(100)))
        link: Any = route._link
        assert len(link._deadlines) < 2000
        assert await say.say(Word(text="and on")) == Word(text="and on")


async def test_who_waits_for_somebody_to_serve_waits_until_then_or_until_nobody_ever_will(
    tmp_path: Path,
) -> None:
    async with speaking(tmp_path) as (_, served):
        async with asyncio.timeout(10.0):
            await served.wait_served()
        path = str(tmp_path / "s")
        served.bury(path)
        waiting = asyncio.create_task(served.wait_served())
        served.down = "nothing provides it"
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done(), "who is refused would ask again and again"
        served.switch(2, path)
        async with asyncio.timeout(10.0):
            await waiting
        served.bury(path)
        waiting = asyncio.create_task(served.wait_served())
        served.withdraw()
        async with asyncio.timeout(10.0):
            await waiting


@pytest.mark.parametrize(("text", "kind"), [("defect", Internal), ("refused", InvalidArgument)])
async def test_a_stream_that_fails_before_it_is_one_is_told(
    tmp_path: Path, text: str, kind: type[Exception]
) -> None:
    """Its caller waited for ever."""
    async with speaking(tmp_path) as (say, _), asyncio.timeout(60):
        with pytest.raises(kind):
            async for _ in say.flow(Word(text=text)):
                pass


async def test_a_stream_may_be_any_iterator(tmp_path: Path) -> None:
    async with speaking(tmp_path) as (say, _), asyncio.timeout(60):
        assert [word.text async for word in say.flow(Word(text="x"))] == ["2", "1", "0"]


def test_looking_at_what_is_no_connection_any_more_leaks_nothing(tmp_path: Path) -> None:
    """libzmq closes a connection before it tells of it, and its number may be a file's by then."""
    with open(tmp_path / "file", "wb") as file:
        before = len(os.listdir("/proc/self/fd"))
        assert [_peer(file.fileno(), "/x") for _ in range(10)] == [None] * 10
        assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.root
async def test_where_no_inode_is_free_it_is_told_that_no_socket_can_be_made(
    open_path: Path,
) -> None:
    context: zmq.Context[Any] = zmq.Context()
    with mounted(open_path, "-t", "tmpfs", "-o", "size=1m,nr_inodes=2", "small"):
        (open_path / "last").touch()
        provider = Provider(context, str(open_path / "s"))
        with pytest.raises(ResourceExhausted, match=rf"no socket .*/s: .*space.*df -i {open_path}"):
            provider.bind()
        await provider.close()
    context.destroy()


async def test_a_place_that_is_not_there_is_told(tmp_path: Path) -> None:
    context: zmq.Context[Any] = zmq.Context()
    provider = Provider(context, str(tmp_path / "no" / "s"))
    with pytest.raises(FailedPrecondition, match="/no/s: No such file or directory"):
        provider.bind()
    await provider.close()
    context.destroy()
