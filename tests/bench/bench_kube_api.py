"""Measures the API server over TLS on loopback: list, select, get, create, memory.

Run: python tests/bench/bench_kube_api.py [PODS]. The server and its SQLite store run in one process,
the client in another. Prints one line of JSON; the budgets stand beside the figures.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import ssl
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / part) for part in ("core", "plugins", "services", "tests/unit/kube")]

BUDGETS = {
    "list_ms": 225.0,
    "list_node_ms": 13.0,
    "list_label_ms": 13.0,
    "create_per_s": 1800.0,
    "get_per_s": 7000.0,
    "memory_mb": 177.0,
}


def pod(number: int) -> dict[str, Any]:
    """A pod of about 5 KB, as a controller would create it."""
    environment = [{"name": f"VARIABLE_{n}", "value": "v" * 40} for n in range(24)]
    container = {
        "name": "main",
        "image": "registry.example.com/team/application:1.2.3",
        "env": environment,
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "ports": [{"containerPort": 8080, "name": "http", "protocol": "TCP"}],
    }
    labels = {"app": f"app-{number % 100}", "tier": "web"}
    annotations = {f"example.com/annotation-{n}": "a" * 60 for n in range(16)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"pod-{number:05}", "labels": labels, "annotations": annotations},
        "spec": {"nodeName": f"node-{number % 100}", "containers": [container]},
    }


class Client:
    """One connection that sends requests and reads whole answers."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def open(self) -> Client:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=context, limit=1 << 22
        )
        return self

    async def ask(self, method: str, path: str, body: bytes = b"", accept: str = "") -> bytes:
        """Send one request; its answer's body."""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer admin-token\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        )
        if accept:
            head += f"Accept: {accept}\r\n"
        self._writer.write(head.encode() + b"\r\n" + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        lower = answer.lower()
        if b"transfer-encoding: chunked" in lower:
            return await self._chunks()
        length = int(lower.partition(b"content-length:")[2].partition(b"\r\n")[0])
        data = await self._reader.readexactly(length)
        if int(answer[9:12]) >= 400:
            raise RuntimeError(data.decode())
        return data

    async def _chunks(self) -> bytes:
        parts = []
        while size := int(await self._reader.readline(), 16):
            parts.append(await self._reader.readexactly(size))
            await self._reader.readexactly(2)
        await self._reader.readexactly(2)
        return b"".join(parts)


async def serve(pipe: Connection) -> None:
    """The server's process: says its port, answers `memory`, ends at `stop`."""
    import kube_lab

    from sagong.testing import local
    from sagong_state_sqlite import StateSqlite

    async with local(StateSqlite) as state, kube_lab.lab(state) as lab:
        pipe.send(lab.port)
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, pipe.recv) == "memory":
            pipe.send(memory())


def memory() -> float:
    """Proportional memory of this process in MB."""
    text = Path("/proc/self/smaps_rollup").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("Pss:")]
    return int(line.split()[1]) / 1024


async def best(client: Client, path: str, times: int = 5, accept: str = "") -> float:
    """The best time of an answer in ms."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        await client.ask("GET", path, accept=accept)
        found.append((time.perf_counter() - began) * 1e3)
    return min(found)


async def create(clients: list[Client], count: int) -> float:
    """Creations per second."""
    numbers = iter(range(count))
    bodies = [json.dumps(pod(n)).encode() for n in range(count)]

    async def work(client: Client) -> None:
        for number in numbers:
            await client.ask("POST", "/api/v1/namespaces/default/pods", bodies[number])

    began = time.perf_counter()
    await asyncio.gather(*(work(client) for client in clients))
    return count / (time.perf_counter() - began)


async def gets(clients: list[Client], count: int) -> float:
    """Gets per second."""
    numbers = iter(range(count))

    async def work(client: Client) -> None:
        for number in numbers:
            await client.ask("GET", f"/api/v1/namespaces/default/pods/pod-{number % 1000:05}")

    began = time.perf_counter()
    await asyncio.gather(*(work(client) for client in clients))
    return count / (time.perf_counter() - began)


async def measure(port: int, count: int) -> dict[str, float]:
    """All figures but memory."""
    clients = [await Client(port).open() for _ in range(32)]
    one = clients[0]
    figures = {"create_per_s": await create(clients, count)}
    body = await one.ask("GET", "/api/v1/pods")
    figures["pods"] = float(len(json.loads(body)["items"]))
    figures["pod_bytes"] = len(body) / figures["pods"]
    figures["list_ms"] = await best(one, "/api/v1/pods")
    node = "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-7"
    figures["list_node_ms"] = await best(one, node)
    figures["list_label_ms"] = await best(one, "/api/v1/pods?labelSelector=app%3Dapp-7")
    figures["get_per_s"] = await gets(clients[:16], min(count, 10000))
    table = "application/json;as=Table;v=v1;g=meta.k8s.io"
    figures["table_ms"] = await best(one, "/api/v1/pods", 3, table)
    return figures


def main() -> None:
    """Run both processes and print."""
    import uvloop

    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    server = context.Process(target=lambda: uvloop.run(serve(theirs)))
    server.start()
    try:
        figures = uvloop.run(measure(ours.recv(), count))
        ours.send("memory")
        figures["memory_mb"] = ours.recv()
        ours.send("stop")
    finally:
        server.join(20)
        if server.is_alive():
            os.kill(server.pid or 0, 9)
    shown = {
        key: {"is": round(value, 1), "budget": BUDGETS.get(key)} for key, value in figures.items()
    }
    print(json.dumps(shown))


if __name__ == "__main__":
    main()
