"""Checks of controllers: ReplicaSets and ReplicationControllers."""

from __future__ import annotations

import json

from sagong.conformance.replication_lab import Cluster, pod_template, replica_set, workload
from sagong.contracts.objects import Verb
from sagong.contracts.replication import Replication, Situation
from sagong.errors import InvalidArgument

__all__ = [
    "check_broken_objects_are_invalid",
    "check_deleted_set_makes_no_pods",
    "check_ended_pods_are_replaced",
    "check_matching_strays_are_adopted",
    "check_no_longer_matching_pods_are_let_go",
    "check_others_pods_are_not_taken",
    "check_pods_are_made_from_the_template",
    "check_replication_controller_works_alike",
    "check_same_situation_has_the_same_plan",
    "check_status_counts_pods",
    "check_surplus_ends_in_upstreams_order",
    "check_writes_are_conditional",
]

PODS = "v1/pods"
SETS = "apps/v1/replicasets"


async def check_pods_are_made_from_the_template(candidate: Replication) -> None:
    """So many, with generated names, the template's labels and spec, controlled by the set."""
    template = pod_template(image="two")
    template["metadata"]["annotations"] = {"note": "kept"}
    cluster = Cluster(candidate, replica_set("web", 3, template=template))
    await cluster.settle()
    owner = cluster.get(SETS, "web")
    assert len(cluster.pods) == 3
    for pod in cluster.pods:
        meta = pod["metadata"]
        prefix, _, tail = meta["name"].rpartition("-")
        assert prefix == "web" and len(tail) == 5
        assert meta["labels"] == {"app": "web"} and meta["annotations"] == {"note": "kept"}
        assert pod["spec"]["containers"][0]["image"] == "two"
        (reference,) = meta["ownerReferences"]
        assert reference == {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "name": "web",
            "uid": owner["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }


async def check_status_counts_pods(candidate: Replication) -> None:
    """Pods, those that are ready, those that have been for long enough."""
    cluster = Cluster(candidate, replica_set("web", 2, minReadySeconds=10))
    await cluster.run()
    status = cluster.get(SETS, "web")["status"]
    assert (status["replicas"], status["readyReplicas"]) == (2, 2)
    assert status.get("availableReplicas", 0) == 0
    assert status["fullyLabeledReplicas"] == 2 and status["observedGeneration"] == 1
    await cluster.step()
    assert 0 < cluster.again <= 10, "it looks again when they will have been ready for long enough"
    cluster.now += 10
    await cluster.settle()
    assert cluster.get(SETS, "web")["status"]["availableReplicas"] == 2


async def check_ended_pods_are_replaced(candidate: Replication) -> None:
    """Failed and deleted pods don't count."""
    cluster = Cluster(candidate, replica_set("web", 2))
    await cluster.run()
    first, second = cluster.pods
    cluster.finish(first, code=1)
    cluster.delete(PODS, second["metadata"]["name"])
    await cluster.settle()
    assert len(cluster.living) == 2
    assert not {p["metadata"]["uid"] for p in cluster.living} & {
        first["metadata"]["uid"],
        second["metadata"]["uid"],
    }


async def check_surplus_ends_in_upstreams_order(candidate: Replication) -> None:
    """Unassigned before assigned, pending before running, unready before ready, cheap before dear."""
    cluster = Cluster(candidate, replica_set("web", 5))
    await cluster.settle()
    unassigned, pending, unready, cheap, dear = cluster.pods
    for pod in (unready, cheap, dear):
        cluster.start(pod)
    pending["spec"]["nodeName"] = "node-1"
    cluster.set_ready(unready, False)
    dear["metadata"].setdefault("annotations", {})["controller.kubernetes.io/pod-deletion-cost"] = (
        "10"
    )
    order = [pod["metadata"]["name"] for pod in (unassigned, pending, unready, cheap, dear)]
    for left in range(4, 0, -1):
        cluster.change(SETS, "web", replicas=left)
        await cluster.settle()
        gone = order.pop(0)
        assert [p for p in cluster.living if p["metadata"]["name"] == gone] == [], gone
        assert len(cluster.living) == left


async def check_matching_strays_are_adopted(candidate: Replication) -> None:
    """A pod that matches and that nobody controls counts."""
    stray = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "stray", "namespace": "default", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Pending"},
    }
    cluster = Cluster(candidate, replica_set("web", 2), stray)
    await cluster.settle()
    assert len(cluster.pods) == 2
    (reference,) = cluster.get(PODS, "stray")["metadata"]["ownerReferences"]
    assert reference["controller"] is True and reference["name"] == "web"


async def check_no_longer_matching_pods_are_let_go(candidate: Replication) -> None:
    """A pod whose label was changed is left alone and replaced."""
    cluster = Cluster(candidate, replica_set("web", 1))
    await cluster.run()
    (pod,) = cluster.pods
    pod["metadata"]["labels"] = {"app": "debug"}
    await cluster.settle()
    kept = cluster.get(PODS, pod["metadata"]["name"])
    assert not kept["metadata"].get("ownerReferences")
    assert "deletionTimestamp" not in kept["metadata"]
    assert len(cluster.living) == 2


async def check_others_pods_are_not_taken(candidate: Replication) -> None:
    """Two sets that select the same have their own pods each."""
    cluster = Cluster(candidate, replica_set("one", 2), replica_set("two", 3))
    await cluster.run()
    owners = [p["metadata"]["ownerReferences"][0]["name"] for p in cluster.pods]
    assert sorted(owners) == ["one"] * 2 + ["two"] * 3


async def check_deleted_set_makes_no_pods(candidate: Replication) -> None:
    """While it waits for its finalizer nothing new is made for it."""
    wanted = replica_set("web", 2)
    wanted["metadata"]["finalizers"] = ["example.com/wait"]
    cluster = Cluster(candidate, wanted)
    cluster.delete(SETS, "web")
    await cluster.settle()
    assert cluster.pods == []


async def check_replication_controller_works_alike(candidate: Replication) -> None:
    """With its plain selector, or its template's labels for want of one."""
    spec = {"replicas": 2, "selector": {"app": "web"}, "template": pod_template()}
    controller = {
        "apiVersion": "v1",
        "kind": "ReplicationController",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": spec,
    }
    cluster = Cluster(candidate, controller)
    await cluster.run()
    assert len(cluster.living) == 2
    assert cluster.get("v1/replicationcontrollers", "web")["status"]["readyReplicas"] == 2
    cluster.change("v1/replicationcontrollers", "web", replicas=0)
    await cluster.run()
    assert cluster.pods == []


async def check_same_situation_has_the_same_plan(candidate: Replication) -> None:
    """Names too: chance is in the question."""
    wanted = workload("Deployment", "web", replicas=3)
    wanted["metadata"] |= {"uid": "u", "resourceVersion": "1"}
    objects = tuple(json.dumps(one).encode() for one in (replica_set("x", 4), wanted))
    situation = Situation(objects=objects, now=1e9, seed=7)
    assert await candidate.reconcile(situation) == await candidate.reconcile(situation)
    other = Situation(objects=objects, now=1e9, seed=8)
    assert await candidate.reconcile(situation) != await candidate.reconcile(other)


async def check_writes_are_conditional(candidate: Replication) -> None:
    """Deletions name the uid, statuses and patches the version they were made from."""
    cluster = Cluster(candidate, replica_set("web", 1))
    await cluster.run()
    cluster.change(SETS, "web", replicas=0)
    plan = await cluster.ask()
    (deletion,) = [w for w in plan.writes if w.verb is Verb.DELETE]
    assert deletion.uid == cluster.pods[0]["metadata"]["uid"]
    await cluster.run()
    for write in cluster.writes:
        if write.verb in (Verb.STATUS, Verb.PATCH, Verb.UPDATE):
            assert json.loads(write.body)["metadata"]["resourceVersion"]


async def check_broken_objects_are_invalid(candidate: Replication) -> None:
    """What can't be read, and what has no kind or no name, is refused."""
    broken: list[bytes] = [
        b"{",
        b"[]",
        b'{"kind":"Pod","metadata":{"name":"p"}}',
        b'{"apiVersion":"v1","kind":"Pod","metadata":{}}',
        b'{"apiVersion":"v1","kind":"Pod","metadata":{"name":3}}',
        b'{"apiVersion":"apps/v1","kind":"ReplicaSet","metadata":{"name":"p"}}',
    ]
    for body in broken:
        try:
            plan = await candidate.reconcile(Situation(objects=(body,), now=1.0))
        except InvalidArgument as error:
            assert error.message
        else:
            raise AssertionError(f"{body!r} was answered: {plan}")
