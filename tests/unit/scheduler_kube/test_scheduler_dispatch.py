"""The loop of schedulers against a store with watches: binding, refusing, preempting, volumes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
from tests.unit.replication_kube.fake_objects import FakeObjects

from sagong.conformance.scheduler_lab import node, pod
from sagong.contracts.objects import Objects, Verb
from sagong.scheduling.intake import SOURCES
from sagong.testing import awaited, local
from sagong_scheduler_binpack import SchedulerBinpack
from sagong_scheduler_kube import SchedulerKube

Json = dict[str, Any]
PODS = "v1/pods"


@contextlib.asynccontextmanager
async def scheduler(objects: FakeObjects, plugin: Any = SchedulerKube) -> AsyncIterator[Any]:
    """The plugin at work on these objects."""
    async with local(plugin, uses={Objects: awaited(Objects, objects)}):
        yield objects.cluster


async def wait_until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Until something holds."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


def bound(cluster: Any, name: str) -> str:
    """The node of a pod."""
    found: str = cluster.get(PODS, name)["spec"].get("nodeName", "")
    return found


def condition(cluster: Any, name: str) -> Json:
    """PodScheduled of a pod."""
    conditions = cluster.get(PODS, name)["status"].get("conditions", [])
    return next((c for c in conditions if c["type"] == "PodScheduled"), {})


def events(objects: FakeObjects) -> list[Json]:
    """Events that were written."""
    writes = (w for c in objects.commits for w in c.writes if w.resource == "v1/events")
    return [json.loads(w.body) for w in writes]


@pytest.mark.parametrize("plugin", [SchedulerKube, SchedulerBinpack])
async def test_pods_are_bound_in_batches(plugin: Any) -> None:
    objects = FakeObjects(node("a"), node("b"), *(pod(f"p{n}", cpu="100m") for n in range(40)))
    async with scheduler(objects, plugin) as cluster:
        await wait_until(lambda: all(p["spec"].get("nodeName") for p in cluster.pods))
    assert len(objects.commits) <= 3
    (said, *_) = events(objects)
    assert said["reason"] == "Scheduled"
    assert said["message"].startswith("Successfully assigned default/p")


async def test_a_pod_that_fits_nowhere_is_told_why_and_bound_when_it_fits() -> None:
    objects = FakeObjects(node("a", cpu="1"), pod("p", cpu="2"))
    async with scheduler(objects) as cluster:
        await wait_until(lambda: condition(cluster, "p") != {})
        said = condition(cluster, "p")
        assert (said["status"], said["reason"]) == ("False", "Unschedulable")
        assert said["message"].startswith("0/1 nodes are available: 1 Insufficient cpu. preemption")
        commits = len(objects.commits)
        await asyncio.sleep(0.2)
        assert len(objects.commits) == commits, "it is not told again"
        cluster.add(node("b", cpu="2"))
        await wait_until(lambda: bound(cluster, "p") == "b")
    assert {event["reason"] for event in events(objects)} == {"Scheduled", "FailedScheduling"}


async def test_others_pods_and_gated_pods_are_left_alone() -> None:
    other = pod("other", schedulerName="somebody")
    gated = pod("gated", schedulingGates=[{"name": "g"}])
    objects = FakeObjects(node("a"), other, gated, pod("mine"))
    async with scheduler(objects) as cluster:
        await wait_until(lambda: bound(cluster, "mine") == "a")
        assert not bound(cluster, "other") and not bound(cluster, "gated")
        opened = json.loads(json.dumps(cluster.get(PODS, "gated")))
        opened["spec"]["schedulingGates"] = []
        cluster._replace((PODS, "default", "gated"), opened)
        await wait_until(lambda: bound(cluster, "gated") == "a")


async def test_a_lower_pod_goes_for_a_higher_one() -> None:
    objects = FakeObjects(node("a", cpu="1"), pod("low", cpu="1", priority=1, on="a"))
    async with scheduler(objects) as cluster:
        cluster.add(pod("high", cpu="1", priority=10))
        await wait_until(lambda: "deletionTimestamp" in cluster.get(PODS, "low")["metadata"])
        assert cluster.get(PODS, "high")["status"]["nominatedNodeName"] == "a"
        (target,) = cluster.get(PODS, "low")["status"]["conditions"]
        assert (target["type"], target["reason"]) == ("DisruptionTarget", "PreemptionByScheduler")
        cluster.add(pod("late", cpu="1", priority=5))
        cluster.bury()
        await wait_until(lambda: bound(cluster, "high") == "a")
        assert not bound(cluster, "late"), "the room was made for another"


async def test_the_queue_is_by_priority() -> None:
    objects = FakeObjects(pod("low", cpu="1", priority=1), pod("high", cpu="1", priority=2))
    async with scheduler(objects) as cluster:
        await wait_until(lambda: condition(cluster, "low") != {})
        assert condition(cluster, "low")["message"] == "no nodes available to schedule pods"
        cluster.add(node("a", cpu="1"))
        await wait_until(lambda: bound(cluster, "high") == "a")
        assert not bound(cluster, "low")


async def test_a_lost_answer_binds_once() -> None:
    objects = FakeObjects(node("a"), pod("p"))
    objects.lose = 1
    async with scheduler(objects) as cluster:
        await wait_until(lambda: bound(cluster, "p") == "a")
        await asyncio.sleep(0.2)
    binds = [w for c in objects.commits for w in c.writes if w.verb is Verb.BIND]
    assert len(binds) == 1


async def test_a_late_watch_does_not_bind_twice_nor_promise_room_twice() -> None:
    pods = [pod(f"p{n}", cpu="1") for n in range(6)]
    objects = FakeObjects(node("a", cpu="4"), *pods, lag=0.03)
    async with scheduler(objects) as cluster:
        await wait_until(lambda: sum(bool(p["spec"].get("nodeName")) for p in cluster.pods) == 4)
        await asyncio.sleep(0.5)
    binds = [w for c in objects.commits for w in c.writes if w.verb is Verb.BIND]
    assert len(binds) == 4


def storage(mode: str) -> list[Json]:
    """A class, a claim of it, and a node's own volume."""
    class_ = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "local"},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": mode,
    }
    wants = {"requests": {"storage": "1Gi"}}
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": "default"},
        "spec": {"storageClassName": "local", "accessModes": ["ReadWriteOnce"], "resources": wants},
        "status": {"phase": "Pending"},
    }
    rule = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["b"]}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [rule]}]}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "disk-b"},
        "spec": {
            "storageClassName": "local",
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "2Gi"},
            "nodeAffinity": {"required": terms},
        },
        "status": {"phase": "Available"},
    }
    return [class_, claim, volume]


