"""Scores: which of the nodes that can take a pod is best; kube-scheduler's plugins and weights.

Source: https://kubernetes.io/docs/reference/scheduling/config/#scheduling-plugins
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from sagong.scheduling.node import Node
from sagong.scheduling.shape import Pod, Shape
from sagong.scheduling.snapshot import Snapshot, Standing

__all__ = ["WEIGHTS", "best"]

WEIGHTS: Final = {
    "NodeResourcesFit": 1,
    "NodeResourcesBalancedAllocation": 1,
    "ImageLocality": 1,
    "TaintToleration": 3,
    "NodeAffinity": 2,
    "PodTopologySpread": 2,
    "InterPodAffinity": 2,
}
_MIB: Final = 1 << 20
_SMALL_IMAGE: Final = 23 * _MIB
_LARGE_IMAGE: Final = 1000 * _MIB
_HOST_SKEW, _ZONE_SKEW = 3, 5
_HOSTNAME: Final = "kubernetes.io/hostname"

Scores = list[float]
Score = Callable[[Snapshot, Shape, Sequence[Node]], Scores | None]


def best(snapshot: Snapshot, pod: Pod, nodes: Sequence[Node], standing: Standing) -> Node:
    """The node with the highest weighted sum; the first of equals."""
    if len(nodes) == 1:
        return nodes[0]
    shape = pod.shape
    totals = _resources(shape, nodes)
    for name, score in _OTHERS:
        found = score(snapshot, shape, nodes)
        if found is not None:
            weight = WEIGHTS[name]
            totals = [total + weight * one for total, one in zip(totals, found)]
    for disliked, liked in [_soft(standing, nodes)] if standing.soft else []:
        totals = [t + d + a for t, d, a in zip(totals, disliked, liked)]
    return nodes[totals.index(max(totals))]


def _resources(shape: Shape, nodes: Sequence[Node]) -> Scores:
    """LeastAllocated and BalancedAllocation over cpu and memory, in one pass."""
    wants = shape.demand
    cpu, memory = wants.cpu, wants.memory
    likely_cpu, likely_memory = wants.likely_cpu, wants.likely_memory
    besteffort = not (cpu or memory)
    totals = []
    for node in nodes:
        cpus, bytes_ = node.cpu, node.memory
        if not (cpus and bytes_):
            totals.append(0.0)
            continue
        left = cpus - node.cpu_likely - likely_cpu
        least = left * 100 // cpus if left > 0 else 0
        left = bytes_ - node.memory_likely - likely_memory
        if left > 0:
            least += left * 100 // bytes_
        if besteffort:
            totals.append(float(least // 2))
            continue
        apart = (cpus - node.cpu_free + cpu) / cpus - (bytes_ - node.memory_free + memory) / bytes_
        totals.append(least // 2 + int((1.0 - min(abs(apart), 1.0) / 2) * 100))
    return totals


def _images(snapshot: Snapshot, shape: Shape, nodes: Sequence[Node]) -> Scores | None:
    """Nodes that have large images of the pod; an image that few nodes have draws less."""
    known = [
        (name, image.size * image.nodes / max(len(snapshot.nodes), 1))
        for name in map(_tagged, shape.demand.images)
        if (image := snapshot.images.get(name)) is not None
    ]
    most = _LARGE_IMAGE * len(shape.demand.images)
    if sum(size for _, size in known) <= _SMALL_IMAGE:
        return None
    scores = []
    for node in nodes:
        size = sum(size for name, size in known if name in node.images)
        size = min(max(size, _SMALL_IMAGE), most)
        scores.append(100 * (size - _SMALL_IMAGE) // (most - _SMALL_IMAGE))
    return scores


def _tagged(name: str) -> str:
    return name if ":" in name.rpartition("/")[2] or "@" in name else f"{name}:latest"


def _spread(snapshot: Snapshot, shape: Shape, nodes: Sequence[Node]) -> Scores | None:
    """Few pods of the same kind in the same place."""
    if shape.soft_spread:
        return _wished_spread(snapshot, shape, nodes)
    if shape.owner and not shape.hard_spread:
        return _usual_spread(snapshot, shape, nodes)
    return None


def _usual_spread(snapshot: Snapshot, shape: Shape, nodes: Sequence[Node]) -> Scores | None:
    """What a controller's pods get without asking: apart by host, and by zone where there are any."""
    trend = snapshot.trends.get(shape.owner)
    if trend is None:
        return None
    by_node, by_zone = trend.nodes, trend.zones
    host = math.log(len(nodes) + 2)
    zones = {node.zone for node in nodes if node.zone}
    if not zones:
        raw = [by_node.get(node.name, 0) * host + _HOST_SKEW - 1 for node in nodes]
        return _inverted(raw)
    zone = math.log(len(zones) + 2)
    fixed = _HOST_SKEW + _ZONE_SKEW - 2
    raw = [
        by_node.get(node.name, 0) * host + by_zone.get(node.zone, 0) * zone + fixed
        for node in nodes
    ]
    return _inverted(raw)


