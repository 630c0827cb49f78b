"""An innocent pair beside a hostile plugin: `tests/bench/run hostile [--calls N]`, as root.

The desk asks the greeter, one call after the other, while a plugin beside them attacks; each attack
is held against quiet calls of the same run, just before. In "granted calls" it floods the greeter.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from pathlib import Path

import uvloop

sys.path.append(str(Path(__file__).parents[1] / "plugins"))

from greeting_contract import Desk, Guest, Inquiry
from hostile_contract import Attack, Hostile
from tests.bench import machine
from tests.bench.figures import Budget, Figure, report
from tests.system.instance import Instance, instance

from sagong.errors import SagongError
from sagong.operator import Operator, connect

CONFIGURATION = 'profile = "bare"\n[units.greeter]\n[units.desk]\n[units.hostile]\n'
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


async def tail(desk: Desk, calls: int) -> float:
    """The p99 of some calls in µs."""
    taken = []
    for _ in range(calls):
        began = time.perf_counter()
        await desk.ask(Inquiry(guest=Guest(name="Ann")))
        taken.append((time.perf_counter() - began) * 1e6)
    return statistics.quantiles(taken, n=100)[98]


async def begin(operator: Operator, name: str) -> None:
    """Let it attack, as soon as it serves."""
    for _ in range(200):
        try:
            hostile = await operator.use(Hostile)
            return await hostile.begin(Attack(name=name))
        except SagongError:
            await asyncio.sleep(0.1)
    raise SystemExit(f"the hostile plugin does not serve, so it can't try {name}")


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
    """One attack, several times, each right after a quiet while."""
    quiet, loud = [], []
    for _ in range(options.rounds):
        await calm_down(running)
        async with connect(running.paths) as operator:
            desk = await operator.use(Desk)
            await tail(desk, options.calls // 4)
            quiet.append(await tail(desk, options.calls))
            await begin(operator, name)
            await asyncio.sleep(0.5)
            loud.append(await tail(desk, options.calls))
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
    with instance(CONFIGURATION) as running:
        report("hostile", uvloop.run(measure(running, options)))


if __name__ == "__main__":
    main()
