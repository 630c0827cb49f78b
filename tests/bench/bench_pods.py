"""Pods on a whole instance of profile `single`: from the request to Running as a watch sees it.

`tests/bench/run pods [--rounds N]`, as root. The image is present. Upstream's figures are of the
design: kube-apiserver, etcd, controllers, scheduler, kubelet and containerd on the same kind of
machine in another run, since Debian has none of their packages.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop
from tests import sample_image
from tests.bench import machine, peers
from tests.bench.figures import Budget, Figure, report
from tests.bench.kube_client import Client, Server

PODS = "/api/v1/namespaces/default/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
TOGETHER, REPLICAS = 20, 30
UPSTREAM = "upstream's six, measured earlier"
SPEC = {
    "terminationGracePeriodSeconds": 0,
    "containers": [
        {
            "name": "main",
            "image": sample_image.NAME,
            "imagePullPolicy": "IfNotPresent",
            "command": ["sleep", "1000"],
        }
    ],
}


class Watch:
    """Follows all pods and says when each was first seen Running, and which are gone."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._changed = asyncio.Condition()
        self.running: dict[str, float] = {}
        self.present: set[str] = set()

    async def follow(self) -> None:
        """Until cancelled."""
        client = await Client(self._server).open()
        try:
            async for event in client.watch(f"{PODS}?watch=true"):
                await self._hear(event["type"], event["object"])
        finally:
            await client.close()

    async def _hear(self, kind: str, pod: dict[str, Any]) -> None:
        name = pod["metadata"]["name"]
        async with self._changed:
            if kind == "DELETED":
                self.present.discard(name)
                self.running.pop(name, None)
            else:
                self.present.add(name)
                if pod["status"].get("phase") == "Running":
                    self.running.setdefault(name, time.perf_counter())
            self._changed.notify_all()

    async def wait_running(self, count: int) -> float:
        """Wait until so many run; when the last of them was seen."""
        async with self._changed, asyncio.timeout(60):
            await self._changed.wait_for(lambda: len(self.running) >= count)
            return max(self.running.values())

    async def wait_none(self) -> None:
        """Wait until none is left."""
        async with self._changed, asyncio.timeout(60):
            await self._changed.wait_for(lambda: not self.present)


def pod(name: str) -> bytes:
    """A pod that sleeps."""
    metadata = {"name": name}
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": SPEC}
    return json.dumps(document).encode()


def deployment() -> bytes:
    """Thirty that sleep."""
    labels = {"app": "many"}
    spec = {
        "replicas": REPLICAS,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {k: SPEC[k] for k in SPEC}},
    }
    document = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "many"},
        "spec": spec,
    }
    return json.dumps(document).encode()


async def one_by_one(client: Client, watch: Watch, rounds: int) -> list[float]:
    """Milliseconds from each request to Running."""
    found = []
    for number in range(rounds + 2):
        name = f"single-{number}"
        began = time.perf_counter()
        await client.ask("POST", PODS, pod(name))
        ended = await watch.wait_running(1)
        if number >= 2:  # the first ones warm up
            found.append((ended - began) * 1e3)
        await client.ask("DELETE", f"{PODS}/{name}?gracePeriodSeconds=0")
        await watch.wait_none()
    return found


async def together(clients: list[Client], watch: Watch) -> float:
    """Pods a second, all created at once, until the last runs."""
    names = [f"together-{number}" for number in range(TOGETHER)]
    began = time.perf_counter()
    work = zip(clients, names)
    await asyncio.gather(*(client.ask("POST", PODS, pod(name)) for client, name in work))
    ended = await watch.wait_running(TOGETHER)
    await clients[0].ask("DELETE", f"{PODS}?gracePeriodSeconds=0")
    await watch.wait_none()
    return TOGETHER / (ended - began)


async def deployed(client: Client, watch: Watch) -> float:
    """Seconds from a Deployment to its last pod running."""
    began = time.perf_counter()
    await client.ask("POST", DEPLOYMENTS, deployment())
    ended = await watch.wait_running(REPLICAS)
    await client.ask("DELETE", f"{DEPLOYMENTS}/many?propagationPolicy=Background")
    await watch.wait_none()
    return ended - began


async def measure(kubeconfig: Path, rounds: int) -> list[Figure]:
    """All figures."""
    server = Server.of(kubeconfig)
    clients = [await Client(server).open() for _ in range(TOGETHER)]
    watch = Watch(server)
    async with asyncio.TaskGroup() as group:
        following = group.create_task(watch.follow())
        times = await one_by_one(clients[0], watch, rounds)
        rates = [await together(clients, watch) for _ in range(5)]
        many = [await deployed(clients[0], watch) for _ in range(3)]
        following.cancel()
    p99 = statistics.quantiles(times, n=100, method="inclusive")[98]
    what = "pod: created → Running seen by a watch"
    return [
        Figure(
            what=f"{what}, p50",
            unit="ms",
            ours=times,
            theirs=[1004],
            peer=UPSTREAM,
            budget=Budget(limit=60),
        ),
        Figure(what=f"{what}, p99", unit="ms", ours=[p99], budget=Budget(limit=250)),
        Figure(
            what=f"{TOGETHER} pods created at once",
            unit="/s",
            ours=rates,
            theirs=[8],
            peer=UPSTREAM,
            budget=Budget(limit=60, least=True),
        ),
        Figure(what=f"Deployment of {REPLICAS} to all running", unit="s", ours=many),
    ]


def main() -> None:
    """Start an instance, measure, take it away."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    machine.enter()
    with peers.sagong("single") as engine, tempfile.TemporaryDirectory() as directory:
        engine.ok("load", "-i", str(sample_image.build(Path(directory)).docker_archive))
        assert engine.instance is not None
        kubeconfig = engine.instance.paths.etc / "kubeconfig"
        figures = uvloop.run(measure(kubeconfig, options.rounds))
    report("pods", figures)


if __name__ == "__main__":
    main()