def _wished_spread(snapshot: Snapshot, shape: Shape, nodes: Sequence[Node]) -> Scores | None:
    keys = tuple(sorted({spread.topology_key for spread in shape.soft_spread}))
    counted = [all(key in node.labels for key in keys) for node in nodes]
    raw = [0.0] * len(nodes)
    for spread in shape.soft_spread:
        key = spread.topology_key
        tally = snapshot.spread_tally(shape.namespace, spread, shape.stance, keys)
        places = {node.labels[key] for node, counts in zip(nodes, counted) if counts}
        size = len(nodes) if key == _HOSTNAME else len(places)
        factor = math.log(size + 2)
        for at, node in enumerate(nodes):
            if counted[at]:
                raw[at] += tally.count(node) * factor + spread.max_skew - 1
    return _inverted(raw, counted)


def _inverted(raw: Scores, counted: Sequence[bool] | None = None) -> Scores:
    """Low counts as high scores; nodes outside all places have none."""
    raw = [float(math.floor(value + 0.5)) for value in raw]
    known = raw if counted is None else [v for v, counts in zip(raw, counted) if counts]
    if not known:
        return [0.0] * len(raw)
    low, high = min(known), max(known)
    scores = [100.0 if high == 0 else float(int(100 * (high + low - v) / high)) for v in raw]
    return scores if counted is None else [s if c else 0.0 for s, c in zip(scores, counted)]


def _neighbours(snapshot: Snapshot, shape: Shape, nodes: Sequence[Node]) -> Scores | None:
    """Pods that this one likes or avoids, and present pods that like or avoid this one."""
    wishes = [
        (term.topology_key, weight, snapshot.tally((term,), term.topology_key).values)
        for weight, term in shape.liked_pods
    ]
    wishes += [(key, 1, places) for key, places in snapshot.attracting.about(shape)]
    wishes = [wish for wish in wishes if wish[2]]
    if not wishes:
        return None
    raw = []
    for node in nodes:
        labels = node.labels
        raw.append(float(sum(w * places.get(labels.get(key, ""), 0) for key, w, places in wishes)))
    low, high = min(raw), max(raw)
    return None if low == high else [float(int(100 * (v - low) / (high - low))) for v in raw]


def _soft(standing: Standing, nodes: Sequence[Node]) -> tuple[Scores, Scores]:
    """TaintToleration and NodeAffinity, weighted: what the stance dislikes and likes of nodes."""
    pairs = [standing.soft[node.name] for node in nodes]
    worst = max(disliked for disliked, _ in pairs)
    most = max(liked for _, liked in pairs)
    taints, affinity = WEIGHTS["TaintToleration"], WEIGHTS["NodeAffinity"]
    return (
        [float(taints * (100 - 100 * d // worst)) if worst else 0.0 for d, _ in pairs],
        [float(affinity * (100 * liked // most)) if most else 0.0 for _, liked in pairs],
    )


_OTHERS: Final[tuple[tuple[str, Score], ...]] = (
    ("ImageLocality", _images),
    ("PodTopologySpread", _spread),
    ("InterPodAffinity", _neighbours),
)
