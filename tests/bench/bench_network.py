"""How long joins, leaves and changes of rules take, on a machine of its own (needs root).

Run as `python -m tests.bench.bench_network`; figures are milliseconds, p50 and p99.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from msgspec.structs import replace
from tests.system.network.outer import joined, machine, plugin

from sagong.contracts.network import (
    Attachment,
    ConnectRequest,
    DisconnectRequest,
    Network,
    NetworkRef,
    PortMapping,
    Rules,
    SandboxRef,
    ServicePort,
)
from sagong_network_bridge import NetworkBridge

COUNT = 40
USER = Network(id="b" * 64, name="user", ipv6=True)
PORT = (PortMapping(container_port=80),)


def report(what: str, seconds: list[float]) -> None:
    """One line."""
    ordered = sorted(value * 1000 for value in seconds)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    print(f"{what:44} {statistics.median(ordered):8.2f} {p99:8.2f}", flush=True)


async def timed(work: Callable[[int], Awaitable[object]], *, pause: float) -> list[float]:
    """Seconds of each call; between two the pool fills up again."""
    found = []
    for number in range(COUNT):
        began = time.perf_counter()
        await work(number)
        found.append(time.perf_counter() - began)
        await asyncio.sleep(pause)
    return found


async def joins(network: NetworkBridge) -> None:
    """From the pool, with what a container may want beside."""
    await joined(network, "first", "bridge")
    await joined(network, "second", "user")
    await asyncio.sleep(0.3)
    for what, name, ports in (
        ("join, default network, pooled", "bridge", ()),
        ("join, named network with IPv6, pooled", "user", ()),
        ("join, named network, one port, pooled", "user", PORT),
    ):
        report(
            what,
            await timed(
                lambda n, w=what, name=name, ports=ports: joined(  # type: ignore[misc]
                    network, f"{w} {n}", name, ports=ports
                ),
                pause=0.02,
            ),
        )

        report(
            what.replace("join", "leave"),
            await timed(
                lambda n, w=what: network.leave(SandboxRef(id=f"{w} {n}")),  # type: ignore[misc]
                pause=0.02,
            ),
        )


async def changes(network: NetworkBridge) -> None:
    """A second network, back and forth."""
    wish = ConnectRequest(id="first", attachment=Attachment(network=USER.id))
    away = DisconnectRequest(id="first", network=USER.id)
    there, back = [], []
    for _ in range(COUNT // 2):
        there += await timed_once(network.connect(wish))
        back += await timed_once(network.disconnect(away))
    report("connect", there)
    report("disconnect", back)


async def timed_once(work: Awaitable[object]) -> list[float]:
    """Seconds of one call."""
    began = time.perf_counter()
    await work
    return [time.perf_counter() - began]


async def crowd(network: NetworkBridge) -> None:
    """Fifty at once: the pool is soon empty."""
    began = time.perf_counter()
    await asyncio.gather(*(joined(network, f"crowd {n}", "user", ports=PORT) for n in range(50)))
    seconds = time.perf_counter() - began
    print(f"{'50 joins at once':44} {seconds * 1000:8.2f} ({50 / seconds:.0f} a second)")
    began = time.perf_counter()
    await asyncio.gather(*(network.leave(SandboxRef(id=f"crowd {n}")) for n in range(50)))
    print(f"{'50 leaves at once':44} {(time.perf_counter() - began) * 1000:8.2f}")


async def rules(network: NetworkBridge) -> None:
    """One changed service among many."""
    for count in (100, 1000, 5000):
        services = [
            ServicePort(
                name=f"s{n}",
                addresses=(f"10.96.{n // 250}.{n % 250 + 1}",),
                port=80,
                backends=tuple(f"10.244.{n % 250}.{b}:80" for b in range(1, 4)),
            )
            for n in range(count)
        ]
        generation = count * 10
        began = time.perf_counter()
        await network.apply(Rules(generation=generation, services=tuple(services)))
        first = time.perf_counter() - began
        found = []
        for step in range(10):
            services[step] = replace(services[step], backends=("10.244.0.9:80",))
            wanted = Rules(generation=generation + 1 + step, services=tuple(services))
            found += await timed_once(network.apply(wanted))
        print(f"{f'{count} services, all new':44} {first * 1000:8.2f}")
        report(f"{count} services, one changed", found)


async def story(base: Path) -> None:
    """All of it."""
    began = time.perf_counter()
    async with plugin(base) as network:
        print(f"{'start':44} {(time.perf_counter() - began) * 1000:8.2f}")
        await network.create(USER)
        await joins(network)
        await changes(network)
        await crowd(network)
        await rules(network)
        for number in range(100):
            await joined(network, f"kept {number}", "user", ports=PORT)
    began = time.perf_counter()
    async with plugin(base) as network:
        print(f"{'start again with 102 sandboxes':44} {(time.perf_counter() - began) * 1000:8.2f}")
        for sandbox in (await network.sandboxes()).sandboxes:
            await network.leave(SandboxRef(id=sandbox.id))
        await network.delete(NetworkRef(id=USER.id))


if __name__ == "__main__":
    machine(story)
