"""A process carries out each order once, whoever gives it again: its kernel, or a new one."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import zmq

from sagong.bus import Provider, Route, proxy
from sagong.contracts.kernel import Attendance, Done, Kernel, Order
from sagong.contracts.scheduler import Question, Scheduler, Verdict
from sagong.errors import Unavailable
from sagong.process import Launch, ProcessHost

T = TypeVar("T")
NUMBERS = itertools.count(1)


class FakeKernel:
    """Attended by one process; gives `pending` again to whoever attends anew."""

    def __init__(self, path: Path) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.attended = 0
        self.reports: list[Done] = []
        self.pending: dict[int, Order] = {}
        self._orders: asyncio.Queue[Order | None] = asyncio.Queue()
        self._provider = Provider(self.context, str(path))
        self._provider.serve(Kernel, self)
        self._provider.bind()

    def __getattr__(self, name: str) -> Any:
        """Methods of the contract that nobody calls here."""
        return None

    async def attend(self, attendance: Attendance) -> AsyncIterator[Order]:
        self.attended += 1
        self._orders = orders = asyncio.Queue[Order | None]()
        for pending in self.pending.values():
            orders.put_nowait(pending)
        yield Order(id=0, routes=())
        while (order := await orders.get()) is not None:
            yield order
        raise Unavailable("attend again")

    def done(self, done: Done) -> None:
        self.reports.append(done)
        self.pending.pop(done.order, None)

    def order(self, action: str, **fields: Any) -> int:
        order = Order(id=next(NUMBERS), action=action, **fields)
        self.pending[order.id] = order
        self._orders.put_nowait(order)
        return order.id

    def interrupt(self) -> None:
        """The process has to attend again."""
        self._orders.put_nowait(None)

    async def wait_done(self, order: int) -> Done:
        return await self.wait(lambda: next((d for d in self.reports if d.order == order), None))

    async def wait(self, found: Callable[[], T | None]) -> T:
        async with asyncio.timeout(60):
            while not (value := found()):
                await asyncio.sleep(0.005)
        return value

    async def die(self) -> None:
        if not self.context.closed:
            await self._provider.close()
            self.context.destroy(linger=0)


@contextlib.asynccontextmanager
async def kernel_at(path: Path) -> AsyncIterator[FakeKernel]:
    kernel = FakeKernel(path)
    try:
        yield kernel
    finally:
        await kernel.die()


@dataclass
class Story:
    """What the plugin's class did, what it waits for, and what befalls it."""

    steps: list[str] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    in_drain: Exception | None = None
    beside: Exception | None = None


class Slow:
    """Starts and exports when it is told."""

    story: Story

    def __init__(self, host: Any) -> None:
        self._host = host

    async def start(self) -> None:
        self.story.steps.append("start")
        await self.story.go_on.wait()
        self.story.steps.append("started")
        if self.story.beside is not None:
            self._host.spawn(_raise(self.story.beside), "work beside")

    async def drain(self) -> None:
        await _raise(self.story.in_drain)

    async def doze(self) -> float:
        await self.story.go_on.wait()
        return 0.0

    async def place(self, question: Question) -> Verdict:
        self.story.steps.append("place")
        try:
            await asyncio.Event().wait()
        finally:
            self.story.steps.append("undone")
        return Verdict(placements=())

    async def export(self) -> bytes:
        self.story.steps.append("export")
        await self.story.go_on.wait()
        return b"what was"

    async def tidy(self) -> None:
        self.story.steps.append("tidy")


async def _raise(error: Exception | None) -> None:
    if error is not None:
        raise error


@pytest.fixture
def story() -> Iterator[Story]:
    Slow.story = Story()
    yield Slow.story


@contextlib.asynccontextmanager
async def living(path: Path, bus: str = "") -> AsyncIterator[asyncio.Task[int]]:
    launch = Launch(
        unit="slow",
        plugin="slow",
        class_=f"{__name__}:Slow",
        generation=1,
        kernel=str(path),
        bus=bus,
        data="",
        run="",
        root="",
        provides=(("scheduler", 1),) if bus else (),
    )
    host = ProcessHost(launch)
    life = asyncio.get_running_loop().create_task(host.live())
    try:
        yield life
    finally:
        Slow.story.go_on.set()
        host._end(0)  # a context with open sockets would not end
        await asyncio.gather(life, return_exceptions=True)


async def test_a_start_that_is_ordered_again_in_its_midst_is_done_when_it_has_started(
    tmp_path: Path, story: Story
) -> None:
    async with kernel_at(tmp_path / "k") as kernel, living(tmp_path / "k"):
        await kernel.wait(lambda: kernel.attended)
        order = kernel.order("start")
        await kernel.wait(lambda: story.steps)
        kernel.interrupt()
        await kernel.wait(lambda: kernel.attended == 2)
        await asyncio.sleep(0.1)
        assert not kernel.reports, "it says that it has started, and has not"
        story.go_on.set()
        assert not (await kernel.wait_done(order)).error
        assert story.steps == ["start", "started"]


