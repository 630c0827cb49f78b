"""Checks of controllers: nodes that fail, budgets, quotas, mirrored endpoints."""

from __future__ import annotations

from typing import Any

from sagong.conformance.replication_lab import NOW, Cluster, Json, node, replica_set
from sagong.contracts.replication import Replication
from sagong.model.times import micro_time

__all__ = [
    "check_budget_tells_what_may_go",
    "check_by_hand_endpoints_are_mirrored",
    "check_lost_node_loses_its_pods",
    "check_nobody_is_evicted_when_all_nodes_are_silent",
    "check_quota_counts_what_is_used",
    "check_removed_node_takes_its_pods_along",
    "check_silent_node_is_tainted",
    "check_toleration_seconds_are_waited_for",
]

NODES = "v1/nodes"
UNREACHABLE = "node.kubernetes.io/unreachable"


def lease(name: str, when: float) -> Json:
    """A node's sign of life."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": "kube-node-lease"},
        "spec": {"holderIdentity": name, "renewTime": micro_time(when)},
    }


def taints(cluster: Cluster, name: str) -> set[tuple[str, str]]:
    """Keys and effects of a node's taints."""
    return {(t["key"], t["effect"]) for t in cluster.get(NODES, name, "")["spec"].get("taints", [])}


async def two_nodes(candidate: Replication, **spec: Any) -> Cluster:
    """A set of pods on node-1, and node-2, which stays alive."""
    wanted = replica_set("web", 2)
    wanted["spec"]["template"]["spec"] |= spec
    cluster = Cluster(candidate, node("node-1"), node("node-2"), wanted)
    cluster.add(lease("node-1", NOW))
    cluster.add(lease("node-2", NOW + 10_000))
    await cluster.run()
    return cluster


