"""The Node object of this machine and its Lease: what they say. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sagong.model import quantity
from sagong.model.k8s.core_v1 import Node
from sagong.model.times import micro_time, time_text
from sagong_node.pods.machine import Facts, Load
from sagong_node.pods.settings import PodSettings

__all__ = [
    "KUBELET_VERSION",
    "allocatable",
    "capacity",
    "lease_document",
    "node_document",
    "node_labels",
    "node_status",
]

KUBELET_VERSION = "v1.32.0"
_LEAST_PIDS, _LEAST_INODES = 0.05, 0.05

# Condition's status, reason and message: without pressure, and with it.
_PRESSURES = {
    "memory": (
        ("False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("True", "KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
    ),
    "disk": (
        ("False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("True", "KubeletHasDiskPressure", "kubelet has disk pressure"),
    ),
    "pid": (
        ("False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("True", "KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
    ),
}

Document = dict[str, Any]


def capacity(facts: Facts, settings: PodSettings) -> Document:
    """All that the machine has."""
    return {
        "cpu": str(facts.cpus),
        "memory": f"{facts.memory // 1024}Ki",
        "ephemeral-storage": f"{facts.disk // 1024}Ki",
        "pods": str(settings.max_pods),
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
    }


def allocatable(facts: Facts, settings: PodSettings) -> Document:
    """What pods may have: all but what is reserved for the system and kept against pressure."""
    kept = quantity.value(settings.reserved_memory) + quantity.value(settings.eviction_memory)
    milli = facts.cpus * 1000 - quantity.milli(settings.reserved_cpu)
    disk = int(facts.disk * (1 - settings.eviction_disk))
    return capacity(facts, settings) | {
        "cpu": quantity.canonical(f"{max(milli, 0)}m"),
        "memory": f"{max(facts.memory - kept, 0) // 1024}Ki",
        "ephemeral-storage": str(disk),
    }


def node_labels(facts: Facts, settings: PodSettings) -> dict[str, str]:
    """Labels that are ours to set."""
    return {
        "kubernetes.io/hostname": facts.hostname,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": facts.architecture,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": facts.architecture,
        **settings.labels,
    }


def node_document(facts: Facts, settings: PodSettings, load: Load, now: float) -> Document:
    """The object as it is registered."""
    spec: Document = {"providerID": f"sagong://{settings.name}"}
    if settings.pod_cidr:
        spec |= {"podCIDR": settings.pod_cidr, "podCIDRs": [settings.pod_cidr]}
    if settings.taints:
        spec["taints"] = [dict(taint) for taint in settings.taints]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": settings.name, "labels": node_labels(facts, settings)},
        "spec": spec,
        "status": node_status(Node(), facts, settings, load, now),
    }


def node_status(
    known: Node, facts: Facts, settings: PodSettings, load: Load, now: float
) -> Document:
    """The status; conditions of others are kept, ours keep their times while they don't change."""
    return {
        "capacity": capacity(facts, settings),
        "allocatable": allocatable(facts, settings),
        "conditions": _conditions(known, settings, load, now),
        "addresses": [
            {"type": "InternalIP", "address": facts.address},
            {"type": "Hostname", "address": facts.hostname},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
        "nodeInfo": {
            "machineID": facts.machine_id,
            "systemUUID": facts.machine_id,
            "bootID": facts.boot_id,
            "kernelVersion": facts.kernel,
            "osImage": facts.os_image,
            "containerRuntimeVersion": f"sagong://{facts.version}",
            "kubeletVersion": KUBELET_VERSION,
            "kubeProxyVersion": KUBELET_VERSION,
            "operatingSystem": "linux",
            "architecture": facts.architecture,
        },
    }


def _conditions(known: Node, settings: PodSettings, load: Load, now: float) -> list[Document]:
    memory = load.memory_available < quantity.value(settings.eviction_memory)
    disk = load.disk_free < settings.eviction_disk or load.inodes_free < _LEAST_INODES
    pids = load.pids_free < _LEAST_PIDS
    fresh = {
        "MemoryPressure": _PRESSURES["memory"][memory],
        "DiskPressure": _PRESSURES["disk"][disk],
        "PIDPressure": _PRESSURES["pid"][pids],
        "Ready": ("True", "KubeletReady", "kubelet is posting ready status"),
    }
    old = {condition.type: condition for condition in known.status.conditions}
    result = []
    for kind, (status, reason, message) in fresh.items():
        before = old.get(kind)
        same = before is not None and before.status == status
        since = before.last_transition_time if before is not None and same else None
        result.append(
            {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message,
                "lastHeartbeatTime": time_text(now),
                "lastTransitionTime": since or time_text(now),
            }
        )
    others = [
        {
            "type": c.type,
            "status": c.status,
            "reason": c.reason,
            "message": c.message,
            "lastHeartbeatTime": c.last_heartbeat_time,
            "lastTransitionTime": c.last_transition_time,
        }
        for kind, c in old.items()
        if kind not in fresh
    ]
    return others + result


def lease_document(
    name: str, uid: str, seconds: int, now: float, *, known: Mapping[str, Any] | None = None
) -> Document:
    """The node's lease, renewed; it goes with its Node object."""
    metadata: Document = {
        **(dict(known or {}).get("metadata") or {}),
        "name": name,
        "namespace": "kube-node-lease",
        "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}],
    }
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata,
        "spec": {
            "holderIdentity": name,
            "leaseDurationSeconds": seconds,
            "renewTime": micro_time(now),
        },
    }
