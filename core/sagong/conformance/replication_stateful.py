"""Checks of controllers: StatefulSets and DaemonSets."""

from __future__ import annotations

from typing import Any

from sagong.conformance.replication_lab import Cluster, Json, node, pinned, pod_template, workload
from sagong.contracts.replication import Replication

__all__ = [
    "check_daemons_leave_nodes_that_drive_them_out",
    "check_daemons_roll_one_by_one",
    "check_daemons_run_on_every_suitable_node",
    "check_stateful_claims_outlive_their_pods",
    "check_stateful_failed_pod_comes_back",
    "check_stateful_parallel_waits_for_nobody",
    "check_stateful_partition_holds_back",
    "check_stateful_pods_come_in_order",
    "check_stateful_pods_go_in_reverse_order",
    "check_stateful_update_goes_from_the_last",
]

STATEFUL = "apps/v1/statefulsets"
DAEMONS = "apps/v1/daemonsets"
CLAIMS = "v1/persistentvolumeclaims"


def stateful(replicas: int = 3, **spec: Any) -> Json:
    """StatefulSet `db`."""
    return workload("StatefulSet", "db", replicas=replicas, serviceName="db", **spec)


def names(cluster: Cluster) -> list[str]:
    """Names of living pods."""
    return [pod["metadata"]["name"] for pod in cluster.living]


def images(cluster: Cluster) -> list[str]:
    """Images of living pods, by name."""
    return [pod["spec"]["containers"][0]["image"] for pod in cluster.living]


async def check_stateful_pods_come_in_order(candidate: Replication) -> None:
    """Each waits until the one before is ready; names and hosts are numbered."""
    cluster = Cluster(candidate, stateful())
    for number in range(3):
        await cluster.settle()
        assert names(cluster) == [f"db-{n}" for n in range(number + 1)]
        cluster.nurse()
    await cluster.run()
    pod = cluster.get("v1/pods", "db-1")
    assert pod["spec"]["hostname"] == "db-1" and pod["spec"]["subdomain"] == "db"
    labels = pod["metadata"]["labels"]
    assert labels["statefulset.kubernetes.io/pod-name"] == "db-1"
    assert labels["apps.kubernetes.io/pod-index"] == "1"
    status = cluster.get(STATEFUL, "db")["status"]
    for key in ("replicas", "readyReplicas", "availableReplicas", "currentReplicas"):
        assert status[key] == 3, key
    assert status["currentRevision"] == status["updateRevision"]
    assert labels["controller-revision-hash"] == status["currentRevision"]
    assert cluster.get("apps/v1/controllerrevisions", status["currentRevision"])["revision"] == 1


async def check_stateful_parallel_waits_for_nobody(candidate: Replication) -> None:
    """podManagementPolicy Parallel makes all at once."""
    cluster = Cluster(candidate, stateful(podManagementPolicy="Parallel"))
    await cluster.settle()
    assert names(cluster) == ["db-0", "db-1", "db-2"]
    cluster.change(STATEFUL, "db", replicas=0)
    await cluster.settle()
    assert names(cluster) == []


async def check_stateful_pods_go_in_reverse_order(candidate: Replication) -> None:
    """The last first, and the next only when it is gone."""
    cluster = Cluster(candidate, stateful())
    await cluster.run()
    cluster.change(STATEFUL, "db", replicas=1)
    await cluster.settle()
    assert names(cluster) == ["db-0", "db-1"]
    cluster.bury()
    await cluster.settle()
    assert names(cluster) == ["db-0"]


async def check_stateful_failed_pod_comes_back(candidate: Replication) -> None:
    """Under its name."""
    cluster = Cluster(candidate, stateful(2))
    await cluster.run()
    old = cluster.get("v1/pods", "db-0")
    cluster.finish(old, code=1)
    await cluster.run()
    new = cluster.get("v1/pods", "db-0")
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    assert names(cluster) == ["db-0", "db-1"]


async def check_stateful_update_goes_from_the_last(candidate: Replication) -> None:
    """One at a time, each ready before the next; then the revisions agree."""
    cluster = Cluster(candidate, stateful())
    await cluster.run()
    first = cluster.get(STATEFUL, "db")["status"]["currentRevision"]
    cluster.change(STATEFUL, "db", template=pod_template(image="two"))
    seen = []
    for _ in range(40):
        changed = await cluster.step()
        assert len(cluster.living) >= 2, "one at a time"
        seen.append(tuple(images(cluster)))
        if not changed and not cluster.nurse():
            break
    assert images(cluster) == ["two"] * 3
    assert ("one", "one", "two") in seen and ("one", "two", "two") in seen
    status = cluster.get(STATEFUL, "db")["status"]
    assert status["currentRevision"] == status["updateRevision"] != first
    cluster.change(STATEFUL, "db", template=pod_template(image="one"))
    await cluster.run()
    assert images(cluster) == ["one"] * 3
    status = cluster.get(STATEFUL, "db")["status"]
    assert status["currentRevision"] == first, "the old revision came back"
    assert cluster.get("apps/v1/controllerrevisions", first)["revision"] == 3


