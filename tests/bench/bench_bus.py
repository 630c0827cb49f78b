"""Calls on the bus beside the same over grpc.aio: `tests/bench/run bus [--seconds N]`.

One provider and one caller, each a process of its own; 100 bytes each way.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import multiprocessing
import os
import statistics
import tempfile
import time
import timeit
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import uvloop
import zmq
from tests.bench.figures import Budget, Figure, report

from sagong.bus import Provider, Route, proxy
from sagong.contract import Message, method, slot
from sagong.tracing import RECORDER

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


def serve(work: Callable[[str], Any], path: str) -> multiprocessing.process.BaseProcess:
    """A server in a process of its own."""
    process = multiprocessing.get_context("fork").Process(
        target=lambda: uvloop.run(work(path)), daemon=True
    )
    process.start()
    while not os.path.exists(path):
        time.sleep(0.01)
    time.sleep(0.2)
    return process


def peers() -> dict[str, tuple[Any, Any]]:
    """Ours, and grpc.aio if it is installed."""
    found: dict[str, tuple[Any, Any]] = {"sagong": (serve_bus, call_bus)}
    if importlib.util.find_spec("grpc"):
        found["grpc.aio"] = (serve_grpc, call_grpc)
    else:
        print("grpcio is not installed: no peer to compare with (pip install grpcio)")
    return found


def called(caller: Any, path: str, seconds: float) -> tuple[float, float, float]:
    """Measured in a process of its own, since grpc keeps to the first loop that it saw."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(
        target=lambda: theirs.send(uvloop.run(caller(path, seconds))), daemon=True
    )
    process.start()
    try:
        if not ours.poll(60):
            raise TimeoutError(f"{path}: the caller did not end within a minute")
        found: tuple[float, float, float] = ours.recv()
        return found
    finally:
        process.kill()
        process.join()


def figures(runs: dict[str, list[tuple[float, float, float]]]) -> list[Figure]:
    """Three rows."""
    rows = []
    for place, what, unit, budget in (
        (0, "bus call of 100 B, one at a time, p50", "µs", Budget(limit=200)),
        (1, "bus call of 100 B, one at a time, p99", "µs", None),
        (2, "bus calls a second, 64 in flight", "/s", Budget(limit=50_000, least=True)),
    ):
        ours = [run[place] for run in runs["sagong"]]
        theirs = [run[place] for run in runs.get("grpc.aio", [])]
        rows.append(
            Figure(what=what, unit=unit, ours=ours, theirs=theirs, peer="grpc.aio", budget=budget)
        )
    return rows


def tracing(runs: list[tuple[float, float, float]]) -> Figure:
    """What a call pays for tracing that is off, against all that it takes."""
    assert not RECORDER.on
    asked = "recorder.on; recorder.children('cause')"
    times = timeit.repeat(asked, globals={"recorder": RECORDER}, number=100_000, repeat=5)
    share = min(times) / 100_000 * 1e6 / statistics.median(run[0] for run in runs) * 100
    what = "tracing while it is off, share of a bus call"
    return Figure(what=what, unit="%", ours=[share], budget=Budget(limit=0.5))


def main() -> None:
    """Measure each in turn, five times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    runs: dict[str, list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory() as directory:
        serving = []
        for name, (server, _) in peers().items():
            serving.append(serve(server, str(Path(directory, name))))
        for _ in range(5):
            for name, (_, caller) in peers().items():
                path = str(Path(directory, name))
                runs.setdefault(name, []).append(called(caller, path, options.seconds))
        for process in serving:
            process.kill()
            process.join()
    report("bus", [*figures(runs), tracing(runs["sagong"])])


if __name__ == "__main__":
    main()
