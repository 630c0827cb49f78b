"""The end of a namespace: all its contents go, then its last finalizer.

Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/
"""

from __future__ import annotations

from typing import Final

from sagong_replication_kube.item import Document, Item
from sagong_replication_kube.resources import BY_RESOURCE
from sagong_replication_kube.work import Ask, Work, condition, conditions_with

__all__ = ["reconcile"]

FINALIZER: Final = "kubernetes"
NAMESPACES: Final = "v1/namespaces"
# Not followed, because nothing depends on them; asked for when a namespace ends.
UNFOLLOWED: Final = ("v1/events",)
# What may still make new objects is deleted before what is made.
_FIRST: Final = (
    "apps/v1/deployments",
    "apps/v1/statefulsets",
    "apps/v1/daemonsets",
    "batch/v1/cronjobs",
    "batch/v1/jobs",
    "apps/v1/replicasets",
    "v1/replicationcontrollers",
)


def reconcile(work: Work, item: Item) -> None:
    """Empty a namespace that is being deleted."""
    if not item.deleting:
        return
    document = item.document()
    finalizers = (document.get("spec") or {}).get("finalizers") or []
    if FINALIZER not in finalizers:
        return
    name = item.meta.name
    left = [one for resource in _resources(work) for one in work.world.within(resource, name)]
    for one in left:
        if not one.deleting:
            work.delete(one, propagation="Background")
    if left:
        _tell(work, item, document, left)
        return
    for resource in UNFOLLOWED:
        if not work.world.closed and (resource, name) not in work.world.emptied:
            work.asks.append(Ask(resource, name))
    if not work.asks:
        document["spec"]["finalizers"] = [f for f in finalizers if f != FINALIZER]
        document["metadata"].pop("managedFields", None)
        work.update(item, document, subresource="finalize")


def _resources(work: Work) -> list[str]:
    known = list(work.world.resources())
    return [r for r in _FIRST if r in known] + [r for r in known if r not in _FIRST]


def _tell(work: Work, item: Item, document: Document, left: list[Item]) -> None:
    """Say what is still there, and whose finalizers are waited for."""
    status = {**(document.get("status") or {}), "phase": "Terminating"}
    conditions = list(status.get("conditions") or ())
    for type_, reason, text in (
        ("NamespaceContentRemaining", "SomeResourcesRemain", _remaining(left)),
        ("NamespaceFinalizersRemaining", "SomeFinalizersRemain", _finalizers(left)),
    ):
        if text:
            found = condition(type_, "True", reason, text)
            conditions = conditions_with(conditions, found, work.now)
    if conditions:
        status["conditions"] = conditions
    work.status(item, status)


def _remaining(left: list[Item]) -> str:
    counts: dict[str, int] = {}
    for one in left:
        if one.deleting:
            name = _qualified(one)
            counts[name] = counts.get(name, 0) + 1
    listed = ", ".join(f"{name} has {n} resource instances" for name, n in sorted(counts.items()))
    return f"Some resources are remaining: {listed}" if listed else ""


def _qualified(item: Item) -> str:
    kind = BY_RESOURCE.get(item.resource, item.kind)
    group = kind.api_version.rpartition("/")[0]
    return f"{kind.plural}.{group}"


def _finalizers(left: list[Item]) -> str:
    counts: dict[str, int] = {}
    for one in left:
        for finalizer in one.meta.finalizers or ():
            counts[finalizer] = counts.get(finalizer, 0) + 1
    listed = ", ".join(f"{f} in {n} resource instances" for f, n in sorted(counts.items()))
    return f"Some content in the namespace has finalizers remaining: {listed}" if listed else ""
