"""Node lifecycle: nodes that fall silent are marked, tainted, and lose their pods after a while.

Source: https://kubernetes.io/docs/concepts/architecture/nodes/#node-controller
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sagong.model.times import time_text
from sagong.scheduling.nodes import Taint, Toleration
from sagong_replication_kube.item import Document, Item, moment
from sagong_replication_kube.work import Work, condition, conditions_with

__all__ = ["GRACE_SECONDS", "LEASES", "LEASE_SPACE", "NODES", "forget_pods", "reconcile"]

NODES: Final = "v1/nodes"
LEASES: Final = "coordination.k8s.io/v1/leases"
LEASE_SPACE: Final = "kube-node-lease"
GRACE_SECONDS: Final = 40.0
# A node that is gone may come back under its name; its pods have so long.
QUARANTINE_SECONDS: Final = 40.0
_WATCHED: Final = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
_NOT_READY: Final = "node.kubernetes.io/not-ready"
_UNREACHABLE: Final = "node.kubernetes.io/unreachable"
_UNSCHEDULABLE: Final = "node.kubernetes.io/unschedulable"
_PRESSURES: Final = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}
_OURS: Final = {_NOT_READY, _UNREACHABLE, _UNSCHEDULABLE, *_PRESSURES.values()}


def reconcile(work: Work, item: Item) -> None:
    """Look at a node's signs of life, its taints and its pods."""
    if item.deleting:
        return
    document = item.document()
    if _silent(work, item, document):
        _mark_unknown(work, item, document)
    conditions = _conditions(document)
    taints = _taints(work, item, document, conditions)
    _set_taints(work, item, document, taints)
    if conditions.get("Ready", "True") != "True":
        _mark_pods(work, item)
    _evict(work, item, taints)
    work.writes += work.statuses  # what others wait for is no mere telling
    work.statuses = []


def _conditions(document: Document) -> dict[str, str]:
    found = (document.get("status") or {}).get("conditions") or ()
    return {c["type"]: c.get("status", "Unknown") for c in found}


def _silent(work: Work, item: Item, document: Document) -> bool:
    lease = work.world.get(LEASES, (LEASE_SPACE, item.meta.name))
    renewed = ""
    if lease is not None:
        renewed = (lease.document().get("spec") or {}).get("renewTime") or ""
    found = (document.get("status") or {}).get("conditions") or ()
    beats = [c.get("lastHeartbeatTime") or "" for c in found if c.get("type") == "Ready"]
    signs = [renewed, *beats]
    latest = max([moment(sign) for sign in signs if sign] or [item.created])
    since = work.world.seen_since("node", item.meta.name, "|".join(signs), latest)
    left = since + GRACE_SECONDS - work.now
    if left > 0:
        work.expect_sign(left)
    return bool(left <= 0)


def _mark_unknown(work: Work, item: Item, document: Document) -> None:
    """Nothing is known of a silent node."""
    present = list((document.get("status") or {}).get("conditions") or ())
    known = {c["type"]: c.get("status") for c in present}
    conditions = present
    for type_ in _WATCHED:
        if known.get(type_) == "Unknown":
            continue
        reason, said = "NodeStatusUnknown", "Kubelet stopped posting node status."
        if type_ not in known:
            reason, said = "NodeStatusNeverUpdated", "Kubelet never posted node status."
        found = condition(type_, "Unknown", reason, said)
        conditions = conditions_with(conditions, found, work.now)
    if conditions != present:
        status = {**(document.get("status") or {}), "conditions": conditions}
        work.status(item, status)
        said = f"Node {item.meta.name} status is now: NodeNotReady"
        work.event(item, "Normal", "NodeNotReady", said)
        document["status"] = status


def _taints(
    work: Work, item: Item, document: Document, conditions: dict[str, str]
) -> list[Document]:
    """The taints that the node shall have; those of others stay."""
    spec = document.get("spec") or {}
    present: list[Document] = list(spec.get("taints") or ())
    wanted: set[tuple[str, str]] = set()
    ready = conditions.get("Ready")
    if ready in ("False", "Unknown"):
        key = _NOT_READY if ready == "False" else _UNREACHABLE
        wanted.add((key, "NoSchedule"))
        if not _all_are_down(work):
            wanted.add((key, "NoExecute"))
    for type_, key in _PRESSURES.items():
        if conditions.get(type_) == "True":
            wanted.add((key, "NoSchedule"))
    if spec.get("unschedulable"):
        wanted.add((_UNSCHEDULABLE, "NoSchedule"))
    kept = [
        taint
        for taint in present
        if taint["key"] not in _OURS or (taint["key"], taint["effect"]) in wanted
    ]
    known = {(taint["key"], taint["effect"]) for taint in kept}
    for key, effect in sorted(wanted - known):
        taint: Document = {"key": key, "effect": effect}
        if effect == "NoExecute" or key == _UNSCHEDULABLE:
            taint["timeAdded"] = time_text(work.now)
        kept.append(taint)
    return kept


