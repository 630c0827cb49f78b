"""Ownership: which objects a controller has, takes in, or lets go.

Source: https://kubernetes.io/docs/concepts/architecture/garbage-collection/#owners-dependents
"""

from __future__ import annotations

from collections.abc import Callable

from sagong.model.selectors import LabelSelector
from sagong_replication_kube.item import Document, Item, Owner
from sagong_replication_kube.work import Work

__all__ = ["claim", "controller_reference", "disown", "owners_without"]


def controller_reference(owner: Item) -> Document:
    """The reference of what `owner` controls."""
    return {
        "apiVersion": owner.kind.api_version,
        "kind": owner.kind.kind,
        "name": owner.meta.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def claim(
    work: Work,
    owner: Item,
    resource: str,
    selector: LabelSelector,
    suits: Callable[[Item], bool] = lambda item: True,
) -> list[Item]:
    """What the owner has: its own that still match, and matching strays, which it takes in."""
    world = work.world
    found = []
    for item in world.controlled(owner.uid, resource):
        if selector.matches(item.labels) and suits(item):
            found.append(item)
        elif not owner.deleting:
            disown(work, item, owner.uid)
    if owner.deleting or selector.empty:
        return found
    for item in world.loose(resource, owner.meta.namespace):
        if selector.matches(item.labels) and suits(item) and not item.deleting:
            _adopt(work, item, owner)
            found.append(item)
    return sorted(found, key=lambda item: item.key)


def _adopt(work: Work, item: Item, owner: Item) -> None:
    references = [o.document() for o in item.meta.owner_references or () if o.uid != owner.uid]
    references.append(controller_reference(owner))
    work.patch(item, {"metadata": {"ownerReferences": references}})


def disown(work: Work, item: Item, *uids: str) -> None:
    """Take these owners away."""
    work.patch(item, {"metadata": {"ownerReferences": owners_without(item, *uids)}})


def owners_without(item: Item, *uids: str) -> list[Document] | None:
    """The remaining references; None (which removes the field) if none remain."""
    kept: list[Owner] = [o for o in item.meta.owner_references or () if o.uid not in uids]
    return [owner.document() for owner in kept] or None
