"""How long calls of `network` wait while it is swapped, and after it was killed (needs root).

Run as `python -m tests.bench.bench_network_swap`: an instance on a machine of its own, with
sandboxes that publish ports and have names, and workers that join and leave all the time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import time
from pathlib import Path

from tests.system.instance import Instance, instance
from tests.system.network.outer import machine

from sagong.contracts.kernel import SwapRequest
from sagong.contracts.network import (
    Attachment,
    JoinRequest,
    Network,
    Networks,
    PortMapping,
    SandboxRef,
)
from sagong.operator import Operator, connect

CONFIGURATION = """
profile = "bare"
preload = ["sagong_network_bridge.plugin"]
[units.network]
plugin = "network_bridge"
"""
NETWORK = Network(id="5" * 64, name="front", ipv6=True)
# More than three deaths in ten seconds make the supervisor back off, which is not measured here.
_APART = 3.5


def attached(name: str, *, port: bool) -> JoinRequest:
    """A sandbox on the named network."""
    wish = (Attachment(network=NETWORK.id, aliases=("web",)),)
    ports = (PortMapping(container_port=80),) if port else ()
    return JoinRequest(id=name, attachments=wish, ports=ports, names=(name,))


class Load:
    """Workers that join and leave; the longest call since it was last taken."""

    def __init__(self, network: Networks) -> None:
        self._network = network
        self.longest = 0.0
        self.calls = 0
        self.stopping = False

    async def work(self, worker: int) -> None:
        """One worker."""
        count = 0
        while not self.stopping:
            name = f"w{worker}-{count}"
            await self._timed(self._network.join(attached(name, port=False)))
            await self._timed(self._network.leave(SandboxRef(id=name)))
            count += 1

    async def _timed(self, call: object) -> None:
        began = time.perf_counter()
        await call  # type: ignore[misc]
        self.longest = max(self.longest, time.perf_counter() - began)
        self.calls += 1

    def take(self) -> float:
        """The longest call in ms, begun anew."""
        longest, self.longest = self.longest, 0.0
        return longest * 1000


async def swaps(operator: Operator, load: Load, count: int) -> list[float]:
    """The longest call of each swap."""
    found = []
    for _ in range(count):
        await asyncio.sleep(0.5)
        load.take()
        async for _step in operator.kernel.swap(SwapRequest(unit="network")):
            pass
        await asyncio.sleep(0.1)
        found.append(load.take())
    return found


async def kills(running: Instance, network: Networks, count: int) -> list[float]:
    """From kill -9 to the next answer."""
    found = []
    for _ in range(count):
        pid = await asyncio.to_thread(running.pid, "network")
        began = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        await network.networks()
        found.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(_APART)
    return found


def report(what: str, values: list[float]) -> None:
    """One line."""
    if values:
        middle, worst = statistics.median(values), max(values)
        print(f"{what}: p50 {middle:.1f} ms, worst of {len(values)} {worst:.1f} ms", flush=True)


async def measure(base: Path, options: argparse.Namespace) -> None:
    """The whole of it."""
    with instance(CONFIGURATION) as running:
        async with connect(running.paths) as operator:
            network = await operator.use(Networks)
            await network.create(NETWORK)
            for number in range(options.sandboxes):
                await network.join(attached(f"s{number}", port=True))
            idle, load = Load(network), Load(network)
            report("swap without load, longest call", await swaps(operator, idle, 0))
            workers = [asyncio.create_task(load.work(n)) for n in range(options.workers)]
            gaps = await swaps(operator, load, options.swaps)
            load.stopping = True
            await asyncio.gather(*workers)
            report(f"swap, {options.workers} workers, longest call", gaps)
            report("kill -9 to the next answer", await kills(running, network, options.kills))


def main() -> None:
    """Start an instance, measure, take it away."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sandboxes", type=int, default=20)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--swaps", type=int, default=10)
    parser.add_argument("--kills", type=int, default=6)
    machine(measure, parser.parse_args())


if __name__ == "__main__":
    main()