def _all_are_down(work: Work) -> bool:
    """Where no node is ready it is not the nodes that are broken: nobody is evicted."""
    nodes = (_conditions(node.document()) for node in work.world.all(NODES))
    return all(conditions.get("Ready") != "True" for conditions in nodes)


def _set_taints(work: Work, item: Item, document: Document, taints: list[Document]) -> None:
    present = (document.get("spec") or {}).get("taints") or []
    if taints != present:
        work.patch(item, {"spec": {"taints": taints or None}})


def _mark_pods(work: Work, item: Item) -> None:
    """Pods of a node that is not ready serve nobody: endpoints must leave them out."""
    for pod in work.world.on_node(item.meta.name):
        found = pod.status.condition("Ready")
        if found is None or found.status != "True" or pod.deleting:
            continue
        conditions = [
            {k: v for k, v in _shown(c.type, c).items() if v}
            for c in pod.status.conditions or ()
            if c.type != "Ready"
        ]
        unready = {
            "type": "Ready",
            "status": "False",
            "reason": "NodeNotReady",
            "lastTransitionTime": time_text(work.now),
        }
        patch: Document = {"status": {"conditions": [*conditions, unready]}}
        work.patch(pod, patch, subresource="status")


def _shown(type_: str, found: object) -> Document:
    names = {
        "status": "status",
        "reason": "reason",
        "message": "message",
        "last_transition_time": "lastTransitionTime",
    }
    return {"type": type_, **{shown: getattr(found, name) for name, shown in names.items()}}


# eviction


def _evict(work: Work, item: Item, taints: Iterable[Document]) -> None:
    """End pods that don't bear the node's NoExecute taints, at once or when their time is over."""
    driving = [t for t in taints if t["effect"] == "NoExecute"]
    if not driving:
        return
    for pod in work.world.on_node(item.meta.name):
        if pod.deleting or pod.status.phase in ("Succeeded", "Failed"):
            continue
        until = _leaves_at(pod, driving)
        if until is None:
            continue
        if until > work.now:
            work.look_again(until - work.now)
            continue
        _say_why(
            work, pod, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"
        )
        work.delete(pod)
        work.event(
            pod, "Normal", "TaintManagerEviction", f"Marking for deletion Pod {'/'.join(pod.key)}"
        )


def _leaves_at(pod: Item, driving: list[Document]) -> float | None:
    """When a pod must leave: 0.0 for at once, None for never."""
    times = []
    for said in driving:
        taint = Taint(said["key"], said.get("value") or "", said["effect"])
        bearing = [
            t
            for t in pod.spec.tolerations or ()
            if Toleration(t.key, t.operator, t.value, t.effect).bears(taint)
        ]
        if not bearing:
            return 0.0
        limits = [t.toleration_seconds for t in bearing if t.toleration_seconds is not None]
        if len(limits) == len(bearing):
            times.append(moment(said.get("timeAdded")) + max(0, min(limits)))
    return min(times) if times else None


def _say_why(work: Work, pod: Item, reason: str, said: str) -> None:
    conditions = [
        {k: v for k, v in _shown(c.type, c).items() if v}
        for c in pod.status.conditions or ()
        if c.type != "DisruptionTarget"
    ]
    target = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "message": said,
        "lastTransitionTime": time_text(work.now),
    }
    work.patch(pod, {"status": {"conditions": [*conditions, target]}}, subresource="status")


def forget_pods(work: Work, pod: Item) -> None:
    """A pod on a node that does not exist ends without anybody's help."""
    node = pod.spec.node_name
    if not node or not any(True for _ in work.world.all(NODES)):
        return
    if work.world.get(NODES, ("", node)) is not None:
        work.world.forget_seen("missing", node)
        return
    since = work.world.seen_since("missing", node, "", 0.0)
    left = since + QUARANTINE_SECONDS - work.now
    if left > 0:
        work.look_again(left)
        return
    if pod.status.phase not in ("Succeeded", "Failed"):
        _say_why(work, pod, "DeletionByPodGC", "PodGC: node no longer exists")
    work.delete(pod, grace=0)
