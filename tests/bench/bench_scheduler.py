"""Pods per second that scheduler_kube decides at 5000 nodes, by kind of pod.

`tests/bench/run scheduler [--nodes N] [--pods N]`

Decoding the pods' JSON is part of the figure; floors are upstream's own at 5000 nodes.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from typing import Any

from tests.bench.figures import Budget, Figure, report

from sagong.scheduling.decision import Foremost, take
from sagong.scheduling.documents import NodeDocument, PodDocument, read
from sagong.scheduling.snapshot import Snapshot
from sagong_scheduler_binpack import fullness
from sagong_scheduler_kube.decider import KubeDecider

ZONES = 3
PRESENT = 1000
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def node(number: int) -> bytes:
    """A node as kubelets report it."""
    name = f"node-{number}"
    allocatable = {"cpu": "4", "memory": "32Gi", "pods": "110", "ephemeral-storage": "100Gi"}
    labels = {
        "kubernetes.io/hostname": name,
        "topology.kubernetes.io/zone": f"zone-{number % ZONES}",
        "disk": "ssd" if number % 2 else "hdd",
    }
    status = {"allocatable": allocatable, "capacity": allocatable}
    return json.dumps({"metadata": {"name": name, "labels": labels}, "status": status}).encode()


def pod(number: int, spec: dict[str, Any], group: str) -> bytes:
    """A pod of a ReplicaSet as the API server stores it."""
    requests = {"cpu": "100m", "memory": "500Mi"}
    container = {
        "name": "pause",
        "image": "registry.k8s.io/pause:3.10",
        "resources": {"requests": requests, "limits": requests},
        "env": [{"name": f"VARIABLE_{n}", "value": "x" * 40} for n in range(20)],
    }
    owner = {"kind": "ReplicaSet", "name": group, "uid": f"uid-{group}", "controller": True}
    meta = {
        "name": f"{group}-{number}",
        "namespace": "default",
        "uid": f"{group}-{number}",
        "labels": {"app": group},
        "ownerReferences": [owner],
        "creationTimestamp": "2025-01-01T00:00:00Z",
        "resourceVersion": str(number),
    }
    body = {"metadata": meta, "spec": {"containers": [container], **spec}, "status": {}}
    return json.dumps(body).encode()


def affinity(kind: str, when: str, key: str, group: str) -> dict[str, Any]:
    """Wishes about pods of the own group."""
    term = {"topologyKey": key, "labelSelector": {"matchLabels": {"app": group}}}
    terms = [term] if when == REQUIRED else [{"weight": 10, "podAffinityTerm": term}]
    return {"affinity": {kind: {when: terms}}}


def cases() -> dict[str, tuple[int, dict[str, Any]]]:
    """Upstream's floor and the spec, by kind of pod."""
    zone, host = "topology.kubernetes.io/zone", "kubernetes.io/hostname"
    requirement = {"key": "disk", "operator": "In", "values": ["ssd"]}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [requirement]}]}
    constraint = {
        "maxSkew": 5,
        "topologyKey": zone,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "spread"}},
    }
    return {
        "basic": (270, {}),
        "node affinity": (220, {"affinity": {"nodeAffinity": {REQUIRED: terms}}}),
        "spread": (85, {"topologySpreadConstraints": [constraint]}),
        "pod affinity": (35, affinity("podAffinity", REQUIRED, zone, "pod affinity")),
        "anti-affinity": (60, affinity("podAntiAffinity", REQUIRED, host, "anti-affinity")),
        "liked pods": (90, affinity("podAffinity", PREFERRED, zone, "liked pods")),
    }


def measured(decider: Any, nodes: int, pods: list[bytes]) -> float:
    """Pods a second, all placed."""
    snapshot = Snapshot()
    for number in range(nodes):
        snapshot.set_node(read(node(number), NodeDocument, "node"))
    for number in range(PRESENT):
        present = snapshot.pod(read(pod(number, {}, "present"), PodDocument, "pod"))
        present.node = f"node-{number % nodes}"
        snapshot.add(present)
    gc.collect()
    began = time.perf_counter()
    for body in pods:
        wanted = snapshot.pod(read(body, PodDocument, "pod"))
        decision = decider.decide(snapshot, wanted)
        assert decision.node, decision.why
        take(snapshot, wanted, decision)
    return len(pods) / (time.perf_counter() - began)


def main() -> None:
    """A row for each kind of pod."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--pods", type=int, default=500)
    options = parser.parse_args()
    nodes, count = options.nodes, options.pods
    budget = Budget(limit=1000, least=True)
    peer = "kube-scheduler's floor by its authors"
    rows = []
    for name, (floor, spec) in cases().items():
        pods = [pod(number, spec, name) for number in range(count)]
        found = [measured(KubeDecider(), nodes, pods)]
        rows.append(
            Figure(
                what=f"scheduler_kube at {nodes} nodes, {name}",
                unit="/s",
                ours=found,
                theirs=[floor],
                peer=peer,
                budget=budget,
            )
        )
    pods = [pod(number, {}, "basic") for number in range(count)]
    unlike = [
        pod(n, {"nodeSelector": {"disk": "ssd"}, "overhead": {"cpu": f"{n}u"}}, f"g{n}")
        for n in range(count)
    ]
    for what, decider, kinds in (
        ("the same, 10 % of nodes scored", KubeDecider(percentage=10), pods),
        ("each pod of another shape", KubeDecider(), unlike),
        ("scheduler_binpack, basic", Foremost(fullness), pods),
    ):
        rows.append(Figure(what=what, unit="/s", ours=[measured(decider, nodes, kinds)]))
    report("scheduler", rows)


if __name__ == "__main__":
    main()