async def test_nothing_that_was_asked_goes_on_when_the_state_is_handed_over(
    tmp_path: Path, story: Story
) -> None:
    """A call that outlasted the drain changed what its successor had been given already."""
    path = tmp_path / "k"
    async with kernel_at(path) as kernel, living(path, bus=str(tmp_path / "b")):
        await kernel.wait(lambda: kernel.attended)
        story.go_on.set()
        assert not (await kernel.wait_done(kernel.order("start"))).error
        route = Route(kernel.context, "scheduler")
        route.switch(1, str(tmp_path / "b"))
        calling = asyncio.create_task(proxy(Scheduler, route).place(Question(pods=(), nodes=())))
        await kernel.wait(lambda: "place" in story.steps)
        await kernel.wait_done(kernel.order("drain", seconds=0.2, successor=True))
        assert story.steps == ["start", "started", "place", "undone", "export"]
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
        route.close()


async def test_a_drain_that_a_new_kernel_orders_in_its_midst_is_the_same_one(
    tmp_path: Path, story: Story
) -> None:
    """Its state was lost when both kernels' drains went on beside each other."""
    path = tmp_path / "k"
    async with contextlib.AsyncExitStack() as stack:
        kernel = await stack.enter_async_context(kernel_at(path))
        life = await stack.enter_async_context(living(path))
        await kernel.wait(lambda: kernel.attended)
        story.go_on.set()
        await kernel.wait_done(kernel.order("start"))
        story.go_on.clear()
        kernel.order("drain", seconds=60.0, successor=True)
        await kernel.wait(lambda: "export" in story.steps)
        await kernel.die()
        new = await stack.enter_async_context(kernel_at(path))
        await new.wait(lambda: new.attended)
        order = new.order("drain", seconds=60.0, successor=True)
        await asyncio.sleep(0.1)
        story.go_on.set()
        assert (await new.wait_done(order)).state == b"what was"
        assert story.steps.count("export") == 1
        again = new.order("drain", seconds=60.0, successor=True)
        assert (await new.wait_done(again)).state == b"what was"
        new.order("stop")
        async with asyncio.timeout(60):
            assert await life == 0
    assert story.steps[-1] == "tidy"


async def ended_of_it(
    path: Path, story: Story, caplog: pytest.LogCaptureFixture
) -> logging.LogRecord:
    """What is said of work beside calls, of whose failure the process ends."""
    async with kernel_at(path) as kernel, living(path) as life:
        await kernel.wait(lambda: kernel.attended)
        story.go_on.set()
        kernel.order("start")
        async with asyncio.timeout(60):
            assert await life == 1
    (record,) = [r for r in caplog.records if "work beside" in r.getMessage()]
    return record


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "/data/x"),
        ExceptionGroup("several", [OSError(errno.EDQUOT, "Disk quota exceeded", "/data/x")]),
    ],
)
async def test_work_beside_calls_that_finds_no_room_says_so_in_a_line(
    tmp_path: Path, story: Story, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    story.beside = error
    record = await ended_of_it(tmp_path / "k", story, caplog)
    said = "work beside failed: slow: the disk of /data/x is full: free space there"
    assert record.getMessage() == said
    assert not record.exc_info


async def test_a_defect_beside_calls_is_told_with_all_of_it(
    tmp_path: Path, story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/data/x")
    story.beside = ExceptionGroup("several", [full, ValueError("a defect")])
    record = await ended_of_it(tmp_path / "k", story, caplog)
    assert record.exc_info


async def test_a_drain_that_others_make_fail_says_why_in_a_line(
    tmp_path: Path, story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "k"
    story.in_drain = Unavailable("the state is away")
    async with kernel_at(path) as kernel, living(path):
        await kernel.wait(lambda: kernel.attended)
        story.go_on.set()
        await kernel.wait_done(kernel.order("start"))
        done = await kernel.wait_done(kernel.order("drain", seconds=5.0))
    assert done.error == "Unavailable: the state is away"
    assert not any(record.exc_info for record in caplog.records)


async def test_one_that_can_leave_no_word_before_it_sleeps_says_so_in_a_line(
    tmp_path: Path, story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "k"
    async with kernel_at(path) as kernel, living(path):
        await kernel.wait(lambda: kernel.attended)
        story.go_on.set()
        await kernel.wait_done(kernel.order("start"))
        story.go_on.clear()
        done = await kernel.wait_done(kernel.order("drain", seconds=0.2, asleep=True))
    assert done.error.startswith("DeadlineExceeded: ")
    assert not any(record.exc_info for record in caplog.records)
