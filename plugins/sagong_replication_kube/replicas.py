"""ReplicaSets and ReplicationControllers: so many pods of a template.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sagong_replication_kube.item import Document, Item
from sagong_replication_kube.ownership import claim
from sagong_replication_kube.pods import (
    PODS,
    active,
    available,
    create_pod,
    first_to_go,
    ready,
    selector_of,
    template_labels,
)
from sagong_replication_kube.work import Work, condition, conditions_with

__all__ = ["reconcile"]

# Of more missing pods the rest follows in the next batch.
BURST: Final = 500


def reconcile(work: Work, item: Item) -> None:
    """Bring the number of pods to what is wished, and tell how many there are."""
    document = item.document()
    selector = selector_of(document)
    pods = [pod for pod in claim(work, item, PODS, selector) if active(pod)]
    if not item.deleting:
        _scale(work, item, document, pods)
    if work.idle:
        work.status(item, _status(work, item, document, pods))


def _scale(work: Work, item: Item, document: Document, pods: Sequence[Item]) -> None:
    wanted = document["spec"].get("replicas", 1)
    missing = wanted - len(pods)
    taken: set[str] = set()
    for _ in range(min(missing, BURST)):
        name = create_pod(work, item, document["spec"].get("template") or {}, taken)
        work.event(item, "Normal", "SuccessfulCreate", f"Created pod: {name}")
    if missing > BURST:
        work.look_again(0)
    if missing < 0:
        for pod in first_to_go(work, pods, -missing, _related(work, item)):
            work.delete(pod)
            work.event(item, "Normal", "SuccessfulDelete", f"Deleted pod: {pod.meta.name}")


def _related(work: Work, item: Item) -> list[Item]:
    """Active pods of all replica sets of the same deployment."""
    owner = item.meta.controller
    if owner is None:
        return []
    siblings = work.world.controlled(owner.uid, item.resource)
    pods = (pod for one in siblings for pod in work.world.controlled(one.uid, PODS))
    return [pod for pod in pods if active(pod)]


def _status(work: Work, item: Item, document: Document, pods: Sequence[Item]) -> Document:
    spec, before = document["spec"], document.get("status") or {}
    labels = template_labels(document).items()
    min_ready = spec.get("minReadySeconds", 0)
    status = {"replicas": len(pods)}
    counts = {
        "fullyLabeledReplicas": sum(labels <= pod.labels.items() for pod in pods),
        "readyReplicas": sum(ready(pod) for pod in pods),
        "availableReplicas": sum(available(work, pod, min_ready) for pod in pods),
        "observedGeneration": item.meta.generation,
    }
    status |= {name: count for name, count in counts.items() if count}
    conditions = _conditions(work, item, before.get("conditions") or [])
    return {**status, "conditions": conditions} if conditions else status


def _conditions(work: Work, item: Item, present: list[Document]) -> list[Document]:
    """ReplicaFailure while pods can't be created."""
    failure = work.world.failures.get(item.uid)
    if failure is not None:
        failed = condition("ReplicaFailure", "True", "FailedCreate", failure)
        return conditions_with(present, failed, work.now)
    return [c for c in present if c.get("type") != "ReplicaFailure"]