async def check_silent_node_is_tainted(candidate: Replication) -> None:
    """After forty seconds its conditions are unknown; when it speaks again the taints go."""
    cluster = await two_nodes(candidate)
    assert taints(cluster, "node-1") == set()
    await cluster.step()
    assert 0 < cluster.again <= 40
    cluster.now += 41
    await cluster.settle()
    (ready, *_) = cluster.get(NODES, "node-1", "")["status"]["conditions"]
    assert (ready["status"], ready["reason"]) == ("Unknown", "NodeStatusUnknown")
    assert taints(cluster, "node-1") == {(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")}
    assert taints(cluster, "node-2") == set()
    found = cluster.get(NODES, "node-1", "")
    found["status"]["conditions"] = node("node-1")["status"]["conditions"]
    cluster.change(
        "coordination.k8s.io/v1/leases",
        "node-1",
        "kube-node-lease",
        renewTime=micro_time(cluster.now),
    )
    await cluster.settle()
    assert taints(cluster, "node-1") == set()


async def check_lost_node_loses_its_pods(candidate: Replication) -> None:
    """Its pods are marked unready at once, and replaced when they may no longer stay."""
    cluster = await two_nodes(candidate)
    old = {pod["metadata"]["uid"] for pod in cluster.pods}
    cluster.now += 41
    await cluster.settle()
    assert not old & {pod["metadata"]["uid"] for pod in cluster.living}
    assert len(cluster.living) == 2


async def check_toleration_seconds_are_waited_for(candidate: Replication) -> None:
    """tolerationSeconds keep a pod for so long."""
    toleration = {"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute"}
    cluster = await two_nodes(candidate, tolerations=[{**toleration, "tolerationSeconds": 300}])
    old = {pod["metadata"]["uid"] for pod in cluster.pods}
    cluster.now += 41
    await cluster.settle()
    assert old == {pod["metadata"]["uid"] for pod in cluster.living}
    for pod in cluster.living:
        assert pod["status"]["conditions"][0]["status"] == "False", "they serve nobody"
    await cluster.step()
    assert 0 < cluster.again <= 300
    cluster.now += 301
    await cluster.settle()
    assert not old & {pod["metadata"]["uid"] for pod in cluster.living}


async def check_nobody_is_evicted_when_all_nodes_are_silent(candidate: Replication) -> None:
    """Then it is not the nodes that are broken."""
    cluster = Cluster(candidate, node("node-1"), replica_set("web", 2), lease("node-1", NOW))
    await cluster.run()
    cluster.now += 1000
    await cluster.settle()
    assert taints(cluster, "node-1") == {(UNREACHABLE, "NoSchedule")}
    assert len(cluster.living) == 2


async def check_removed_node_takes_its_pods_along(candidate: Replication) -> None:
    """Pods of a node that does not exist end without its help."""
    cluster = await two_nodes(candidate)
    old = {pod["metadata"]["uid"] for pod in cluster.pods}
    cluster.delete(NODES, "node-1", "")
    await cluster.settle()
    assert not old & {pod["metadata"]["uid"] for pod in cluster.pods}


async def check_budget_tells_what_may_go(candidate: Replication) -> None:
    """Healthy pods beyond what must stay."""
    cases: list[tuple[Json, int, int]] = [
        ({"minAvailable": 2}, 2, 2),
        ({"minAvailable": "50%"}, 2, 2),
        ({"maxUnavailable": 1}, 3, 1),
        ({"maxUnavailable": "30%"}, 2, 2),
    ]
    for said, desired, allowed in cases:
        budget = {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "pdb", "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, **said},
        }
        cluster = Cluster(candidate, budget, replica_set("web", 4))
        await cluster.run()
        status = cluster.get("policy/v1/poddisruptionbudgets", "pdb")["status"]
        found = (status["currentHealthy"], status["desiredHealthy"], status["disruptionsAllowed"])
        assert found == (4, desired, allowed), said
        assert status["expectedPods"] == 4
        cluster.set_ready(cluster.pods[0], False)
        await cluster.settle()
        status = cluster.get("policy/v1/poddisruptionbudgets", "pdb")["status"]
        assert status["disruptionsAllowed"] == allowed - 1


async def check_quota_counts_what_is_used(candidate: Replication) -> None:
    """Pods that have not ended, their requests, and numbers of objects."""
    hard = {
        "pods": "10",
        "requests.cpu": "4",
        "limits.memory": "1Gi",
        "count/replicasets.apps": "5",
    }
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "q", "namespace": "default"},
        "spec": {"hard": hard},
    }
    wanted = replica_set("web", 3)
    wanted["spec"]["template"]["spec"]["containers"][0]["resources"] = {
        "requests": {"cpu": "250m"},
        "limits": {"memory": "64Mi"},
    }
    cluster = Cluster(candidate, quota, wanted)
    await cluster.run()
    status = cluster.get("v1/resourcequotas", "q")["status"]
    assert status["hard"] == hard
    assert status["used"] == {
        "pods": "3",
        "requests.cpu": "750m",
        "limits.memory": "192Mi",
        "count/replicasets.apps": "1",
    }


async def check_by_hand_endpoints_are_mirrored(candidate: Replication) -> None:
    """Endpoints of a service without selector have slices, which follow and go with them."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "ext", "namespace": "default"},
        "spec": {"ports": [{"port": 80}], "clusterIP": "10.96.0.9", "ipFamilies": ["IPv4"]},
    }
    endpoints = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "ext", "namespace": "default"},
        "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 8080}]}],
    }
    cluster = Cluster(candidate, service, endpoints)
    await cluster.settle()
    (one,) = cluster.all("discovery.k8s.io/v1/endpointslices")
    assert one["endpoints"][0]["addresses"] == ["192.0.2.1"]
    labels = one["metadata"]["labels"]
    manager = labels["endpointslice.kubernetes.io/managed-by"]
    assert manager == "endpointslicemirroring-controller.k8s.io"
    assert labels["kubernetes.io/service-name"] == "ext"
    cluster.get("v1/endpoints", "ext")["subsets"][0]["addresses"] = [{"ip": "192.0.2.2"}]
    await cluster.settle()
    (one,) = cluster.all("discovery.k8s.io/v1/endpointslices")
    assert one["endpoints"][0]["addresses"] == ["192.0.2.2"]
    cluster.delete("v1/endpoints", "ext")
    await cluster.settle()
    assert cluster.all("discovery.k8s.io/v1/endpointslices") == []
