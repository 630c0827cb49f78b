"""The scheduler in Perl, by itself: a stranger's program on our bus."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from sagong.bus import Provider, Route, proxy
from sagong.contracts.kernel import AccessEntry, Attendance, Done, Kernel, Order
from sagong.contracts.scheduler import Question, Scheduler, Verdict
from sagong.errors import InvalidArgument

SOURCE = Path(__file__).parents[2] / "examples/02-scheduler-in-perl/sagong_scheduler_perl"

pytestmark = pytest.mark.skipif(
    shutil.which("perl") is None
    or subprocess.run(["perl", "-MJSON::PP", "-e", "1"], check=False).returncode != 0,
    reason="needs perl with its core modules (Debian's package perl)",
)


class KernelOfTest:
    """Gives orders, and hears that they were carried out."""

    def __init__(self) -> None:
        self.orders: asyncio.Queue[Order] = asyncio.Queue()
        self.done_orders: asyncio.Queue[Done] = asyncio.Queue()
        self.attendance: asyncio.Queue[Attendance] = asyncio.Queue()

    async def attend(self, attendance: Attendance) -> AsyncIterator[Order]:
        self.attendance.put_nowait(attendance)
        while True:
            yield await self.orders.get()

    def done(self, done: Done) -> None:
        self.done_orders.put_nowait(done)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None  # the kernel's other methods, which no plugin calls

    async def obeyed(self, order: Order) -> Done:
        self.orders.put_nowait(order)
        async with asyncio.timeout(60):
            return await self.done_orders.get()


@contextmanager
def program(directory: Path, generation: int = 1) -> Iterator[subprocess.Popen[bytes]]:
    """The program as the kernel would start it."""
    launch = {
        "unit": "scheduler",
        "plugin": "scheduler_perl",
        "generation": generation,
        "kernel": str(directory / "k"),
        "bus": str(directory / f"b{generation}"),
        "provides": {"scheduler": 1},
    }
    environment = {**os.environ, "SAGONG_LAUNCH": json.dumps(launch)}
    running = subprocess.Popen(["perl", str(SOURCE / "scheduler.pl")], env=environment)
    try:
        yield running
    finally:
        running.kill()
        running.wait()


@asynccontextmanager
async def kernel(
    context: zmq.Context[Any], directory: Path
) -> AsyncIterator[tuple[KernelOfTest, Provider]]:
    served = KernelOfTest()
    provider = Provider(context, str(directory / "k"))
    provider.serve(Kernel, served)
    provider.bind()
    try:
        yield served, provider
    finally:
        await provider.close()


@asynccontextmanager
async def scheduler(tmp_path: Path) -> AsyncIterator[tuple[KernelOfTest, Scheduler, Route]]:
    """The program started and admitted, and a proxy to it."""
    context: zmq.Context[Any] = zmq.Context()
    async with kernel(context, tmp_path) as (served, _):
        with program(tmp_path):
            entry = AccessEntry(uid=os.geteuid() or 4711, name="kube", methods=("scheduler/1/*",))
            served.orders.put_nowait(Order(id=0, access=(entry,)))
            assert (await served.obeyed(Order(id=5, action="start"))).error == ""
            route = Route(context, "scheduler")
            route.switch(1, str(tmp_path / "b1"))
            try:
                yield served, proxy(Scheduler, route), route
            finally:
                route.close()
    context.destroy(linger=0)


def node(name: str, cpu: str = "2", **more: Any) -> bytes:
    allocatable = {"cpu": cpu, "memory": "4Gi", "pods": "10"}
    document = {"metadata": {"name": name}, "status": {"allocatable": allocatable}, **more}
    return msgspec.json.encode(document)


def pod(name: str, cpu: str = "500m", **spec: Any) -> bytes:
    container = {"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "64Mi"}}}
    document = {"metadata": {"name": name, "namespace": "n"}}
    return msgspec.json.encode({**document, "spec": {"containers": [container], **spec}})


def nodes_of(verdict: Verdict) -> list[str]:
    return [placement.node for placement in verdict.placements]


async def test_it_places_pods_where_there_is_room(tmp_path: Path) -> None:
    async with scheduler(tmp_path) as (served, candidate, _):
        attendance = served.attendance.get_nowait()
        assert (attendance.unit, attendance.generation) == ("scheduler", 1)
        question = Question(
            pods=(*(pod(f"p{n}") for n in range(4)), pod("big", cpu="3")),
            nodes=(node("a"), node("b"), node("shut", cpu="64", spec={"unschedulable": True})),
            bound=(pod("old", cpu="1", nodeName="a"),),
        )
        verdict = await candidate.place(question)
        assert nodes_of(verdict) == ["b", "a", "b", "a", ""] or nodes_of(verdict)[-1] == ""
        assert sorted(nodes_of(verdict)[:4]).count("b") >= 2
        assert "nodes are available" in verdict.placements[-1].reasons[0]
        assert await candidate.place(question) == verdict


async def test_large_bodies_and_many_calls_at_once(tmp_path: Path) -> None:
    async with scheduler(tmp_path) as (_, candidate, _):
        question = Question(pods=tuple(pod(f"p{n}") for n in range(400)), nodes=(node("a"),))
        answers = await asyncio.gather(*(candidate.place(question) for _ in range(5)))
        assert all(len(answer.placements) == 400 for answer in answers)
        small = Question(pods=(pod("p"),), nodes=(node("a"),))
        answers = await asyncio.gather(*(candidate.place(small) for _ in range(300)))
        assert {nodes_of(answer)[0] for answer in answers} == {"a"}


async def test_errors_come_back_as_such(tmp_path: Path) -> None:
    async with scheduler(tmp_path) as (_, candidate, _):
        with pytest.raises(InvalidArgument, match="not JSON"):
            await candidate.place(Question(pods=(b"{",), nodes=()))
        with pytest.raises(InvalidArgument, match="no quantity"):
            await candidate.place(Question(pods=(pod("p", cpu="two"),), nodes=(node("a"),)))


async def test_it_drains_for_its_successor(tmp_path: Path) -> None:
    """Old and new side by side, as in a swap: no call fails."""
    context: zmq.Context[Any] = zmq.Context()
    async with scheduler(tmp_path) as (served, candidate, route):
        question = Question(pods=(pod("p"),), nodes=(node("a"),))
        await candidate.place(question)
        assert (await served.obeyed(Order(id=6, action="drain", seconds=1.0))).error == ""
        call = asyncio.ensure_future(candidate.place(question))
        await asyncio.sleep(0.1)
        assert not call.done()
        successor = Provider(context, str(tmp_path / "b2"))

        class Next:
            def place(self, question: Question) -> Verdict:
                return Verdict(placements=())

        successor.serve(Scheduler, Next())
        successor.bind()
        route.switch(2, str(tmp_path / "b2"))
        assert (await call).placements == ()
        await successor.close()
    context.destroy(linger=0)


async def test_it_lives_through_a_restart_of_the_kernel(tmp_path: Path) -> None:
    context: zmq.Context[Any] = zmq.Context()
    with program(tmp_path) as running:
        async with kernel(context, tmp_path) as (served, _):
            assert (await served.obeyed(Order(id=1, action="start"))).error == ""
        async with kernel(context, tmp_path) as (served, _):
            async with asyncio.timeout(60):
                assert (await served.attendance.get()).generation == 1
            served.orders.put_nowait(Order(id=0, action="stop"))
            limit = time.monotonic() + 60
            while running.poll() is None:
                assert time.monotonic() < limit
                await asyncio.sleep(0.02)
            assert running.returncode == 0
    context.destroy(linger=0)


async def test_whoever_is_not_admitted_is_refused(open_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to call as somebody else")
    async with scheduler(open_path) as (served, candidate, _):
        await candidate.place(Question(pods=(), nodes=()))
        code = (
            "import asyncio, os, sys, uvloop, zmq\n"
            "from sagong.bus import Route, proxy\n"
            "from sagong.contracts.scheduler import Question, Scheduler\n"
            "from sagong.errors import PermissionDenied\n"
            "async def go():\n"
            "    route = Route(zmq.Context(), 's')\n"
            "    route.switch(1, sys.argv[1])\n"
            "    try:\n"
            "        await proxy(Scheduler, route).place(Question(pods=(), nodes=()))\n"
            "        print('answered')\n"
            "    except PermissionDenied as error:\n"
            "        print(error)\n"
            "os.setuid(4712)\n"
            "asyncio.run(go())\n"
        )
        stranger = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code, str(open_path / "b1")), stdout=subprocess.PIPE
        )
        output, _ = await stranger.communicate()
        assert b"may not call scheduler/1/place" in output
        assert isinstance(served, KernelOfTest)


def test_the_launch_is_needed() -> None:
    done = subprocess.run(
        ["perl", str(SOURCE / "scheduler.pl")], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "start me by sagong" in done.stderr