async def check_stateful_partition_holds_back(candidate: Replication) -> None:
    """Numbers below the partition stay at the old revision, even when they are made anew."""
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    cluster = Cluster(candidate, stateful(updateStrategy=strategy))
    await cluster.run()
    cluster.change(STATEFUL, "db", template=pod_template(image="two"))
    await cluster.run()
    assert images(cluster) == ["one", "one", "two"]
    cluster.delete("v1/pods", "db-0")
    await cluster.run()
    assert images(cluster) == ["one", "one", "two"]
    cluster.change(STATEFUL, "db", updateStrategy={"type": "OnDelete"})
    await cluster.run()
    assert images(cluster) == ["one", "one", "two"]


async def check_stateful_claims_outlive_their_pods(candidate: Replication) -> None:
    """A claim per template and number, made before the pod, mounted by it, kept afterwards."""
    claim = {
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    cluster = Cluster(candidate, stateful(2, volumeClaimTemplates=[claim]))
    await cluster.run()
    assert [c["metadata"]["name"] for c in cluster.all(CLAIMS)] == ["data-db-0", "data-db-1"]
    assert cluster.all(CLAIMS)[0]["metadata"]["labels"] == {"app": "web"}
    (volume,) = cluster.get("v1/pods", "db-1")["spec"]["volumes"]
    assert volume == {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-1"}}
    cluster.change(STATEFUL, "db", replicas=0)
    await cluster.run()
    assert len(cluster.all(CLAIMS)) == 2
    policy = {"whenDeleted": "Delete", "whenScaled": "Retain"}
    cluster.change(STATEFUL, "db", replicas=2, persistentVolumeClaimRetentionPolicy=policy)
    await cluster.run()
    cluster.delete(STATEFUL, "db", propagation="Background")
    await cluster.run()
    assert cluster.all(CLAIMS) == []


def daemons(**spec: Any) -> Json:
    """DaemonSet `agent`."""
    return workload("DaemonSet", "agent", **spec)


def nodes_of(cluster: Cluster) -> list[str]:
    """Nodes of living pods."""
    return sorted(pinned(pod["spec"]) for pod in cluster.living)


async def check_daemons_run_on_every_suitable_node(candidate: Replication) -> None:
    """Selectors and taints are kept; nodes that come later get theirs."""
    taint = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
    cordoned = node("d")
    cordoned["spec"] = {
        "unschedulable": True,
        "taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}],
    }
    template = pod_template()
    template["spec"]["nodeSelector"] = {"os": "linux"}
    cluster = Cluster(candidate, daemons(template=template))
    linux = {"labels": {"os": "linux"}}
    for one in (node("a", **linux), node("b"), node("c", taints=[taint], **linux), cordoned):
        one["metadata"]["labels"] |= {"os": "linux"} if one is cordoned else {}
        cluster.add(one)
    await cluster.run()
    assert nodes_of(cluster) == ["a", "d"], "a cordoned node keeps its daemons"
    status = cluster.get(DAEMONS, "agent")["status"]
    assert (status["desiredNumberScheduled"], status["numberReady"]) == (2, 2)
    cluster.add(node("e", **linux))
    await cluster.run()
    assert nodes_of(cluster) == ["a", "d", "e"]
    cluster.get("v1/nodes", "a", "")["metadata"]["labels"] = {}
    await cluster.run()
    assert nodes_of(cluster) == ["d", "e"]


async def check_daemons_leave_nodes_that_drive_them_out(candidate: Replication) -> None:
    """A new NoSchedule taint lets a daemon stay; NoExecute ends it; silence of the node does not."""
    cluster = Cluster(candidate, daemons(), node("a"), node("b"), node("c"))
    await cluster.run()
    for name, effect in (("a", "NoSchedule"), ("b", "NoExecute")):
        taint = {"key": "x", "value": "y", "effect": effect}
        cluster.change("v1/nodes", name, "", taints=[taint])
    silent = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}
    cluster.change("v1/nodes", "c", "", taints=[silent])
    await cluster.step()
    await cluster.run()
    assert nodes_of(cluster) == ["a", "c"]


async def check_daemons_roll_one_by_one(candidate: Replication) -> None:
    """Not more than maxUnavailable are missing at a time."""
    cluster = Cluster(candidate, daemons(), *(node(name) for name in "abc"))
    await cluster.run()
    cluster.change(DAEMONS, "agent", template=pod_template(image="two"))
    for _ in range(40):
        changed = await cluster.step()
        serving = [p for p in cluster.living if p["status"]["phase"] == "Running"]
        assert len(serving) >= 2
        if not changed and not cluster.nurse():
            break
    assert images(cluster) == ["two"] * 3
    assert cluster.get(DAEMONS, "agent")["status"]["updatedNumberScheduled"] == 3
    strategy = {"type": "OnDelete"}
    cluster.change(DAEMONS, "agent", updateStrategy=strategy, template=pod_template(image="three"))
    await cluster.run()
    assert images(cluster) == ["two"] * 3