async def test_a_claim_is_bound_where_its_pod_goes() -> None:
    volumes = [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]
    objects = FakeObjects(node("a"), node("b"), *storage("WaitForFirstConsumer"))
    async with scheduler(objects) as cluster:
        cluster.add(pod("p", volumes=volumes))

        def promised() -> Json:
            spec: Json = cluster.get("v1/persistentvolumes", "disk-b", "")["spec"]
            return cast(Json, spec.get("claimRef", {}))

        await wait_until(lambda: bool(promised()))
        assert promised()["name"] == "data"
        assert not bound(cluster, "p"), "it waits for its claim"
        cluster.change("v1/persistentvolumeclaims", "data", volumeName="disk-b")
        claim = cluster.get("v1/persistentvolumeclaims", "data")
        key = ("v1/persistentvolumeclaims", "default", "data")
        cluster._replace(key, {**claim, "status": {"phase": "Bound"}})
        await wait_until(lambda: bound(cluster, "p") == "b")


async def test_an_immediate_claim_must_be_bound_before() -> None:
    volumes = [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]
    objects = FakeObjects(node("a"), *storage("Immediate"), pod("p", volumes=volumes))
    async with scheduler(objects) as cluster:
        await wait_until(lambda: condition(cluster, "p") != {})
        said = condition(cluster, "p")["message"]
        assert "pod has unbound immediate PersistentVolumeClaims" in said


async def test_one_with_a_pod_that_waits_does_not_sleep() -> None:
    objects = FakeObjects(node("a", cpu="1"), pod("small", cpu="1"), pod("large", cpu="64"))
    async with local(SchedulerKube, uses={Objects: awaited(Objects, objects)}) as plugin:
        assert plugin.busy(), "it has not even begun"
        await wait_until(lambda: bool(bound(objects.cluster, "small") and events(objects)))
        assert plugin.busy() and plugin.busy()
        assert await plugin.doze() > 0 and not objects.reminders
        objects.cluster._remove((PODS, "default", "large"))
        await wait_until(lambda: not plugin.busy())
        assert await plugin.doze() == 0
    (reminder,) = objects.reminders
    followed = {watch.resource: watch for watch in reminder.watches}
    assert set(followed) == {source.resource for source in SOURCES}
    assert followed[PODS].revision == objects.cluster.revision and followed[PODS].fields
