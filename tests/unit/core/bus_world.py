"""A world around the bus: the real `Route`, `Link` and `Provider` on a transport of its own.

Sockets hand their messages to the world, which decides what arrives next, who dies, and when the kernel
tells of it. All of it is deterministic: a world and a list of choices give one story.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from tests.unit.core.bus_transport import UID, Context, Loop, Pipe, Socket

from sagong.bus import Access, Provider, Route, proxy
from sagong.call import PassedOn, deadline
from sagong.contract import Message, method, slot
from sagong.errors import DeadlineExceeded, Unavailable

_FLOW = 150  # more than two windows, so that credit has to be given


class Word(Message):
    text: str


@slot("tell", version=1)
class Tell(Protocol):
    """What is told once, and what may be told again."""

    @method(idempotent=False, seconds=3600.0)
    async def once(self, word: Word) -> Word: ...

    @method(idempotent=False, seconds=3600.0)
    async def long(self, word: Word) -> Word: ...

    @method(idempotent=True, seconds=3600.0)
    async def again(self, word: Word) -> Word: ...

    @method(idempotent=True, seconds=3600.0)
    def flow(self, word: Word) -> AsyncIterator[Word]: ...

    @method(idempotent=True, seconds=3600.0, resumes=True)
    def whole(self, word: Word) -> AsyncIterator[Word]: ...


@dataclass(eq=False)
class Asked:
    """A call of the story: how it was asked, where it was begun, how it ended."""

    name: str
    how: str
    work: asyncio.Task[Any]
    begun: list[int] = field(default_factory=list)
    passed: int = 0
    given_up: bool = False
    given: list[str] = field(default_factory=list)


class Generation:
    """A provider's process: it serves, drains, has drained, or is gone."""

    def __init__(self, world: World, number: int) -> None:
        self.number = number
        self.path = world.path or f"/g{number}"
        self.state = "serving"
        self.working: dict[int, tuple[str, asyncio.Future[None]]] = {}
        self.draining: asyncio.Task[None] | None = None
        self._numbers = itertools.count()
        self._world = world
        self.provider = Provider(world.context, self.path)  # type: ignore[arg-type]
        self.provider.serve(Tell, self)
        self.provider.grant({UID: Access("caller", frozenset({"tell/1/*"}))})
        self.raw: Any = self.provider._socket.raw
        self.raw.bind(f"ipc://{self.path}")

    async def once(self, word: Word) -> Word:
        self._begin(word)
        number, future = next(self._numbers), asyncio.get_running_loop().create_future()
        self.working[number] = word.text, future
        try:
            await future
        finally:
            self.working.pop(number, None)
        return word

    again = long = once

    def pass_on(self, name: str, future: asyncio.Future[None]) -> None:
        """The successor is asked instead."""
        self._world.asked[name].passed += 1
        future.set_exception(PassedOn("ask my successor"))

    async def flow(self, word: Word) -> AsyncIterator[Word]:
        self._begin(word)
        for number in range(_FLOW):
            yield Word(text=str(number))

    whole = flow

    def _begin(self, word: Word) -> None:
        assert not self._world.dead(self), "work is begun by a dead process"
        if self.state != "serving":
            self._world.wrong.append(f"{word.text} was begun while generation {self.number} drains")
        asked = self._world.asked[word.text]
        asked.begun.append(self.number)
        told = asked.work.done() and not asked.work.cancelled() and asked.work.exception()
        if isinstance(told, Unavailable):
            self._world.wrong.append(f"{word.text} is begun after its caller looked whether")

    async def end(self) -> None:
        """As `sagong.process` ends: in order."""
        await self.provider.close()
        self.state = "gone"

    def kill(self) -> None:
        """-9: nothing of it runs, or is sent, any more."""
        self.state = "gone"
        for number in [n for n in self._world.loop.woken if n == self.raw.fileno()]:
            self._world.loop.remove_reader(number)
        self.raw.closed = True
        self.provider._socket._closed = True
        self.working.clear()


