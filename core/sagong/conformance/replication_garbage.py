"""Checks of controllers: garbage collection, namespaces and what every namespace has."""

from __future__ import annotations

from typing import Any

from sagong.conformance.replication_lab import Cluster, Json, replica_set, workload
from sagong.contracts.replication import Replication

__all__ = [
    "check_background_deletion_ends_dependents",
    "check_every_namespace_has_its_basics",
    "check_foreground_deletion_waits_for_dependents",
    "check_live_owner_keeps_its_dependents",
    "check_lost_owner_is_taken_away",
    "check_namesake_is_no_owner",
    "check_namespace_ends_after_its_contents",
    "check_namespace_waits_for_finalizers",
    "check_orphans_stay",
]

SETS = "apps/v1/replicasets"
MAPS = "v1/configmaps"
DEPLOYMENTS = "apps/v1/deployments"


def config_map(name: str, *owners: Json, **meta: Any) -> Json:
    """A ConfigMap that `owners` own."""
    references = [
        {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            "blockOwnerDeletion": True,
        }
        for owner in owners
    ]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": "default",
            "ownerReferences": references,
            **meta,
        },
    }


def namespace(name: str) -> Json:
    """A namespace as the API makes it."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name},
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    }


async def check_background_deletion_ends_dependents(candidate: Replication) -> None:
    """Owners go at once; what they own follows, and what that owns."""
    cluster = Cluster(candidate, workload("Deployment", "web", replicas=2))
    await cluster.run()
    cluster.delete(DEPLOYMENTS, "web", propagation="Background")
    assert cluster.find(DEPLOYMENTS, "web") is None
    await cluster.run()
    assert cluster.all(SETS) == [] and cluster.pods == []


async def check_foreground_deletion_waits_for_dependents(candidate: Replication) -> None:
    """The owner goes last."""
    cluster = Cluster(candidate, workload("Deployment", "web", replicas=2))
    await cluster.run()
    cluster.delete(DEPLOYMENTS, "web", propagation="Foreground")
    await cluster.settle()
    assert cluster.find(DEPLOYMENTS, "web") is not None, "its pods have not ended yet"
    assert cluster.all(SETS) and cluster.pods
    assert cluster.living == []
    await cluster.run()
    assert not (cluster.find(DEPLOYMENTS, "web") or cluster.all(SETS) or cluster.pods)


async def check_orphans_stay(candidate: Replication) -> None:
    """Dependents lose their owner and live on."""
    cluster = Cluster(candidate, replica_set("web", 2))
    await cluster.run()
    cluster.delete(SETS, "web", propagation="Orphan")
    await cluster.run()
    assert cluster.find(SETS, "web") is None
    assert len(cluster.living) == 2
    assert not any(p["metadata"].get("ownerReferences") for p in cluster.pods)


async def check_live_owner_keeps_its_dependents(candidate: Replication) -> None:
    """Nothing that has a living owner goes."""
    cluster = Cluster(candidate)
    owner = cluster.add(config_map("owner"))
    cluster.add(config_map("owned", owner))
    await cluster.settle()
    assert len(cluster.all(MAPS)) == 2 and cluster.writes == []


async def check_lost_owner_is_taken_away(candidate: Replication) -> None:
    """With several owners, only the lost one is removed from the list; the last takes it along."""
    cluster = Cluster(candidate)
    one, two = cluster.add(config_map("one")), cluster.add(config_map("two"))
    cluster.add(config_map("owned", one, two))
    cluster.delete(MAPS, "one")
    await cluster.settle()
    (left,) = cluster.get(MAPS, "owned")["metadata"]["ownerReferences"]
    assert left["name"] == "two"
    cluster.delete(MAPS, "two")
    await cluster.settle()
    assert cluster.find(MAPS, "owned") is None


async def check_namesake_is_no_owner(candidate: Replication) -> None:
    """A new object with the owner's name has another uid."""
    cluster = Cluster(candidate)
    old = cluster.add(config_map("owner"))
    cluster.add(config_map("owned", old))
    cluster.delete(MAPS, "owner")
    cluster.add(config_map("owner", uid="another"))
    await cluster.settle()
    assert cluster.find(MAPS, "owned") is None


async def check_namespace_ends_after_its_contents(candidate: Replication) -> None:
    """All goes, pods with their grace; then the namespace, and nothing outside it."""
    inside = config_map("inside", namespace="team")
    inside["metadata"]["namespace"] = "team"
    cluster = Cluster(candidate, namespace("team"), namespace("default"), inside)
    cluster.add(config_map("outside"))
    wanted = replica_set("web", 2)
    wanted["metadata"]["namespace"] = "team"
    cluster.add(wanted)
    await cluster.run()
    assert len(cluster.living) == 2
    cluster.delete("v1/namespaces", "team", "")
    await cluster.settle()
    assert cluster.find("v1/namespaces", "team", "") is not None, "pods are still ending"
    assert cluster.find(MAPS, "inside", "team") is None
    await cluster.run()
    assert cluster.find("v1/namespaces", "team", "") is None
    assert [name for name in cluster.objects if name[1] == "team"] == []
    assert cluster.find(MAPS, "outside") is not None


async def check_namespace_waits_for_finalizers(candidate: Replication) -> None:
    """An object that somebody holds holds the namespace, and that is told."""
    held = config_map("held", finalizers=["example.com/hold"])
    held["metadata"]["namespace"] = "team"
    cluster = Cluster(candidate, namespace("team"), held)
    cluster.delete("v1/namespaces", "team", "")
    await cluster.run()
    space = cluster.get("v1/namespaces", "team", "")
    told = {c["type"]: c["message"] for c in space["status"].get("conditions", [])}
    assert "example.com/hold" in told["NamespaceFinalizersRemaining"]
    patched = cluster.get(MAPS, "held", "team")
    patched["metadata"]["finalizers"] = []
    del cluster.objects[MAPS, "team", "held"]
    await cluster.run()
    assert cluster.find("v1/namespaces", "team", "") is None


async def check_every_namespace_has_its_basics(candidate: Replication) -> None:
    """The service account `default` and the cluster's root certificate, renewed with its source."""
    source = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kube-root-ca.crt", "namespace": "kube-system"},
        "data": {"ca.crt": "first"},
    }
    cluster = Cluster(candidate, namespace("kube-system"), namespace("team"), source)
    await cluster.settle()
    for name in ("kube-system", "team"):
        assert cluster.find("v1/serviceaccounts", "default", name)
        assert cluster.get(MAPS, "kube-root-ca.crt", name)["data"] == {"ca.crt": "first"}
    cluster.get(MAPS, "kube-root-ca.crt", "kube-system")["data"] = {"ca.crt": "second"}
    cluster.delete("v1/serviceaccounts", "default", "team")
    await cluster.settle()
    assert cluster.get(MAPS, "kube-root-ca.crt", "team")["data"] == {"ca.crt": "second"}
    assert cluster.find("v1/serviceaccounts", "default", "team")
