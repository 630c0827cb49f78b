"""Controllers and scheduler at the real API server, with kubectl and a node that is simulated."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.conformance.fake_state import FakeState
from tests.unit.kube.kube_lab import Lab, kubectl_path, lab
from tests.unit.replication_kube.simulated_node import SimulatedNode, wait_until

from sagong.contracts.objects import GetRequest, ListRequest, Objects
from sagong.errors import NotFound
from sagong.testing import awaited, local
from sagong_replication_kube import ReplicationKube
from sagong_scheduler_kube import SchedulerKube

pytestmark = pytest.mark.skipif(not kubectl_path(), reason="needs kubectl")
Json = dict[str, Any]


@contextlib.asynccontextmanager
async def cluster() -> AsyncIterator[Lab]:
    """A whole control plane and one node."""
    async with lab(FakeState()) as at:
        objects = awaited(Objects, at.kube)
        uses: dict[type, Any] = {Objects: objects}
        async with local(SchedulerKube, uses=uses), local(ReplicationKube, uses=uses):
            node = asyncio.create_task(SimulatedNode(objects).run())
            try:
                # Pods are admitted once their namespace has its service account.
                await wait_until(lambda: exists(at, "v1/serviceaccounts", "default"))
                yield at
            finally:
                node.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await node


async def get(at: Lab, resource: str, name: str, namespace: str = "default") -> Json:
    """An object."""
    request = GetRequest(resource=resource, name=name, namespace=namespace)
    found: Json = json.loads((await at.kube.get(request)).body)
    return found


async def exists(at: Lab, resource: str, name: str, namespace: str = "default") -> bool:
    """Whether an object is there."""
    try:
        await get(at, resource, name, namespace)
    except NotFound:
        return False
    return True


async def pods(at: Lab, labels: str = "", namespace: str = "default") -> list[Json]:
    """Pods, by name."""
    request = ListRequest(resource="v1/pods", namespace=namespace, labels=labels)
    return [json.loads(body) for body in (await at.kube.list(request)).items]


async def test_a_deployment_runs_rolls_and_comes_back() -> None:
    async with cluster() as at:
        before = at.state.disk.revision
        await at.kubectl("create", "deployment", "web", "--image=one", "--replicas=3")
        said = await at.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
        assert "successfully rolled out" in said
        assert at.state.disk.revision - before <= 14, "upstream writes about twenty times"
        await at.kubectl("set", "image", "deployment/web", "one=two")
        await at.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
        found = await pods(at, "app=web")
        assert [p["spec"]["containers"][0]["image"] for p in found] == ["two"] * 3
        await at.kubectl("rollout", "undo", "deployment/web")
        await at.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
        found = await pods(at, "app=web")
        assert [p["spec"]["containers"][0]["image"] for p in found] == ["one"] * 3
        history = await at.kubectl("rollout", "history", "deployment/web")
        assert [line.split()[0] for line in history.splitlines()[2:4]] == ["2", "3"]
        await at.kubectl("expose", "deployment", "web", "--port=80")

        async def published() -> bool:
            if not await exists(at, "v1/endpoints", "web"):
                return False
            subsets = (await get(at, "v1/endpoints", "web")).get("subsets", [{}])
            return len(subsets[0].get("addresses", [])) == 3

        await wait_until(published)
        await at.kubectl("delete", "deployment/web", "--cascade=foreground", "--timeout=60s")
        assert await pods(at, "app=web") == []


async def test_a_namespace_goes_with_everything_in_it() -> None:
    async with cluster() as at:
        await at.kubectl("create", "namespace", "team")
        await wait_until(lambda: exists(at, "v1/configmaps", "kube-root-ca.crt", "team"))
        await at.kubectl("-n", "team", "create", "deployment", "x", "--image=i", "--replicas=2")
        await at.kubectl("-n", "team", "create", "secret", "generic", "s", "--from-literal=a=b")
        await at.kubectl("-n", "team", "rollout", "status", "deployment/x", "--timeout=60s")
        await at.kubectl("delete", "namespace", "team", "--timeout=60s")
        assert await pods(at, namespace="team") == []
        assert not await exists(at, "v1/secrets", "s", "team")


WORKLOADS = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: c, image: i}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {containers: [{name: c, image: i}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: work}
spec:
  completions: 3
  parallelism: 2
  template:
    metadata: {labels: {ends: "0"}}
    spec: {restartPolicy: Never, containers: [{name: c, image: i}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: broken}
spec:
  backoffLimit: 0
  template:
    metadata: {labels: {ends: "1"}}
    spec: {restartPolicy: Never, containers: [{name: c, image: i}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: db}
spec:
  minAvailable: 1
  selector: {matchLabels: {app: db}}
"""


async def test_all_workloads_reach_what_they_are_for() -> None:
    async with cluster() as at:
        await at.kubectl("apply", "-f", "-", stdin=WORKLOADS)
        for name in ("statefulset/db", "daemonset/agent"):
            await at.kubectl("rollout", "status", name, "--timeout=60s")
        await at.kubectl("wait", "job/work", "--for=condition=Complete", "--timeout=60s")
        await at.kubectl("wait", "job/broken", "--for=condition=Failed", "--timeout=60s")
        status = (await get(at, "batch/v1/jobs", "work"))["status"]
        assert status["succeeded"] == 3
        assert [p["metadata"]["name"] for p in await pods(at, "app=db")] == ["db-0", "db-1"]
        (daemon,) = await pods(at, "app=agent")
        assert daemon["spec"]["nodeName"] == "node-1"

        async def counted() -> bool:
            found = await get(at, "policy/v1/poddisruptionbudgets", "db")
            return bool(found["status"].get("disruptionsAllowed") == 1)

        await wait_until(counted)
        for name in ("db-0", "db-1"):
            before = {p["metadata"]["uid"] for p in await pods(at, "app=db")}
            await at.kubectl("delete", "pod", name, "--timeout=60s")
            await at.kubectl("rollout", "status", "statefulset/db", "--timeout=60s")
            assert {p["metadata"]["uid"] for p in await pods(at, "app=db")} != before


async def test_a_quota_is_told_and_a_refusal_too() -> None:
    async with cluster() as at:
        await at.kubectl("create", "quota", "q", "--hard=pods=2")
        await at.kubectl("create", "deployment", "web", "--image=i", "--replicas=4")

        async def told() -> bool:
            status = (await get(at, "apps/v1/deployments", "web")).get("status", {})
            failed = [c for c in status.get("conditions", []) if c["type"] == "ReplicaFailure"]
            return bool(failed) and "exceeded quota" in failed[0]["message"]

        await wait_until(told)
        assert len(await pods(at, "app=web")) == 2

        async def used() -> bool:
            status = (await get(at, "v1/resourcequotas", "q"))["status"]
            return bool(status.get("used") == {"pods": "2"})

        await wait_until(used)
        await at.kubectl("delete", "quota", "q")
        await at.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
