"""Revisions of a template, kept as ControllerRevisions: what stateful and daemon sets roll between."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Final

from sagong.model.selectors import LabelSelector
from sagong_replication_kube import template as templates
from sagong_replication_kube.item import Document, Item
from sagong_replication_kube.ownership import claim, controller_reference
from sagong_replication_kube.work import Work

__all__ = ["REVISION_LABEL", "History", "history"]

REVISIONS: Final = "apps/v1/controllerrevisions"
REVISION_LABEL: Final = "controller-revision-hash"
HASH_LABEL: Final = "controller.kubernetes.io/hash"


class History:
    """The revisions of a set. `update` is the one of its present template, by name."""

    def __init__(self, update: str, revisions: dict[str, Document], items: list[Item]) -> None:
        self.update = update
        self._revisions = revisions
        self._items = items

    def __contains__(self, name: str) -> bool:
        return name in self._revisions

    def hash_of(self, name: str) -> str:
        """What pods of the revision carry when they carry its hash alone."""
        labels: dict[str, str] = self._revisions[name]["metadata"].get("labels") or {}
        return labels.get(HASH_LABEL, name.rpartition("-")[2])

    def template(self, name: str) -> Document:
        """The template of a revision."""
        found: Document = copy.deepcopy(self._revisions[name]["data"]["spec"]["template"])
        found.pop("$patch", None)
        return found

    def forget(self, work: Work, live: Iterable[str], limit: int) -> None:
        """Beyond the limit, revisions that no pod has go, the oldest first."""
        kept = {*live, self.update}
        spare = [item for item in self._items if item.meta.name not in kept]
        spare.sort(key=lambda item: self._revisions[item.meta.name].get("revision", 0))
        for item in spare[: max(0, len(spare) - limit)]:
            work.delete(item)


def history(work: Work, owner: Item, document: Document, selector: LabelSelector) -> History | None:
    """The history with the present template in it; None while its revision is being written."""
    items = [one for one in claim(work, owner, REVISIONS, selector) if not one.deleting]
    revisions = {item.meta.name: item.document() for item in items}
    template = document["spec"]["template"]
    latest = max((r.get("revision", 0) for r in revisions.values()), default=0)
    same = [name for name, one in revisions.items() if _same(one, template)]
    if not same:
        _create(work, owner, document, latest + 1)
        return None
    name = max(same, key=lambda one: revisions[one].get("revision", 0))
    if revisions[name].get("revision", 0) < latest:  # an old template came back
        item = next(one for one in items if one.meta.name == name)
        work.patch(item, {"revision": latest + 1})
    return History(name, revisions, items)


def _same(revision: Document, template: Document) -> bool:
    kept = dict(revision["data"]["spec"]["template"])
    kept.pop("$patch", None)
    return templates.same(kept, template)


def _create(work: Work, owner: Item, document: Document, number: int) -> None:
    template = document["spec"]["template"]
    collisions = (document.get("status") or {}).get("collisionCount") or 0
    hash_ = templates.template_hash(template, collisions)
    name = f"{owner.meta.name}-{hash_}"
    if work.world.get(REVISIONS, (owner.meta.namespace, name)) is not None:
        status = {**(document.get("status") or {}), "collisionCount": collisions + 1}
        work.status(owner, status)
        return
    labels = dict((template.get("metadata") or {}).get("labels") or {})
    work.create(
        REVISIONS,
        {
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {
                "name": name,
                "namespace": owner.meta.namespace,
                "labels": {**labels, HASH_LABEL: hash_},
                "ownerReferences": [controller_reference(owner)],
            },
            "data": {"spec": {"template": {**copy.deepcopy(template), "$patch": "replace"}}},
            "revision": number,
        },
    )