class World:
    """Some calls, generations of one provider, and faults as long as they last.

    `path` is that of every generation, as the kernel's own is; else each has one of its own.
    `patient` says that an old process ends only when its callers have left it.
    """

    def __init__(self, *, path: str = "", patient: bool = True, kills: int = 1) -> None:
        self.loop = Loop()
        self.path = path
        self.context = Context()
        self.asked: dict[str, Asked] = {}
        self.generations: list[Generation] = []
        self.told = 0
        self.untold: list[str] = []
        self.wrong: list[str] = []
        self.killed = False
        self._patient = patient
        swaps = 0 if path else 2
        self._left = {
            "once": 2,
            "long": 1,
            "again": 1,
            "flow": 1,
            "whole": 1,
            "late": 1,
            "leaves": 1,
        }
        self._left |= {"next": swaps, "kill": kills}
        self.loop.run_until_complete(self._begin())

    async def _begin(self) -> None:
        self.route = Route(self.context, "tell")  # type: ignore[arg-type]
        self.tell = proxy(Tell, self.route)
        self._raise()
        self._tell_routes()

    def dead(self, generation: Generation) -> bool:
        return generation.state == "gone"

    def close(self) -> None:
        """Away with all of it."""

        async def end() -> None:
            for asked in self.asked.values():
                asked.work.cancel()
            await asyncio.gather(*(a.work for a in self.asked.values()), return_exceptions=True)
            self.route.close()
            for generation in self.generations:
                await generation.provider.close()

        self.loop.run_until_complete(end())
        self.loop.run_until_complete(self._settle())
        self.loop.close()

    def do(self, move: Callable[[], None]) -> None:
        """A move, and all that follows from it at once."""

        async def run() -> None:
            move()
            await self._settle()

        self.loop.run_until_complete(run())

    async def _settle(self) -> None:
        for _ in range(30):
            await asyncio.sleep(0)

    def moves(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """All that can happen next."""
        yield from self._of_callers()
        yield from self._of_transport()
        yield from self._of_generations()
        yield from self._of_kernel()

    def _of_callers(self) -> Iterator[tuple[str, Callable[[], None]]]:
        for how in ("once", "long", "again", "flow", "whole", "late"):
            if self._left[how]:
                yield f"asks {how}", partial(self._ask, how)
        for asked in self.asked.values() if self._left["leaves"] else ():
            if not asked.work.done():
                yield f"leaves {asked.name}", partial(self._leave, asked)

    def _of_transport(self) -> Iterator[tuple[str, Callable[[], None]]]:
        for pipe in self.context.pipes:
            served = self.context.bound.get(pipe.path)
            if pipe.up and served is not None and not served.closed:
                yield f"arrives at {pipe.path}", partial(self._up, pipe, served)
            if pipe.down:
                yield f"arrives from {pipe.path}", partial(self._down, pipe)

    def _of_generations(self) -> Iterator[tuple[str, Callable[[], None]]]:
        for one in self.generations:
            for name, future in one.working.values():
                if not future.done():
                    yield f"{name} is done by {one.number}", partial(future.set_result, None)
                if not future.done() and one.state == "draining" and name.startswith("long"):
                    yield f"{name} is passed on", partial(one.pass_on, name, future)
            if self._left["kill"] and one.state != "gone":
                yield f"kills {one.number}", partial(self._kill, one, lost=False)
                yield f"kills {one.number}, answers too", partial(self._kill, one, lost=True)
            if one.state == "drained" and self._may_end(one):
                yield f"{one.number} ends", partial(self._end, one)

    def _of_kernel(self) -> Iterator[tuple[str, Callable[[], None]]]:
        newest = self.generations[-1]
        if newest.state == "serving":
            if self._left["next"]:
                yield f"swaps {newest.number}", self._swap
                yield f"drains {newest.number} alone", lambda: self._drain_alone(newest)
        else:
            yield "raises another", self._raise
        if newest.number > self.told and newest.state == "serving":
            yield f"tells of {newest.number}", self._tell_routes
        for path in self.untold:
            yield f"tells of the death of {path}", partial(self._tell_death, path)
        for one in self.generations[:-1]:
            if one.state == "serving":
                yield f"drains {one.number}", partial(self._drain, one)

    def _ask(self, how: str) -> None:
        self._left[how] -= 1
        name = f"{how}{self._left[how]}"
        given: list[str] = []
        work = self.loop.create_task(self._call(how, Word(text=name), given))
        self.asked[name] = Asked(name, how, work, given=given)

    async def _call(self, how: str, word: Word, given: list[str]) -> Any:
        if how in ("flow", "whole"):
            async for item in getattr(self.tell, how)(word):
                given.append(item.text)
            return given
        if how == "late":
            with deadline(0.0):
                return (await self.tell.once(word)).text
        return (await getattr(self.tell, how)(word)).text

    def _leave(self, asked: Asked) -> None:
        self._left["leaves"] -= 1
        asked.given_up = True
        asked.work.cancel()

    def _up(self, pipe: Pipe, served: Socket) -> None:
        served.inbox.append([pipe.identity, *pipe.up.popleft()])
        if pipe.left and not pipe.up:
            self.context.pipes.remove(pipe)
        self.loop.woken[served.fileno()]()

    def _down(self, pipe: Pipe) -> None:
        pipe.caller.inbox.append(pipe.down.popleft())
        self.loop.woken[pipe.caller.fileno()]()

    def _raise(self) -> None:
        number = len(self.generations) + 1
        self.generations.append(Generation(self, number))

    def _swap(self) -> None:
        self._left["next"] -= 1
        self._raise()

    def _drain_alone(self, generation: Generation) -> None:
        self._left["next"] -= 1
        self._drain(generation)

    def _tell_routes(self) -> None:
        newest = self.generations[-1]
        self.told = newest.number
        if self.path:  # as `sagong.process` follows the kernel
            self.route.renew(newest.path)
        else:
            self.route.switch(newest.number, newest.path)

    def _tell_death(self, path: str) -> None:
        self.untold.remove(path)
        self.route.bury(path)

    def _drain(self, generation: Generation) -> None:
        generation.state = "draining"

        async def drain() -> None:
            await generation.provider.drain(3600.0)
            if generation.state == "draining":
                generation.state = "drained"
            if generation.working:
                self.wrong.append(f"generation {generation.number} drained amid its work")

        generation.draining = self.loop.create_task(drain())

    def _may_end(self, generation: Generation) -> bool:
        here = [pipe for pipe in self.context.pipes if pipe.path == generation.path]
        return not here or not self._patient

    def _end(self, generation: Generation) -> None:
        generation.state = "gone"
        self.loop.create_task(generation.end())
        self.untold.append(generation.path)

    def _kill(self, generation: Generation, *, lost: bool) -> None:
        self._left["kill"] -= 1
        self.killed = True
        generation.kill()
        for pipe in list(self.context.pipes):
            if pipe.path == generation.path:
                if pipe.left:
                    self.context.pipes.remove(pipe)
                if lost or not self.path:
                    pipe.up.clear()
                if lost:
                    pipe.down.clear()
        if generation.draining is not None:
            generation.draining.cancel()
        if not self.path:
            self.untold.append(generation.path)

    def deliver(self) -> None:
        """All that is on its way arrives."""
        while moves := list(self._of_transport()):
            self.do(moves[0][1])

    def _leap(self) -> None:
        """A moment later links that nobody needs are closed, and nothing lingers."""
        self.loop.leap(2.0)
        self.context.pipes = [pipe for pipe in self.context.pipes if not pipe.left]

    def finish(self) -> None:
        """To the end, without faults: what can happen by itself does, until nothing can."""
        self._left = dict.fromkeys(self._left, 0)
        for _ in range(600):
            moves = list(self.moves())
            if not moves:
                self.do(self._leap)
                moves = list(self.moves())
            if not moves:
                return
            self.do(moves[0][1])
        raise AssertionError(f"no end: {[name for name, _ in moves]}")


def hold(world: World) -> None:
    """What is true in every state."""
    assert not world.wrong, world.wrong
    for asked in world.asked.values():
        if asked.how in ("once", "long", "late"):
            times = len(asked.begun) - asked.passed
            assert times <= 1, f"{asked.name} was executed {times} times"
        if asked.work.done():
            _ended(world, asked)


def _ended(world: World, asked: Asked) -> None:
    """How a call may end."""
    if asked.work.cancelled():
        assert asked.given_up, f"{asked.name} was cancelled by nobody"
        return
    error = asked.work.exception()
    if error is None:
        found = asked.work.result()
        # What was begun anew tells some of it twice, and all of it at last.
        found = found[-_FLOW:] if asked.how == "whole" else found
        whole = [str(number) for number in range(_FLOW)]
        assert found == (whole if asked.how in ("flow", "whole") else asked.name)
        assert asked.begun, f"{asked.name} was answered by nobody"
    elif isinstance(error, DeadlineExceeded):
        assert asked.how == "late", f"{asked.name} has time enough"
    elif asked.how == "flow":
        assert isinstance(error, Unavailable) and "open it again" in error.message, error
        assert any(one.state != "serving" for one in world.generations), "a stream broke by itself"
        # Where a way is renewed, who reads the stream does it.
        assert asked.given or world.path, "nothing had come of it: it could be asked for again"
    else:
        assert isinstance(error, Unavailable) and asked.how in ("once", "long", "late"), (
            asked.name,
            error,
        )
        if asked.how == "late" and not error.maybe_executed:
            assert not asked.begun, f"{asked.name} was executed though nobody served"
        else:
            assert error.maybe_executed, error
            assert world.killed, f"{asked.name} failed though nobody was killed"


def ends_well(world: World) -> None:
    """When nothing goes wrong any more, every call ends, and nothing of old generations is left."""
    world.deliver()
    # Through a link that was given up nobody can say that he waits no more.
    for one in world.generations if not world.path else ():
        for name, _ in one.working.values():
            assert not world.asked[name].work.done(), f"{name} is worked on, and nobody waits"
    world.finish()
    hold(world)
    for asked in world.asked.values():
        assert asked.work.done(), f"{asked.name} waits for ever"
    newest = world.generations[-1]
    assert newest.state == "serving", "nobody serves"
    assert [pipe.path for pipe in world.context.pipes] == [newest.path], "a link is left"
    for one in world.generations[:-1]:
        assert one.state == "gone", f"generation {one.number} never ends"


def story(choices: Sequence[int], **settings: Any) -> list[str]:
    """Live through a world by these choices; what happened."""
    world = World(**settings)
    told: list[str] = []
    try:
        for choice in choices:
            moves = list(world.moves())
            if not moves:
                break
            name, move = moves[choice % len(moves)]
            told.append(name)
            world.do(move)
            hold(world)
        ends_well(world)
    except AssertionError as error:
        raise AssertionError(f"{error}, after: {'; '.join(told)}") from error
    finally:
        with contextlib.suppress(AssertionError):
            world.close()
    return told
