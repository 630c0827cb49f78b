"""Deployments: replica sets of successive templates, and the way from one to the next.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/
"""

from __future__ import annotations

from typing import Final

import msgspec

from sagong_replication_kube import template as templates
from sagong_replication_kube.deployment_status import tell
from sagong_replication_kube.item import Document, Item
from sagong_replication_kube.ownership import claim
from sagong_replication_kube.pods import PODS, active, available, selector_of
from sagong_replication_kube.revision import (
    DESIRED,
    MOST,
    annotated,
    new_set,
    next_revision,
    number,
    revision_of,
)
from sagong_replication_kube.rollout import Limits, Part, limits, proportional, rolling
from sagong_replication_kube.work import Work

__all__ = ["ReplicaSets", "reconcile"]

SETS: Final = "apps/v1/replicasets"


class ReplicaSets(msgspec.Struct):
    """A deployment's replica sets, with their pods and sizes by name."""

    new: Item | None
    old: list[Item]
    pods: dict[str, list[Item]]
    sizes: dict[str, int]
    documents: dict[str, Document]

    @property
    def all(self) -> list[Item]:
        """Old ones, then the new one."""
        return [*self.old, *([self.new] if self.new is not None else [])]


def reconcile(work: Work, item: Item) -> None:
    """One step towards what is wished."""
    document = item.document()
    sets = _sets(work, item, document)
    if item.deleting:
        tell(work, item, document, sets)
        return
    replicas = document["spec"].get("replicas", 1)
    bounds = _bounds(document, replicas)
    if document["spec"].get("paused") or _scaled_meanwhile(sets, replicas):
        _scale_all(work, item, sets, replicas, bounds)
    elif _surely_new(work, item, document, sets, bounds):
        _roll(work, item, document, sets, bounds)
    if work.idle:
        _forget_old(work, document, sets)
        tell(work, item, document, sets)


def _sets(work: Work, item: Item, document: Document) -> ReplicaSets:
    claimed = claim(work, item, SETS, selector_of(document))
    template = document["spec"]["template"]
    documents = {one.meta.name: one.document() for one in claimed}
    by_age = sorted(claimed, key=lambda one: (one.created, one.meta.name))
    same = [
        s for s in by_age if templates.same(documents[s.meta.name]["spec"]["template"], template)
    ]
    new = same[0] if same else None
    return ReplicaSets(
        new=new,
        old=[one for one in by_age if one is not new],
        pods={
            one.meta.name: [p for p in work.world.controlled(one.uid, PODS) if active(p)]
            for one in claimed
        },
        sizes={name: found["spec"].get("replicas", 1) for name, found in documents.items()},
        documents=documents,
    )


def _bounds(document: Document, replicas: int) -> Limits:
    strategy = document["spec"].get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return Limits(0, replicas)
    return limits(strategy.get("rollingUpdate"), replicas)


def _scaled_meanwhile(sets: ReplicaSets, replicas: int) -> bool:
    """Whether the wished number has changed since the sets' sizes were chosen."""
    living = [one for one in sets.all if sets.sizes[one.meta.name] > 0]
    return any(
        DESIRED in one.annotations and number(one.annotations, DESIRED) != replicas
        for one in living
    )


def _resize(
    work: Work, item: Item, sets: ReplicaSets, one: Item, size: int, replicas: int, most: int
) -> None:
    before = sets.sizes[one.meta.name]
    annotations = {DESIRED: str(replicas), MOST: str(most)}
    if size == before and annotations.items() <= one.annotations.items():
        return
    patch: Document = {"metadata": {"annotations": annotations}, "spec": {"replicas": size}}
    work.patch(one, patch)
    sets.sizes[one.meta.name] = size
    if size != before:
        verb = "up" if size > before else "down"
        said = f"Scaled {verb} replica set {one.meta.name} from {before} to {size}"
        work.event(item, "Normal", "ScalingReplicaSet", said)


def _scale_all(work: Work, item: Item, sets: ReplicaSets, replicas: int, bounds: Limits) -> None:
    """The wished number changed: sets change in proportion, without any progress of a rollout."""
    living = [one for one in sets.all if sets.sizes[one.meta.name] > 0]
    latest = sets.new or (max(sets.old, key=revision_of) if sets.old else None)
    most = replicas + bounds.surge
    if len(living) <= 1:
        only = living[0] if living else latest
        if only is not None:
            _resize(work, item, sets, only, replicas, replicas, most)
        return
    full = sets.new is not None and _serving(work, sets, sets.new) == replicas
    if full and sets.sizes[sets.new.meta.name] == replicas:  # type: ignore[union-attr]
        for one in sets.old:
            _resize(work, item, sets, one, 0, replicas, most)
        return
    parts = [_part(work, sets, one) for one in living]
    changes = proportional(replicas, bounds.surge, parts)
    for one in living:
        size = changes.get(one.meta.name, sets.sizes[one.meta.name])
        _resize(work, item, sets, one, size, replicas, most)


