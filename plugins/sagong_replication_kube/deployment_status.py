"""The status of a deployment: counts, and whether it serves and moves on."""

from __future__ import annotations

from typing import Protocol

from sagong_replication_kube.item import Document, Item, moment
from sagong_replication_kube.pods import available, ready
from sagong_replication_kube.revision import REVISION
from sagong_replication_kube.rollout import limits
from sagong_replication_kube.work import Work, condition, conditions_with

__all__ = ["tell"]

NO_DEADLINE = 2**31 - 1


class Sets(Protocol):
    """What the status reads of a deployment's replica sets."""

    new: Item | None
    old: list[Item]
    pods: dict[str, list[Item]]
    sizes: dict[str, int]
    documents: dict[str, Document]


def tell(work: Work, item: Item, document: Document, sets: Sets) -> None:
    """Write the status and the revision, if they are not written so."""
    before = document.get("status") or {}
    status = _counts(work, item, document, sets)
    for kept in ("collisionCount", "terminatingReplicas"):
        if kept in before:
            status[kept] = before[kept]
    conditions = list(before.get("conditions") or ())
    if not item.deleting:
        conditions = _availability(work, document, status, conditions)
        conditions = _progress(work, item, document, sets, status, conditions)
        conditions = _failure(work, sets, conditions)
    if conditions:
        status["conditions"] = conditions
    annotations = {**item.annotations}
    if sets.new is not None and sets.new.annotations.get(REVISION):
        annotations[REVISION] = sets.new.annotations[REVISION]
    work.status(item, status, annotations)


def _counts(work: Work, item: Item, document: Document, sets: Sets) -> Document:
    min_ready = document["spec"].get("minReadySeconds", 0)
    everything = [pod for pods in sets.pods.values() for pod in pods]
    serving = sum(available(work, pod, min_ready) for pod in everything)
    wanted = sum(sets.sizes.values())
    counts = {
        "observedGeneration": item.meta.generation,
        "replicas": len(everything),
        "updatedReplicas": len(sets.pods[sets.new.meta.name]) if sets.new is not None else 0,
        "readyReplicas": sum(ready(pod) for pod in everything),
        "availableReplicas": serving,
        "unavailableReplicas": max(0, wanted - serving),
    }
    return {name: count for name, count in counts.items() if count}


def _availability(
    work: Work, document: Document, status: Document, present: list[Document]
) -> list[Document]:
    spec = document["spec"]
    replicas = spec.get("replicas", 1)
    strategy = spec.get("strategy") or {}
    missing = 0
    if strategy.get("type") != "Recreate":
        missing = limits(strategy.get("rollingUpdate"), replicas).unavailable
    if status.get("availableReplicas", 0) >= replicas - missing:
        found = condition(
            "Available",
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    else:
        found = condition(
            "Available",
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    return conditions_with(present, found, work.now, updates=True)


def _progress(
    work: Work,
    item: Item,
    document: Document,
    sets: Sets,
    status: Document,
    present: list[Document],
) -> list[Document]:
    """Progressing: paused, complete, moving, or stuck for longer than the deadline."""
    spec = document["spec"]
    deadline = spec.get("progressDeadlineSeconds", 600)
    old = next((c for c in present if c.get("type") == "Progressing"), None)
    if deadline >= NO_DEADLINE or sets.new is None:
        return [c for c in present if c.get("type") != "Progressing"] if sets.new else present
    name = sets.new.meta.name

    def said(status_: str, reason: str, text: str) -> list[Document]:
        found = condition("Progressing", status_, reason, text)
        return conditions_with(present, found, work.now, updates=True)

    if spec.get("paused"):
        return said("Unknown", "DeploymentPaused", "Deployment is paused")
    if old is not None and old.get("reason") == "DeploymentPaused":
        old = None  # the time that it was paused does not count
    if _complete(spec, status):
        text = f'ReplicaSet "{name}" has successfully progressed.'
        return said("True", "NewReplicaSetAvailable", text)
    before, rolled = document.get("status") or {}, False
    if old is not None and old.get("reason") == "NewReplicaSetAvailable":
        if not sum(size for set_, size in sets.sizes.items() if set_ != name):
            return present  # a pod was lost or the number changed: that is no rollout
        rolled = True
    if old is None or rolled or _moved(before, status):
        return _moving(work, present, name)
    since = moment(old.get("lastUpdateTime") or old.get("lastTransitionTime"))
    if old.get("reason") == "ProgressDeadlineExceeded":
        return present
    left = since + deadline - work.now
    if left > 0:
        work.look_again(left)
        return present
    text = f'ReplicaSet "{name}" has timed out progressing.'
    return said("False", "ProgressDeadlineExceeded", text)


def _moving(work: Work, present: list[Document], name: str) -> list[Document]:
    """Progress was made just now: the deadline begins anew."""
    text = f'ReplicaSet "{name}" is progressing.'
    found = condition("Progressing", "True", "ReplicaSetUpdated", text)
    others = [c for c in present if c.get("type") != "Progressing"]
    fresh = conditions_with([], found, work.now, updates=True)
    old = next((c for c in present if c.get("type") == "Progressing"), None)
    if old is not None and old.get("status") == "True":
        fresh[0]["lastTransitionTime"] = old.get("lastTransitionTime")
    return [*others, *fresh]


def _complete(spec: Document, status: Document) -> bool:
    replicas = spec.get("replicas", 1)
    return bool(
        status.get("updatedReplicas", 0) == replicas
        and status.get("replicas", 0) == replicas
        and status.get("availableReplicas", 0) == replicas
    )


def _moved(before: Document, after: Document) -> bool:
    """More of the new, fewer of the old, or more that are ready than last time."""

    def old(status: Document) -> int:
        return int(status.get("replicas", 0)) - int(status.get("updatedReplicas", 0))

    return (
        after.get("updatedReplicas", 0) > before.get("updatedReplicas", 0)
        or old(after) < old(before)
        or after.get("readyReplicas", 0) > before.get("readyReplicas", 0)
        or after.get("availableReplicas", 0) > before.get("availableReplicas", 0)
    )


def _failure(work: Work, sets: Sets, present: list[Document]) -> list[Document]:
    """What keeps replica sets from making pods is told here too."""
    for one in (*([sets.new] if sets.new is not None else ()), *sets.old):
        failure = work.world.failures.get(one.uid)
        if failure is not None:
            failed = condition("ReplicaFailure", "True", "FailedCreate", failure)
            return conditions_with(present, failed, work.now, updates=True)
    return [c for c in present if c.get("type") != "ReplicaFailure"]
