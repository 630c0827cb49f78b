"""Calls on the bus beside the same over grpc.aio: `python tests/bench/bench_bus.py`.

One provider and one caller, each a process of its own; 100 bytes each way.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import uvloop
import zmq

from sagong.bus import Provider, Route, proxy
from sagong.contract import Message, method, slot

PAYLOAD = b"x" * 100
Call = Callable[[], Awaitable[Any]]


class Note(Message):
    """Some bytes."""

    data: bytes


@slot("echo", version=1)
class Echo(Protocol):
    """Says back."""

    @method(idempotent=True)
    async def say(self, note: Note) -> Note:
        """The same."""
        ...


class Speaker:
    """Fills slot `echo`."""

    def say(self, note: Note) -> Note:
        """The same."""
        return note


async def measure(call: Call, seconds: float) -> tuple[float, float, float]:
    """Latency p50 and p99 in µs of one call at a time, and calls a second at 64 in flight."""
    latencies = []
    for _ in range(1000):
        began = time.perf_counter()
        await call()
        latencies.append(time.perf_counter() - began)
    count, end = 0, time.perf_counter() + seconds

    async def caller() -> None:
        nonlocal count
        while time.perf_counter() < end:
            await call()
            count += 1

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(64)))
    rate = count / (time.perf_counter() - began)
    cuts = statistics.quantiles(latencies, n=100)
    return cuts[49] * 1e6, cuts[98] * 1e6, rate


async def serve_bus(path: str) -> None:
    """Our provider."""
    provider = Provider(zmq.Context(), path)
    provider.serve(Echo, Speaker())
    provider.bind()
    await asyncio.Event().wait()


async def call_bus(path: str, seconds: float) -> tuple[float, float, float]:
    """Our caller."""
    route = Route(zmq.Context(), "echo")
    route.switch(1, path)
    echo = proxy(Echo, route)
    note = Note(data=PAYLOAD)
    return await measure(lambda: echo.say(note), seconds)


async def serve_grpc(path: str) -> None:
    """The peer: grpc.aio with a bytes method, no protobuf in the way."""
    import grpc

    async def say(request: bytes, context: object) -> bytes:
        return request

    handler = grpc.method_handlers_generic_handler(
        "echo.Echo", {"say": grpc.unary_unary_rpc_method_handler(say)}
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    await asyncio.Event().wait()


async def call_grpc(path: str, seconds: float) -> tuple[float, float, float]:
    """The peer's caller."""
    import grpc

    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        say = channel.unary_unary("/echo.Echo/say")
        return await measure(lambda: say(PAYLOAD), seconds)


def serve(work: Callable[[str], Any], path: str) -> multiprocessing.Process:
    """A server in a process of its own."""
    process = multiprocessing.get_context("fork").Process(
        target=lambda: uvloop.run(work(path)), daemon=True
    )
    process.start()
    while not os.path.exists(path):
        time.sleep(0.01)
    time.sleep(0.2)
    return process


def main() -> None:
    """Measure each in turn, twice, and print the better run of each with the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    peers: dict[str, tuple[Any, Any]] = {"sagong": (serve_bus, call_bus)}
    try:
        import grpc  # noqa: F401

        peers["grpc.aio"] = (serve_grpc, call_grpc)
    except ImportError:
        print("grpcio is not installed: no peer to compare with (pip install grpcio)")
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        for name, (server, caller) in peers.items():
            path = str(Path(directory, name))
            process = serve(server, path)
            runs = [uvloop.run(caller(path, options.seconds)) for _ in range(2)]
            process.kill()
            process.join()
            found[name] = (
                min(r[0] for r in runs),
                min(r[1] for r in runs),
                max(r[2] for r in runs),
            )
    print(f"{'':10} {'p50 µs':>8} {'p99 µs':>8} {'calls/s':>9}")
    for name, (p50, p99, rate) in found.items():
        print(f"{name:10} {p50:8.0f} {p99:8.0f} {rate:9.0f}")
    if len(found) == 2:
        ours, theirs = found["sagong"], found["grpc.aio"]
        print(
            f"{'ratio':10} {ours[0] / theirs[0]:8.2f} {ours[1] / theirs[1]:8.2f}"
            f" {ours[2] / theirs[2]:9.1f}"
        )


if __name__ == "__main__":
    main()