def _part(work: Work, sets: ReplicaSets, one: Item) -> Part:
    return Part(
        name=one.meta.name,
        replicas=sets.sizes[one.meta.name],
        available=_serving(work, sets, one),
        created=one.created,
        most=number(one.annotations, MOST),
    )


def _serving(work: Work, sets: ReplicaSets, one: Item) -> int:
    min_ready = sets.documents[one.meta.name]["spec"].get("minReadySeconds", 0)
    return sum(available(work, pod, min_ready) for pod in sets.pods[one.meta.name])


def _surely_new(
    work: Work, item: Item, document: Document, sets: ReplicaSets, bounds: Limits
) -> bool:
    """See that the replica set of the present template exists and says what it should."""
    replicas = document["spec"].get("replicas", 1)
    most, revision = replicas + bounds.surge, next_revision(sets.old)
    if sets.new is not None:
        _renew(
            work,
            item,
            document,
            sets,
            annotated(item, sets.new.annotations, revision, replicas, most),
        )
        return True
    recreate = (document["spec"].get("strategy") or {}).get("type") == "Recreate"
    if recreate and _old_ones_run(work, item, sets):
        return False
    total = sum(sets.sizes.values())
    room = replicas if recreate else max(0, min(replicas, most - total))
    created = new_set(item, document, room)
    created["metadata"]["annotations"] = annotated(item, {}, revision, replicas, most)
    name = created["metadata"]["name"]
    if work.world.get(SETS, (item.meta.namespace, name)) is not None:
        _collide(work, item, document)
        return False
    work.create(SETS, created)
    if room:
        said = f"Scaled up replica set {name} from 0 to {room}"
        work.event(item, "Normal", "ScalingReplicaSet", said)
    return False


def _renew(
    work: Work, item: Item, document: Document, sets: ReplicaSets, annotations: dict[str, str]
) -> None:
    new = sets.new
    assert new is not None
    spec = sets.documents[new.meta.name]["spec"]
    min_ready = document["spec"].get("minReadySeconds", 0)
    # The bounds are kept up where sizes change.
    kept = {k: v for k, v in annotations.items() if k not in (DESIRED, MOST)}
    patch: Document = {}
    if not kept.items() <= new.annotations.items():
        patch["metadata"] = {"annotations": annotations}
    if spec.get("minReadySeconds", 0) != min_ready:
        patch["spec"] = {"minReadySeconds": min_ready}
    if patch:
        work.patch(new, patch)


def _collide(work: Work, item: Item, document: Document) -> None:
    """Another template has the same hash: count on and hash anew."""
    status = {**(document.get("status") or {})}
    status["collisionCount"] = status.get("collisionCount", 0) + 1
    work.status(item, status)


def _old_ones_run(work: Work, item: Item, sets: ReplicaSets) -> bool:
    """Recreate: end all old pods first; whether some still live."""
    replicas = item.document()["spec"].get("replicas", 1)
    for one in sets.old:
        if sets.sizes[one.meta.name] > 0:
            _resize(work, item, sets, one, 0, replicas, replicas)
    return any(_lives(work, one) for one in sets.old)


def _lives(work: Work, one: Item) -> bool:
    pods = work.world.controlled(one.uid, PODS)
    return any(pod.status.phase not in ("Succeeded", "Failed") for pod in pods)


def _roll(work: Work, item: Item, document: Document, sets: ReplicaSets, bounds: Limits) -> None:
    new = sets.new
    assert new is not None
    replicas = document["spec"].get("replicas", 1)
    if (document["spec"].get("strategy") or {}).get("type") == "Recreate":
        changes: dict[str, int] = {}
        if not _old_ones_run(work, item, sets):
            changes = {new.meta.name: replicas}
    else:
        old = [_part(work, sets, one) for one in sets.old]
        changes = rolling(replicas, _part(work, sets, new), old, bounds)
    most = replicas + bounds.surge
    for one in sets.all:
        if one.meta.name in changes and not _written(work, one):
            _resize(work, item, sets, one, changes[one.meta.name], replicas, most)


def _written(work: Work, one: Item) -> bool:
    """Whether this batch changes the object already: the rest waits for the next."""
    return any((w.resource, w.namespace, w.name) == (one.resource, *one.key) for w in work.writes)


def _forget_old(work: Work, document: Document, sets: ReplicaSets) -> None:
    """Beyond the limit, empty old replica sets go, the oldest revision first."""
    new = sets.new
    replicas = document["spec"].get("replicas", 1)
    if new is None or len(sets.pods[new.meta.name]) != replicas:
        return
    limit = document["spec"].get("revisionHistoryLimit", 10)
    empty = [
        one
        for one in sets.old
        if not sets.sizes[one.meta.name] and not sets.pods[one.meta.name] and not one.deleting
    ]
    for one in sorted(empty, key=revision_of)[: max(0, len(sets.old) - limit)]:
        work.delete(one)
