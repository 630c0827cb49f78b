"""Swap gap, restart time and memory of a running instance: `python tests/bench/bench_swap.py` as root.

64 callers call a scheduler in a loop; the gap of a swap is the longest time that any answer took.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import time

import uvloop
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


async def measure(running: Instance, options: argparse.Namespace) -> None:
    """The whole of it."""
    async with connect(running.paths) as operator:
        load = Load(await operator.use(Scheduler))
        callers = [asyncio.create_task(load.call()) for _ in range(64)]
        began = time.perf_counter()
        gaps = await swaps(operator, load, options.swaps)
        lost = await kills(running, load, options.kills)
        rate = load.answers / (time.perf_counter() - began)
        load.stopping = True
        await asyncio.gather(*callers)
    print(f"{load.answers} answers, {load.errors} errors, {rate:.0f}/s over all")
    for name, values in (("swap gap", gaps), ("kill -9 to next answers", lost)):
        worst = max(values)
        print(
            f"{name}: p50 {statistics.median(values):.1f} ms, worst of {len(values)} {worst:.1f} ms"
        )


def main() -> None:
    """Start an instance, measure, take it away."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--kills", type=int, default=6)
    options = parser.parse_args()
    began = time.perf_counter()
    with instance(CONFIGURATION) as running:
        print(f"`sagong up` to ready: {(time.perf_counter() - began) * 1000:.0f} ms")
        uvloop.run(measure(running, options))
        print(running.run("status").stdout)


if __name__ == "__main__":
    main()
