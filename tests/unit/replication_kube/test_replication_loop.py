"""The loop of the controllers against a store with watches: once each, however late watches are."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

import pytest
from tests.unit.replication_kube.fake_objects import FakeObjects

from sagong.conformance.replication_garbage import namespace
from sagong.conformance.replication_jobs import cron
from sagong.conformance.replication_lab import Cluster, Json, node, workload
from sagong.conformance.replication_nodes import lease
from sagong.conformance.replication_services import service
from sagong.contracts.objects import Objects, Verb
from sagong.testing import awaited, local
from sagong_replication_kube import ReplicationKube
from sagong_replication_kube.nodes import GRACE_SECONDS, LEASE_SPACE, LEASES

DEPLOYMENTS = "apps/v1/deployments"


@contextlib.asynccontextmanager
async def controllers(objects: FakeObjects) -> AsyncIterator[Cluster]:
    """The plugin at work on these objects."""
    async with local(ReplicationKube, uses={Objects: awaited(Objects, objects)}):
        yield objects.cluster


async def wait_until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Until something holds."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


def start_all(cluster: Cluster) -> None:
    """Do what a node does."""
    cluster.nurse()


def deployment(replicas: int = 3) -> Json:
    """Deployment `web`."""
    return workload("Deployment", "web", replicas=replicas)


@pytest.mark.parametrize("lag", [0.0, 0.03])
async def test_a_deployment_makes_everything_once(lag: float) -> None:
    objects = FakeObjects(lag=lag)
    async with controllers(objects) as cluster:
        cluster.add(deployment())
        await wait_until(lambda: len(cluster.pods) == 3)
        start_all(cluster)
        await wait_until(
            lambda: cluster.get(DEPLOYMENTS, "web").get("status", {}).get("readyReplicas") == 3
        )
        await asyncio.sleep(lag * 6)
    made = [w.resource for c in objects.commits for w in c.writes if w.verb is Verb.CREATE]
    made = [resource for resource in made if resource != "v1/events"]
    assert sorted(made) == ["apps/v1/replicasets", "v1/pods", "v1/pods", "v1/pods"]
    # Four when nothing comes between; a busy machine splits what is seen at once.
    assert lag or len(objects.commits) <= 8


async def test_a_lost_answer_makes_nothing_twice() -> None:
    objects = FakeObjects()
    async with controllers(objects) as cluster:
        objects.lose = 2
        cluster.add(deployment(5))
        await wait_until(lambda: len(cluster.pods) == 5)
        await asyncio.sleep(0.2)
        assert len(cluster.pods) == 5


async def test_nothing_happens_when_nothing_changes() -> None:
    objects = FakeObjects(deployment(2), service())
    cluster = objects.cluster
    async with local(ReplicationKube, uses={Objects: awaited(Objects, objects)}) as plugin:
        await wait_until(lambda: len(cluster.pods) == 2)
        start_all(cluster)
        await wait_until(
            lambda: cluster.get(DEPLOYMENTS, "web").get("status", {}).get("readyReplicas") == 2
        )
        await asyncio.sleep(0.3)
        await wait_until(lambda: not plugin.busy())
        commits = len(objects.commits)
        await asyncio.sleep(0.3)
        assert len(objects.commits) == commits


async def test_endpoints_follow() -> None:
    objects = FakeObjects(deployment(2), service())
    async with controllers(objects) as cluster:
        await wait_until(lambda: len(cluster.pods) == 2)
        start_all(cluster)

        def published() -> bool:
            found = cluster.find("v1/endpoints", "web")
            return len((found or {}).get("subsets", [{}])[0].get("addresses", [])) == 2

        await wait_until(published)


async def test_deleted_things_take_their_own_along() -> None:
    objects = FakeObjects(deployment(2))
    async with controllers(objects) as cluster:
        await wait_until(lambda: len(cluster.pods) == 2)
        cluster.delete(DEPLOYMENTS, "web", propagation="Background")
        await wait_until(lambda: not cluster.pods and not cluster.all("apps/v1/replicasets"))


async def test_what_was_deleted_meanwhile_does_not_come_back_by_a_late_answer() -> None:
    """The answer of a status that was written before the end is older than what the watch told."""
    objects = FakeObjects(deployment(2), late=0.3)
    async with controllers(objects) as cluster:
        await wait_until(lambda: "status" in cluster.get(DEPLOYMENTS, "web"))
        cluster.delete(DEPLOYMENTS, "web", propagation="Background")
        await wait_until(lambda: not cluster.pods and not cluster.all("apps/v1/replicasets"))


async def test_a_namespace_ends() -> None:
    wanted = deployment(2)
    wanted["metadata"]["namespace"] = "team"
    objects = FakeObjects(namespace("team"), wanted)
    async with controllers(objects) as cluster:
        await wait_until(lambda: len(cluster.pods) == 2)
        start_all(cluster)
        cluster.delete("v1/namespaces", "team", "")
        await wait_until(lambda: not cluster.living)
        start_all(cluster)
        await wait_until(lambda: cluster.find("v1/namespaces", "team", "") is None)


async def test_a_new_object_is_not_garbage_though_its_owner_is_seen_later() -> None:
    """Watches of two kinds are not in step: the owner is asked for before anything is deleted."""
    objects = FakeObjects(lag=0.02)
    async with controllers(objects) as cluster:
        for number in range(5):
            wanted = deployment(2)
            wanted["metadata"]["name"] = f"web-{number}"
            wanted["spec"]["selector"]["matchLabels"] = {"app": f"web-{number}"}
            wanted["spec"]["template"]["metadata"]["labels"] = {"app": f"web-{number}"}
            cluster.add(wanted)
        await wait_until(lambda: len(cluster.pods) == 10)
        await asyncio.sleep(0.5)
    deleted = [w for c in objects.commits for w in c.writes if w.verb is Verb.DELETE]
    assert deleted == []
    assert len(cluster.pods) == 10


async def test_one_with_nothing_to_do_sleeps_and_says_what_for() -> None:
    """Renewals of a node's lease are no news, their absence is; a job is made at its time."""
    objects = FakeObjects(node("a"), lease("a", time.time()), cron("0 0 1 1 *"))
    async with local(ReplicationKube, uses={Objects: awaited(Objects, objects)}) as plugin:
        assert plugin.busy(), "it has not even begun"
        await wait_until(lambda: not plugin.busy())
        until = await plugin.doze()
        objects.cluster.add(deployment())
        await wait_until(plugin.busy)
    assert until > time.time() + 60
    (reminder,) = objects.reminders
    assert [watch.resource for watch in reminder.comings] == [LEASES]
    assert {DEPLOYMENTS, "v1/nodes"} <= {w.resource for w in reminder.watches} - {LEASES}
    assert min(watch.revision for watch in reminder.watches) > 0
    (silence,) = reminder.silences
    assert (silence.resource, silence.namespace, silence.name) == (LEASES, LEASE_SPACE, "a")
    assert 0 < silence.first <= silence.seconds == GRACE_SECONDS


async def test_one_with_something_to_do_does_not_sleep() -> None:
    """The answer to its write does not come, as when the store is away."""
    objects = FakeObjects()
    async with local(ReplicationKube, uses={Objects: awaited(Objects, objects)}) as plugin:
        await wait_until(lambda: not plugin.busy())
        objects.lose = 10_000
        objects.cluster.add(deployment())
        await wait_until(lambda: bool(objects.commits))
        assert plugin.busy() and plugin.busy()
        assert await plugin.doze() <= time.time() and not objects.reminders
