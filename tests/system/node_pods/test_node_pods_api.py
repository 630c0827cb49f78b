"""The kubelet against the API server itself: what it writes is accepted, and little is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from tests.unit.kube import kube_lab
from tests.unit.node_pods.pod_lab import Lab, pod

from sagong.testing import local
from sagong_state_sqlite import StateSqlite

PODS = "/api/v1/namespaces/default/pods"


@asynccontextmanager
async def cluster(tmp_path: Path) -> AsyncIterator[tuple[Lab, kube_lab.Lab]]:
    """A server with one node whose containers are fakes."""
    async with local(StateSqlite) as state, kube_lab.lab(state) as kube:
        node = Lab(tmp_path)
        node.settings = msgspec.structs.replace(node.settings, renew_seconds=0.2)
        node.objects = kube.kube  # type: ignore[assignment]
        await node.start()
        try:
            yield node, kube
        finally:
            await node.stop()


async def read(kube: kube_lab.Lab, path: str) -> dict[str, Any]:
    """An object, or the status that says why there is none."""
    found: dict[str, Any] = (await kube.ask("GET", path)).json
    return found


async def wait_for(kube: kube_lab.Lab, path: str, holds: Any) -> dict[str, Any]:
    """Read until it holds."""
    async with asyncio.timeout(60):
        while not holds(found := await read(kube, path)):
            await asyncio.sleep(0.01)
    return found


def wanted(name: str) -> dict[str, Any]:
    """A pod as a client posts it, already on its node."""
    document = pod(name, automountServiceAccountToken=False)
    del document["status"]
    return document


async def test_a_node_is_there_and_alive(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (_, kube):
        lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-1"
        first = await wait_for(kube, lease, lambda o: "spec" in o)
        node = await read(kube, "/api/v1/nodes/node-1")
        conditions = {c["type"]: c["status"] for c in node["status"]["conditions"]}
        assert conditions["Ready"] == "True"
        assert node["status"]["nodeInfo"]["operatingSystem"] == "linux"
        assert first["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]
        before = first["spec"]["renewTime"]
        later = await wait_for(kube, lease, lambda o: o["spec"]["renewTime"] != before)
        assert later["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


async def test_a_pod_runs_crashes_and_goes(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (node, kube):
        await wait_for(kube, "/api/v1/nodes/node-1", lambda o: "spec" in o)
        created = await kube.ask("POST", PODS, wanted("web"), status=201)
        path = f"{PODS}/web"
        running = await wait_for(kube, path, lambda o: o["status"]["phase"] == "Running")
        (main,) = running["status"]["containerStatuses"]
        assert main["ready"] and main["restartCount"] == 0
        versions = [o["metadata"]["resourceVersion"] for o in (created.json, running)]
        # Three when nothing comes between: its events are written in the same space.
        assert int(versions[1]) - int(versions[0]) <= 12
        node.runtime.end("main", 3)
        crashed = await wait_for(
            kube, path, lambda o: o["status"]["containerStatuses"][0]["restartCount"] == 1
        )
        last = crashed["status"]["containerStatuses"][0]["lastState"]["terminated"]
        assert last["exitCode"] == 3
        await kube.ask("DELETE", path, status=200)
        await wait_for(kube, path, lambda o: o.get("code") == 404)
        assert node.runtime.containers == {}
        events = await wait_for(
            kube, "/api/v1/namespaces/default/events", lambda o: len(o["items"]) >= 4
        )
        reasons = {event["reason"] for event in events["items"]}
        assert {"Pulled", "Created", "Started"} <= reasons


async def test_a_label_that_was_changed_meanwhile_survives(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (_, kube):
        await wait_for(kube, "/api/v1/nodes/node-1", lambda o: "spec" in o)
        await kube.ask("POST", PODS, wanted("web"), status=201)
        patch = {"metadata": {"labels": {"a": "b"}}}
        kind = {"Content_Type": "application/merge-patch+json"}
        await kube.ask("PATCH", f"{PODS}/web", patch, status=200, **kind)
        running = await wait_for(kube, f"{PODS}/web", lambda o: o["status"]["phase"] == "Running")
        assert running["metadata"]["labels"] == {"a": "b"}
