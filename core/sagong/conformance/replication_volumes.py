"""Checks of controllers: claims, volumes, and what is made for them."""

from __future__ import annotations

from typing import Any

from sagong.conformance.replication_lab import Cluster, Json
from sagong.contracts.replication import Replication

__all__ = [
    "check_claim_gets_the_smallest_that_suits",
    "check_claim_in_use_is_held",
    "check_claim_waits_for_its_first_pod",
    "check_claims_of_others_are_left_to_their_provisioner",
    "check_ephemeral_volumes_have_claims_of_their_pod",
    "check_lost_volume_is_told",
    "check_released_volume_is_kept_or_goes",
]

CLAIMS = "v1/persistentvolumeclaims"
VOLUMES = "v1/persistentvolumes"


def volume(name: str, size: str, **spec: Any) -> Json:
    """A volume that somebody made."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "finalizers": ["kubernetes.io/pv-protection"]},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            **spec,
        },
        "status": {},
    }


def claim(name: str = "data", size: str = "1Gi", **spec: Any) -> Json:
    """A claim."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name,
            "namespace": "default",
            "finalizers": ["kubernetes.io/pvc-protection"],
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}},
            **spec,
        },
        "status": {"phase": "Pending"},
    }


def storage_class(name: str, provisioner: str, mode: str) -> Json:
    """A class."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": provisioner,
        "volumeBindingMode": mode,
        "reclaimPolicy": "Delete",
    }


def phases(cluster: Cluster) -> tuple[str, dict[str, str]]:
    """The claim's phase, and those of volumes."""
    found = {v["metadata"]["name"]: v["status"].get("phase", "") for v in cluster.all(VOLUMES, "")}
    return cluster.get(CLAIMS, "data")["status"].get("phase", ""), found


async def check_claim_gets_the_smallest_that_suits(candidate: Replication) -> None:
    """Large enough, of the same class, mode and access; both name each other."""
    cluster = Cluster(
        candidate,
        volume("small", "500Mi"),
        volume("other", "1Gi", storageClassName="fast"),
        volume("good", "2Gi"),
        volume("large", "5Gi"),
        claim(),
    )
    await cluster.settle()
    free = {"small": "Available", "other": "Available", "large": "Available"}
    assert phases(cluster) == ("Bound", {**free, "good": "Bound"})
    found = cluster.get(CLAIMS, "data")
    assert found["spec"]["volumeName"] == "good"
    assert found["status"]["capacity"] == {"storage": "2Gi"}
    holder = cluster.get(VOLUMES, "good", "")["spec"]["claimRef"]
    assert (holder["name"], holder["uid"]) == ("data", found["metadata"]["uid"])
    cluster.add(claim("second"))
    await cluster.settle()
    assert cluster.get(CLAIMS, "second")["spec"]["volumeName"] == "large"


async def check_claim_waits_for_its_first_pod(candidate: Replication) -> None:
    """WaitForFirstConsumer: nothing before a node is chosen; then a volume of that node."""
    local = storage_class("local", "local.sagong.io", "WaitForFirstConsumer")
    cluster = Cluster(candidate, local, claim(storageClassName="local"))
    await cluster.settle()
    assert phases(cluster) == ("Pending", {})
    found = cluster.get(CLAIMS, "data")
    key = "volume.kubernetes.io/selected-node"
    found["metadata"]["annotations"] = {key: "node-1"}
    await cluster.settle()
    (made,) = cluster.all(VOLUMES, "")
    assert phases(cluster)[0] == "Bound" and made["status"]["phase"] == "Bound"
    assert made["spec"]["csi"]["driver"] == "local.sagong.io"
    (term,) = made["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    assert term["matchExpressions"][0]["values"] == ["node-1"]
    cluster.delete(CLAIMS, "data")
    await cluster.settle()
    assert cluster.find(CLAIMS, "data") is None
    assert cluster.all(VOLUMES, "") == [], "what was made for a claim goes with it"


async def check_claims_of_others_are_left_to_their_provisioner(candidate: Replication) -> None:
    """It is told by an annotation, and makes the volume itself."""
    foreign = storage_class("ebs", "ebs.csi.example.com", "Immediate")
    cluster = Cluster(candidate, foreign, claim(storageClassName="ebs"))
    await cluster.settle()
    annotations = cluster.get(CLAIMS, "data")["metadata"]["annotations"]
    assert annotations["volume.kubernetes.io/storage-provisioner"] == "ebs.csi.example.com"
    assert phases(cluster) == ("Pending", {})
    holder = {"name": "data", "namespace": "default"}
    cluster.add(volume("made", "1Gi", storageClassName="ebs", claimRef=holder))
    await cluster.settle()
    assert phases(cluster) == ("Bound", {"made": "Bound"})


async def check_claim_in_use_is_held(candidate: Replication) -> None:
    """A deleted claim goes when the last pod that uses it has ended."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {
            "containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}],
        },
        "status": {"phase": "Running"},
    }
    cluster = Cluster(candidate, volume("v", "1Gi"), claim(), pod)
    await cluster.settle()
    cluster.delete(CLAIMS, "data")
    await cluster.settle()
    assert cluster.find(CLAIMS, "data") is not None
    cluster.finish(cluster.get("v1/pods", "p"))
    await cluster.settle()
    assert cluster.find(CLAIMS, "data") is None


async def check_released_volume_is_kept_or_goes(candidate: Replication) -> None:
    """Retain keeps it, unavailable to others; a bound volume that is deleted waits."""
    cluster = Cluster(candidate, volume("v", "1Gi"), claim())
    await cluster.settle()
    cluster.delete(VOLUMES, "v", "")
    await cluster.settle()
    assert cluster.find(VOLUMES, "v", "") is not None, "it is bound"
    cluster = Cluster(candidate, volume("v", "1Gi"), claim())
    await cluster.settle()
    cluster.delete(CLAIMS, "data")
    await cluster.settle()
    assert cluster.get(VOLUMES, "v", "")["status"]["phase"] == "Released"
    cluster.add(claim())
    await cluster.settle()
    assert phases(cluster) == ("Pending", {"v": "Released"})
    cluster.delete(VOLUMES, "v", "")
    await cluster.settle()
    assert cluster.find(VOLUMES, "v", "") is None


async def check_lost_volume_is_told(candidate: Replication) -> None:
    """A bound claim whose volume vanished is Lost."""
    cluster = Cluster(candidate, volume("v", "1Gi"), claim())
    await cluster.settle()
    del cluster.objects[VOLUMES, "", "v"]
    await cluster.settle()
    assert phases(cluster) == ("Lost", {})


async def check_ephemeral_volumes_have_claims_of_their_pod(candidate: Replication) -> None:
    """Made from the template, owned by the pod, gone with it."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    template = {"metadata": {"labels": {"a": "b"}}, "spec": spec}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {
            "containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "tmp", "ephemeral": {"volumeClaimTemplate": template}}],
        },
        "status": {"phase": "Pending"},
    }
    cluster = Cluster(candidate, pod)
    await cluster.settle()
    (made,) = cluster.all(CLAIMS)
    assert made["metadata"]["name"] == "p-tmp" and made["metadata"]["labels"] == {"a": "b"}
    assert made["spec"] == spec
    cluster.delete("v1/pods", "p")
    await cluster.run()
    assert cluster.all(CLAIMS) == []
