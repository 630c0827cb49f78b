"""The API server of a whole instance over TLS on loopback: list, select, get, create, memory.

`tests/bench/run kube_api [--pods N]`, as root. Slot `state`, `auth` and service `kube` are processes of
their own, as in profile `single`; nothing schedules or runs the pods. Debian has no kube-apiserver:
its figures are the design's, measured with etcd on the same kind of machine in another run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import Any

import uvloop
from tests.bench import machine
from tests.bench.figures import Budget, Figure, report
from tests.bench.kube_client import Client, Server
from tests.system.instance import Instance, instance

UPSTREAM = "kube-apiserver 1.32 and etcd, measured earlier"
CONFIGURATION = """
profile = "bare"
[units.state-cluster]
plugin = "state_sqlite"
instance = "cluster"
settings = { file = "cluster.db" }
[units.auth]
plugin = "auth_rbac"
[units.kube]
"""
PODS = "/api/v1/namespaces/default/pods"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
NODE = "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-7"
LABEL = "/api/v1/pods?labelSelector=app%3Dapp-7"


def pod(number: int) -> dict[str, Any]:
    """A pod that is stored as about 8 KB."""
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


async def times(client: Client, path: str, rounds: int, accept: str = "") -> list[float]:
    """Milliseconds of whole answers."""
    found = []
    for number in range(rounds + 1):
        began = time.perf_counter()
        await client.ask("GET", path, accept=accept)
        if number:
            found.append((time.perf_counter() - began) * 1e3)
    return found


async def create(clients: list[Client], count: int) -> list[float]:
    """Creations a second, of each fifth of them."""
    bodies = [json.dumps(pod(number)).encode() for number in range(count)]
    rates = []
    part = count // 5

    async def work(client: Client, numbers: Any) -> None:
        for number in numbers:
            await client.ask("POST", PODS, bodies[number])

    for start in range(0, part * 5, part):
        numbers = iter(range(start, start + part))
        began = time.perf_counter()
        await asyncio.gather(*(work(client, numbers) for client in clients))
        rates.append(part / (time.perf_counter() - began))
    return rates


async def gets(clients: list[Client], count: int, stored: int) -> list[float]:
    """Gets a second, five times."""
    rates = []

    async def work(client: Client, numbers: Any) -> None:
        for number in numbers:
            await client.ask("GET", f"{PODS}/pod-{number % stored:05}")

    for _ in range(5):
        numbers = iter(range(count))
        began = time.perf_counter()
        await asyncio.gather(*(work(client, numbers) for client in clients))
        rates.append(count / (time.perf_counter() - began))
    return rates


def memory(running: Instance, unit: str) -> float:
    """PSS of a unit's process, in MB."""
    text = Path(f"/proc/{running.pid(unit)}/smaps_rollup").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("Pss:")]
    return int(line.split()[1]) / 1024


def against(
    what: str, unit: str, ours: list[float], theirs: float, limit: float, *, least: bool = False
) -> Figure:
    """A figure whose budget is a ratio to upstream's."""
    budget = Budget(limit=limit, ratio=True, least=least)
    return Figure(what=what, unit=unit, ours=ours, theirs=[theirs], peer=UPSTREAM, budget=budget)


async def measure(running: Instance, count: int) -> list[Figure]:
    """All of it."""
    server = Server.of(running.paths.etc / "kubeconfig")
    clients = [await Client(server).open() for _ in range(32)]
    one = clients[0]
    created = await create(clients, count)
    body = await one.ask("GET", "/api/v1/pods")
    stored = len(json.loads(body)["items"])
    kilobytes = len(body) / stored / 1000
    assert stored == count // 5 * 5
    listed = await times(one, "/api/v1/pods", 7)
    by_node, by_label = await times(one, NODE, 9), await times(one, LABEL, 9)
    got = await gets(clients[:16], 4000, stored)
    tables = await times(one, "/api/v1/pods", 5, TABLE)
    many = f"{stored:,} pods of {kilobytes:.1f} KB"
    return [
        against("API: create over TLS, 32 at once, durable", "/s", created, 596, 3, least=True),
        against(f"API: list of {many} over TLS", "ms", listed, 1500, 0.15),
        against("API: list by node of those", "ms", by_node, 640, 0.02),
        against("API: list by label of those", "ms", by_label, 640, 0.02),
        Figure(what="API: table of those, as kubectl asks", unit="ms", ours=tables),
        against("API: get over TLS, 16 at once", "/s", got, 1400, 5, least=True),
        against(
            "API server's memory with those (PSS)", "MB", [memory(running, "kube")], 1176, 0.15
        ),
        Figure(
            what="store's memory with those (PSS)",
            unit="MB",
            ours=[memory(running, "state-cluster")],
            theirs=[303],
            peer="etcd, measured earlier",
        ),
    ]


def main() -> None:
    """Start an instance, measure, take it away."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=10_000)
    options = parser.parse_args()
    machine.enter()
    with instance(CONFIGURATION) as running:
        report("kube_api", uvloop.run(measure(running, options.pods)))


if __name__ == "__main__":
    main()
