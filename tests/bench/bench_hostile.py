"""An innocent pair beside a hostile plugin: `tests/bench/run hostile [--attack NAME]`, as root.

The desk asks the greeter, one call after the other, while a plugin beside them attacks, from its first
moment on; each attack is held against quiet calls just before it, in turn: other work on the machine
is in both. In "granted calls" it floods the greeter.
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

# As on a machine with nothing else to do: a plugin has eight times the weight of the kernel's process
# (as always), and all of them much more than whatever else runs here.
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
    "reports",
    "streams",
    "malformed",
    "oversize",
    "connections",
    "events",
    "log lines",
    "fill disk",
    "forks",
    "computes",
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


async def delays(desk: Desk, seconds: float) -> list[float]:
    """What the calls of some seconds took, in µs."""
    taken = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        await desk.ask(Inquiry(guest=Guest(name="Ann")))
        taken.append((time.perf_counter() - began) * 1e6)
    return taken


def spent(pids: list[int]) -> float:
    """Processor time that these have used with all their threads, in µs (schedstat, proc(5))."""
    used = 0
    for place in (place for pid in pids for place in Path(f"/proc/{pid}/task").glob("*/schedstat")):
        with contextlib.suppress(OSError):  # a thread that has ended meanwhile
            used += int(place.read_text().split()[0])
    return used / 1e3


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
    """No attack, and nothing left of the last one, which may fill its directory until it is ended.

    Its successor serves before all of it has ended: for some seconds its processes would be in what
    is to be quiet.
    """
    data = running.paths.data / "plugins" / "hostile"
    for _ in range(10):
        for file in data.glob("*"):
            file.unlink(missing_ok=True)
        done = await asyncio.to_thread(running.run, "restart", "hostile", check=False)
        if done.returncode == 0:
            break
    await asyncio.to_thread(running.wait_ready, 40)
    await wait_alone(running, 40.0)


async def wait_alone(running: Instance, seconds: float) -> None:
    """Until no control group is left but that of the present attacker; TimeoutError if one stays."""
    layout, every = layout_of_machine(), running.paths.unit_group("hostile", "*")
    async with asyncio.timeout(seconds):
        while len(set(layout.groups(every))) > 1:
            await asyncio.sleep(0.05)


async def one(running: Instance, name: str, options: argparse.Namespace) -> list[Figure]:
    """One attack, again and again from its first moment on, each time right after a quiet while."""
    tails: list[list[float]] = [[], []]
    costs: list[list[float]] = [[], []]
    others = [running.pid(one) for one in ("kernel", "greeter", "desk")]

    async def ask(desk: Desk, seconds: float, kind: int) -> None:
        before = spent(others)
        taken = await delays(desk, seconds)
        costs[kind].append((spent(others) - before) / len(taken))
        tails[kind].append(p99(taken))

    for _ in range(options.rounds):
        await calm_down(running)
        async with connect(running.paths) as operator:
            desk = await operator.use(Desk)
            await delays(desk, options.seconds / 10)
            await ask(desk, options.seconds / 2, 0)
            async with attacked(running, operator, name):
                await ask(desk, options.seconds, 1)
    return [
        figure(f"p99 of a call through two processes beside: {name}", *tails),
        figure(f"processor time of those processes and the kernel's for it beside: {name}", *costs),
    ]


def figure(what: str, quiet: list[float], loud: list[float]) -> Figure:
    """A row."""
    budget = Budget(limit=2, ratio=True)
    return Figure(what=what, unit="µs", ours=loud, theirs=quiet, peer="quiet", budget=budget)


async def measure(running: Instance, options: argparse.Namespace) -> list[Figure]:
    """Every attack in turn."""
    names = options.attack or ATTACKS
    return [found for name in names for found in await one(running, name, options)]


def main() -> None:
    """Start an instance, measure, take it away."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long an attack goes on")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--attack", action="append", choices=ATTACKS)
    options = parser.parse_args()
    machine.enter()
    with weight(), instance(CONFIGURATION) as running:
        report("hostile", uvloop.run(measure(running, options)))


if __name__ == "__main__":
    main()
