"""Replica sets of a deployment: which is the new one, their revisions, and what is written at them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sagong.model.numbers import natural
from sagong_replication_kube import template as templates
from sagong_replication_kube.item import Document, Item
from sagong_replication_kube.ownership import controller_reference

__all__ = [
    "DESIRED",
    "MOST",
    "REVISION",
    "annotated",
    "new_set",
    "next_revision",
    "number",
    "revision_of",
]

REVISION: Final = "deployment.kubernetes.io/revision"
HISTORY: Final = "deployment.kubernetes.io/revision-history"
DESIRED: Final = "deployment.kubernetes.io/desired-replicas"
MOST: Final = "deployment.kubernetes.io/max-replicas"
# What a deployment says for itself alone.
_OWN: Final = frozenset(
    (
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        HISTORY,
        DESIRED,
        MOST,
        "deprecated.deployment.rollback.to",
    )
)


def number(annotations: dict[str, str], key: str) -> int:
    """An annotation that is a number; 0 if it is not there."""
    return natural(annotations.get(key, "")) or 0


def revision_of(item: Item) -> int:
    """The revision of a replica set."""
    return number(item.annotations, REVISION)


def next_revision(old: Sequence[Item]) -> int:
    """One more than all others."""
    return max((revision_of(item) for item in old), default=0) + 1


def annotated(
    deployment: Item, present: dict[str, str], revision: int, desired: int, most: int
) -> dict[str, str]:
    """The annotations of the new replica set: the deployment's, its revision and its bounds."""
    found = {**present}
    found |= {k: v for k, v in deployment.annotations.items() if k not in _OWN}
    before = number(present, REVISION)
    if before < revision:
        if before:
            history = [r for r in present.get(HISTORY, "").split(",") if r]
            found[HISTORY] = ",".join([*history, str(before)])
        found[REVISION] = str(revision)
    return found | {DESIRED: str(desired), MOST: str(most)}


def new_set(deployment: Item, document: Document, replicas: int) -> Document:
    """The replica set of the deployment's present template."""
    spec = document["spec"]
    collisions = (document.get("status") or {}).get("collisionCount", 0)
    hash_ = templates.template_hash(spec["template"], collisions)
    template = templates.with_label(spec["template"], templates.HASH_LABEL, hash_)
    selector = {**(spec.get("selector") or {})}
    selector["matchLabels"] = {**selector.get("matchLabels", {}), templates.HASH_LABEL: hash_}
    found: Document = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{deployment.meta.name}-{hash_}",
            "namespace": deployment.meta.namespace,
            "labels": dict(template["metadata"]["labels"]),
            "ownerReferences": [controller_reference(deployment)],
        },
        "spec": {"replicas": replicas, "selector": selector, "template": template},
    }
    if spec.get("minReadySeconds"):
        found["spec"]["minReadySeconds"] = spec["minReadySeconds"]
    return found
