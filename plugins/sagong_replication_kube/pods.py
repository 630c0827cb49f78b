"""Pods as controllers see them: from a template, active, ready, available, and which goes first."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from sagong.model.names import generated_name
from sagong.model.selectors import LabelSelector, from_labels, from_object
from sagong_replication_kube.item import Document, Item, moment
from sagong_replication_kube.ownership import controller_reference
from sagong_replication_kube.work import Work

__all__ = [
    "active",
    "available",
    "create_pod",
    "first_to_go",
    "from_template",
    "ready",
    "ready_since",
    "selector_of",
]

PODS: Final = "v1/pods"
DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"


def active(pod: Item) -> bool:
    """Whether it runs, or will."""
    return pod.status.phase not in ("Succeeded", "Failed") and not pod.deleting


def ready(pod: Item) -> bool:
    """Whether it is ready to serve."""
    found = pod.status.condition("Ready")
    return found is not None and found.status == "True"


def ready_since(pod: Item) -> float:
    """When it became ready."""
    found = pod.status.condition("Ready")
    return moment(found.last_transition_time) if found is not None else 0.0


def available(work: Work, pod: Item, min_ready_seconds: int) -> bool:
    """Whether it has been ready for so long; looks again when it will have been."""
    if not ready(pod):
        return False
    if not min_ready_seconds:
        return True
    left = ready_since(pod) + min_ready_seconds - work.now
    if left > 0:
        work.look_again(left)
    return left <= 0


def selector_of(document: Document) -> LabelSelector:
    """The selector of a workload's spec, whichever of its two forms it has."""
    said = document["spec"].get("selector")
    if document.get("kind") == "ReplicationController":
        return from_labels(said or template_labels(document))
    return from_object(said)


def template_labels(document: Document) -> dict[str, str]:
    """Labels that new pods will have."""
    template = document["spec"].get("template") or {}
    found: dict[str, str] = (template.get("metadata") or {}).get("labels") or {}
    return found


def from_template(owner: Item, template: Document, name: str) -> Document:
    """A new pod that the owner controls."""
    meta = template.get("metadata") or {}
    kept = {
        k: copy.deepcopy(meta[k]) for k in ("labels", "annotations", "finalizers") if meta.get(k)
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": owner.meta.namespace,
            **kept,
            "ownerReferences": [controller_reference(owner)],
        },
        "spec": copy.deepcopy(template.get("spec") or {}),
    }


def create_pod(work: Work, owner: Item, template: Document, taken: set[str]) -> str:
    """A new pod with a generated name; its name."""
    prefix = f"{owner.meta.name}-"
    name = generated_name(prefix, work.world.chance)
    while name in taken or work.world.get(PODS, (owner.meta.namespace, name)) is not None:
        name = generated_name(prefix, work.world.chance)
    taken.add(name)
    pod = from_template(owner, template, name)
    pod["metadata"]["generateName"] = prefix
    work.create(PODS, pod)
    return name


def first_to_go(
    work: Work, pods: Sequence[Item], number: int, related: Iterable[Item] = ()
) -> list[Item]:
    """The pods to delete, the least missed ones first, as upstream ranks them.

    `related` are pods of the same purpose (of sibling replica sets): where several share a node,
    one of those goes.
    """
    crowd = Counter(pod.spec.node_name for pod in {p.uid: p for p in (*related, *pods)}.values())
    return sorted(pods, key=lambda pod: _rank(work, pod, crowd[pod.spec.node_name]))[:number]


def _rank(work: Work, pod: Item, doubled: int) -> tuple[object, ...]:
    phase = {"Pending": 0, "": 0, "Unknown": 1, "Running": 2}.get(pod.status.phase, 2)
    restarts = [s.restart_count for s in pod.status.container_statuses or ()]
    serves = ready(pod)
    return (
        bool(pod.spec.node_name),
        phase,
        serves,
        _cost(pod),
        -doubled,
        _age(work, ready_since(pod)) if serves else 0,
        -max(restarts, default=0),
        _age(work, pod.created),
        pod.uid,
    )


def _age(work: Work, since: float) -> int:
    """Ages are compared by orders of magnitude, so that it is not always the youngest who goes."""
    return int(math.log2(max(work.now - since, 1.0)))


def _cost(pod: Item) -> int:
    try:
        return int(pod.annotations.get(DELETION_COST, "0"))
    except ValueError:
        return 0
