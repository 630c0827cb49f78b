"""An innocent pair beside a hostile plugin: `tests/bench/run hostile [--calls N]`, as root.

The desk asks the greeter, one call after the other, while a plugin beside them attacks; each attack
is held against quiet calls of the same run, just before. In "granted calls" it floods the greeter.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import uvloop

sys.path.append(str(Path(__file__).parents[1] / "plugins"))

from greeting_contract import Desk, Guest, Inquiry
from hostile_contract import Attack, Hostile
from tests.bench import machine
from tests.bench.figures import Budget, Figure, report
from tests.system.instance import Instance, instance

from sagong.errors import SagongError
from sagong.linux.cgroup import Cgroup, layout_of_machine
from sagong.linux.cgroup_limits import CgroupLimits
from sagong.operator import Operator, connect

# As on a machine with nothing else to do: all plugins together have eight times the weight of the
# kernel's process (as always), and both much more than whatever else runs here.
SHARES = 32768
CONFIGURATION = f"""
profile = "bare"
cpu_shares = {8 * SHARES}
[units.greeter]
[units.desk]
[units.hostile]
"""
ATTACKS = (
    "refused calls",
    "granted calls",
    "streams",
    "malformed",
    "oversize",
    "connections",
    "events",
    "log lines",
    "fill disk",
    "forks",
    "eat memory",
)


@contextlib.contextmanager
def weight() -> Iterator[None]:
    """This process, and what it starts, in a group that goes before others' work on this machine."""
    group = Cgroup(layout_of_machine(), f"sagong-bench-{time.time_ns():x}", ("cpu",))
    group.create()
    group.limit(CgroupLimits(cpu_shares=SHARES))
    group.enter()
    try:
        yield
    finally:
        Cgroup(group.layout, "", ("cpu",)).enter()
        group.remove()


async def delays(desk: Desk, calls: int) -> list[float]:
    """What some calls took, in µs."""
    taken = []
    for _ in range(calls):
        began = time.perf_counter()
        await desk.ask(Inquiry(guest=Guest(name="Ann")))
        taken.append((time.perf_counter() - began) * 1e6)
    return taken


def p99(taken: list[float]) -> float:
    """The 99th percentile."""
    return statistics.quantiles(taken, n=100)[98]


@contextlib.asynccontextmanager
async def attacked(running: Instance, operator: Operator, name: str) -> AsyncIterator[None]:
    """From its first moment on, and again whenever the attacker was ended by it and is back."""
    began = asyncio.Event()
    task = asyncio.create_task(besiege(running, operator, name, began))
    try:
        await began.wait()
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def besiege(running: Instance, operator: Operator, name: str, began: asyncio.Event) -> None:
    """Begin the attack in each new process of the attacker; to look for them costs nothing."""
    buses = running.paths.run / "slots" / "hostile" / "bus"
    known: set[str] = set()
    while True:
        if (there := {place.name for place in buses.glob("*")}) - known:
            with contextlib.suppress(SagongError):
                await (await operator.use(Hostile)).begin(Attack(name=name, again=True))
                known |= there
                began.set()
        await asyncio.sleep(0.05)


async def calm_down(running: Instance) -> None:
    """No attack, and nothing left of the last one, which may fill its directory until it is ended."""
    data = running.paths.data / "plugins" / "hostile"
    for _ in range(10):
        for file in data.glob("*"):
            file.unlink(missing_ok=True)
        done = await asyncio.to_thread(running.run, "restart", "hostile", check=False)
        if done.returncode == 0:
            break
    await asyncio.to_thread(running.wait_ready, 40)


async def one(running: Instance, name: str, options: argparse.Namespace) -> Figure:
    """One attack, again and again from its first moment on, each time right after a quiet while."""
    quiet, loud = [], []
    for _ in range(options.rounds):
        await calm_down(running)
        async with connect(running.paths) as operator:
            desk = await operator.use(Desk)
            await delays(desk, options.calls // 4)
            quiet.append(p99(await delays(desk, options.calls)))
            async with attacked(running, operator, name):
                loud.append(p99(await delays(desk, options.calls)))
    what = f"p99 of a call through two processes beside: {name}"
    budget = Budget(limit=2, ratio=True)
    return Figure(what=what, unit="µs", ours=loud, theirs=quiet, peer="quiet", budget=budget)


async def measure(running: Instance, options: argparse.Namespace) -> list[Figure]:
    """Every attack in turn."""
    names = options.attack or ATTACKS
    return [await one(running, name, options) for name in names]


def main() -> None:
    """Start an instance, measure, take it away."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--attack", action="append", choices=ATTACKS)
    options = parser.parse_args()
    machine.enter()
    with weight(), instance(CONFIGURATION) as running:
        report("hostile", uvloop.run(measure(running, options)))


if __name__ == "__main__":
    main()
