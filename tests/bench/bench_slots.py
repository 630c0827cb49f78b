"""Swap and death of every slot of profile `single` under load: `tests/bench/run slots`, as root.

Eight callers ask each slot in turn an idempotent question in a loop; a gap is the longest time that any
answer took while the slot's process was replaced, or killed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop
from tests.bench import machine
from tests.bench.figures import Budget, Figure, report
from tests.system.instance import Instance, instance

from sagong.contracts.auth import Auth
from sagong.contracts.image import ImageQuery, Images
from sagong.contracts.kernel import SwapRequest
from sagong.contracts.metrics import Metrics
from sagong.contracts.network import Networks
from sagong.contracts.node import Node, NodeQuery
from sagong.contracts.objects import ListRequest, Objects
from sagong.contracts.replication import Replication, Situation
from sagong.contracts.runtime import Runtime
from sagong.contracts.scheduler import Question, Scheduler
from sagong.contracts.state import RangeRequest, State
from sagong.contracts.volume import Volumes
from sagong.operator import Operator, connect

Ask = Callable[[Any], Awaitable[Any]]
# unit → slot, instance, and a question that any number may ask at any time
SLOTS: dict[str, tuple[type, str, Ask]] = {
    "state-local": (State, "local", lambda s: s.range(RangeRequest(start="a", end="b"))),
    "image": (Images, "", lambda s: s.list(ImageQuery())),
    "runtime": (Runtime, "", lambda s: s.list()),
    "network": (Networks, "", lambda s: s.networks()),
    "volume": (Volumes, "", lambda s: s.list()),
    "metrics": (Metrics, "", lambda s: s.machine()),
    "auth": (Auth, "", lambda s: s.authority()),
    "scheduler": (Scheduler, "", lambda s: s.place(Question(pods=(), nodes=()))),
    "replication": (Replication, "", lambda s: s.reconcile(Situation(objects=(), now=0.0))),
    "node": (Node, "", lambda s: s.list(NodeQuery())),
    "kube": (Objects, "", lambda s: s.list(ListRequest(resource="v1/namespaces"))),
}
# More than three deaths in ten seconds make the supervisor back off, which is not measured here.
_APART = 3.5


class Load:
    """Callers of one slot; the longest wait and the errors since they were last taken."""

    def __init__(self, ask: Callable[[], Awaitable[Any]]) -> None:
        self._ask = ask
        self.answers = self.errors = 0
        self.longest = 0.0
        self._stopping = False

    async def run(self, callers: int) -> None:
        """Until it is stopped."""
        await asyncio.gather(*(self._call() for _ in range(callers)))

    async def _call(self) -> None:
        while not self._stopping:
            began = time.perf_counter()
            try:
                await self._ask()
                self.answers += 1
            except Exception:
                self.errors += 1
                await asyncio.sleep(0.001)
            self.longest = max(self.longest, time.perf_counter() - began)

    def stop(self) -> None:
        """No further calls."""
        self._stopping = True

    def take(self) -> float:
        """The longest wait in ms, begun anew."""
        longest, self.longest = self.longest, 0.0
        return longest * 1000


async def measure(running: Instance, unit: str, options: argparse.Namespace) -> list[Figure]:
    """Swaps, then kills, of one unit."""
    protocol, name, ask = SLOTS[unit]
    async with connect(running.paths) as operator:
        slot: Any = await operator.use(protocol, name)
        load = Load(lambda: ask(slot))
        calling = asyncio.create_task(load.run(8))
        await asyncio.sleep(0.3)
        gaps = [await _swap(operator, load, unit) for _ in range(options.swaps)]
        failed = load.errors
        lost = [await _kill(running, load, unit) for _ in range(options.kills)]
        load.stop()
        await calling
    swap, kill = Budget(limit=50), Budget(limit=100)
    return [
        Figure(what=f"swap of {unit}, longest wait", unit="ms", ours=gaps, budget=swap),
        Figure(what=f"kill -9 of {unit}, longest wait", unit="ms", ours=lost, budget=kill),
        Figure(what=f"calls of {unit} that failed", unit="calls", ours=[failed, load.errors]),
    ]


async def _swap(operator: Operator, load: Load, unit: str) -> float:
    load.take()
    async for _step in operator.kernel.swap(SwapRequest(unit=unit)):
        pass
    await asyncio.sleep(0.2)
    return load.take()


async def _kill(running: Instance, load: Load, unit: str) -> float:
    await asyncio.to_thread(running.wait_ready)
    pid = await asyncio.to_thread(running.pid, unit)
    load.take()
    before = load.answers
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        while load.answers < before + 16:
            await asyncio.sleep(0.002)
    await asyncio.sleep(0.3)
    longest = load.take()
    await asyncio.sleep(_APART)
    return longest


def main() -> None:
    """One instance, one slot after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=5)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("units", nargs="*", help="only these units")
    options = parser.parse_args()
    machine.enter()
    figures: list[Figure] = []
    with instance('profile = "single"\n') as running:
        running.wait_ready()
        for unit in options.units or SLOTS:
            figures += uvloop.run(measure(running, unit, options))
    report("slots", figures)


if __name__ == "__main__":
    main()
