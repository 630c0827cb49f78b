"""Garbage collection: objects go with the last of their owners, before it, or are let go.

Source: https://kubernetes.io/docs/concepts/architecture/garbage-collection/
"""

from __future__ import annotations

from typing import Final

from sagong_replication_kube.item import Document, Item, Owner
from sagong_replication_kube.ownership import disown
from sagong_replication_kube.work import Ask, Work

__all__ = ["FOREGROUND", "ORPHAN", "reconcile"]

FOREGROUND: Final = "foregroundDeletion"
ORPHAN: Final = "orphan"


def reconcile(work: Work, item: Item) -> None:
    """What owners, and dependents, mean for one object."""
    finalizers = item.meta.finalizers or ()
    if item.deleting and ORPHAN in finalizers:
        _let_go(work, item)
    elif item.deleting and FOREGROUND in finalizers:
        _end_dependents(work, item)
    elif not item.deleting and item.meta.owner_references:
        _follow_owners(work, item)


def _let_go(work: Work, item: Item) -> None:
    """Dependents stay and lose this owner; then it may go."""
    dependents = work.world.dependents(item.uid)
    for one in dependents:
        disown(work, one, item.uid)
    if not dependents:
        _drop(work, item, ORPHAN)


def _end_dependents(work: Work, item: Item) -> None:
    """Dependents that block it go first; they are looked at each for itself, here their end shows."""
    if not any(_blocks(one, item) for one in work.world.dependents(item.uid)):
        _drop(work, item, FOREGROUND)


def _blocks(dependent: Item, owner: Item) -> bool:
    return any(
        o.uid == owner.uid and o.block_owner_deletion for o in dependent.meta.owner_references or ()
    )


def _drop(work: Work, item: Item, finalizer: str) -> None:
    kept = [f for f in item.meta.finalizers or () if f != finalizer]
    patch: Document = {"metadata": {"finalizers": kept or None}}
    work.patch(item, patch)


def _follow_owners(work: Work, item: Item) -> None:
    solid, waiting, absent = _sorted_owners(work, item)
    if work.asks:
        return
    if solid:
        gone = [o.uid for o in (*waiting, *absent)]
        if gone:
            disown(work, item, *gone)
        return
    dependents = work.world.dependents(item.uid)
    if waiting and dependents:
        # Its own dependents may block it in turn: they go before it, as it goes before its owner.
        work.delete(item, propagation="Foreground")
    elif waiting or absent:
        work.delete(item, propagation=_policy(item))


def _policy(item: Item) -> str:
    finalizers = item.meta.finalizers or ()
    if ORPHAN in finalizers:
        return "Orphan"
    return "Foreground" if FOREGROUND in finalizers else "Background"


def _sorted_owners(work: Work, item: Item) -> tuple[list[Owner], list[Owner], list[Owner]]:
    """Owners that live, that wait for their dependents' end, and that are no more."""
    solid: list[Owner] = []
    waiting: list[Owner] = []
    absent: list[Owner] = []
    for owner in item.meta.owner_references or ():
        found = work.world.by_uid(owner.uid)
        if found is not None and _is(found, owner, item):
            ends = found.deleting and FOREGROUND in (found.meta.finalizers or ())
            (waiting if ends else solid).append(owner)
        elif _surely_absent(work, item, owner):
            absent.append(owner)
        else:
            solid.append(owner)
    return solid, waiting, absent


def _is(found: Item, owner: Owner, item: Item) -> bool:
    """Whether the reference really means this object: names and scope count too."""
    inside = found.meta.namespace in ("", item.meta.namespace)
    return inside and found.meta.name == owner.name and found.kind.kind == owner.kind


def _surely_absent(work: Work, item: Item, owner: Owner) -> bool:
    """Watches of different kinds are not in step: an owner that is missing here is asked for."""
    world = work.world
    if world.closed or owner.uid in world.absent:
        return True
    kind = world.kind_of(owner.api_version, owner.kind)
    if kind is None:
        return False  # nobody knows that kind (yet): nothing is deleted on a guess
    namespace = item.meta.namespace if kind.namespaced else ""
    work.asks.append(Ask(kind.resource, namespace, owner.name, owner.uid))
    return False
