"""Start, swap and death of a plugin under load: `tests/bench/run swap [--swaps N]`, as root.

64 callers call a scheduler in a loop; the gap of a swap is the longest time that any answer took.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import time

import uvloop
from tests.bench import machine
from tests.bench.figures import Budget, Figure, report
from tests.system.instance import Instance, instance

from sagong.contracts.kernel import SwapRequest
from sagong.contracts.scheduler import Question, Scheduler
from sagong.operator import Operator, connect

CONFIGURATION = 'profile = "bare"\n[units.scheduler]\nplugin = "scheduler_first"\n'
QUESTION = Question(
    pods=(b'{"metadata":{"name":"p","namespace":"default"}}',),
    nodes=(b'{"metadata":{"name":"n"}}',),
)
# More than three deaths in ten seconds make the supervisor back off, which is not measured here.
_APART = 3.5


class Load:
    """Callers, their answers, errors and the longest wait since it was last taken."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.answers = self.errors = 0
        self.longest = 0.0
        self.stopping = False

    async def call(self) -> None:
        """One caller."""
        while not self.stopping:
            began = time.perf_counter()
            try:
                await self._scheduler.place(QUESTION)
                self.answers += 1
            except Exception:
                self.errors += 1
            self.longest = max(self.longest, time.perf_counter() - began)

    def take(self) -> float:
        """The longest wait in ms, begun anew."""
        longest, self.longest = self.longest, 0.0
        return longest * 1000


async def swaps(operator: Operator, load: Load, count: int) -> list[float]:
    """Gaps of swaps under load, in ms."""
    gaps = []
    for _ in range(count):
        load.take()
        async for _step in operator.kernel.swap(SwapRequest(unit="scheduler")):
            pass
        await asyncio.sleep(0.1)
        gaps.append(load.take())
    return gaps


async def kills(running: Instance, load: Load, count: int) -> list[float]:
    """Times from kill -9 of the plugin to the next answers, in ms."""
    times = []
    for _ in range(count):
        await asyncio.to_thread(running.wait_ready)
        pid = await asyncio.to_thread(running.pid, "scheduler")
        load.take()
        os.kill(pid, signal.SIGKILL)
        before = load.answers
        while load.answers < before + 64:
            await asyncio.sleep(0.002)
        await asyncio.sleep(0.3)
        times.append(load.take())
        await asyncio.sleep(_APART)
    return times


async def measure(running: Instance, options: argparse.Namespace) -> list[Figure]:
    """The whole of it."""
    async with connect(running.paths) as operator:
        load = Load(await operator.use(Scheduler))
        callers = [asyncio.create_task(load.call()) for _ in range(64)]
        began = time.perf_counter()
        gaps = await swaps(operator, load, options.swaps)
        rate = load.answers / (time.perf_counter() - began)
        errors = load.errors
        lost = await kills(running, load, options.kills)
        load.stopping = True
        await asyncio.gather(*callers)
    swap = f"swap of a plugin under {rate:,.0f} calls/s, longest wait"
    kill = "kill -9 of a plugin to its answers"
    worst = Budget(limit=100)
    return [
        Figure(what=swap, unit="ms", ours=gaps, budget=Budget(limit=50)),
        Figure(what="calls that failed in those swaps", unit="calls", ours=[errors]),
        Figure(what=kill, unit="ms", ours=lost),
        Figure(what=f"{kill}, worst of {len(lost)}", unit="ms", ours=[max(lost)], budget=worst),
        Figure(what="idempotent calls lost by that", unit="calls", ours=[load.errors - errors]),
    ]


def starts(count: int) -> Figure:
    """`sagong up` of profile `single` until all units serve, again and again."""
    times = []
    for _ in range(count):
        with instance('profile = "single"\n') as running:
            running.run("down", "--all")
            began = time.perf_counter()
            running.run("up", "--seconds", "30")
            times.append(time.perf_counter() - began)
    what = "`sagong up` to ready, profile single"
    return Figure(what=what, unit="s", ours=times, budget=Budget(limit=2))


def main() -> None:
    """Start instances, measure, take them away."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--starts", type=int, default=3)
    options = parser.parse_args()
    machine.enter()
    started = starts(options.starts)
    with instance(CONFIGURATION) as running:
        report("swap", [started, *uvloop.run(measure(running, options))])


if __name__ == "__main__":
    main()
