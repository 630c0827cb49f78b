"""Volumes of stateful sets: a claim per template and number, which outlives its pod."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from sagong_replication_kube.item import Document, Item
from sagong_replication_kube.work import Work

__all__ = ["create_claims", "keep_claims", "mount_claims"]

CLAIMS: Final = "v1/persistentvolumeclaims"


def _templates(spec: Document) -> list[Document]:
    found: list[Document] = spec.get("volumeClaimTemplates") or []
    return found


def _name(template: Document, owner: Item, number: int) -> str:
    return f"{template['metadata']['name']}-{owner.meta.name}-{number}"


def mount_claims(pod_spec: Document, owner: Item, spec: Document, number: int) -> None:
    """Let the pod's volumes be its claims; they replace volumes of the same name."""
    templates = _templates(spec)
    if not templates:
        return
    names = {template["metadata"]["name"] for template in templates}
    others = [v for v in pod_spec.get("volumes") or [] if v["name"] not in names]
    pod_spec["volumes"] = [
        *(
            {
                "name": template["metadata"]["name"],
                "persistentVolumeClaim": {"claimName": _name(template, owner, number)},
            }
            for template in templates
        ),
        *others,
    ]


def create_claims(work: Work, owner: Item, spec: Document, number: int) -> None:
    """Make the claims of a number that are not there yet."""
    selector = (spec.get("selector") or {}).get("matchLabels") or {}
    for template in _templates(spec):
        name = _name(template, owner, number)
        if work.world.get(CLAIMS, (owner.meta.namespace, name)) is not None:
            continue
        meta = template["metadata"]
        document = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": name,
                "namespace": owner.meta.namespace,
                "labels": {**(meta.get("labels") or {}), **selector},
            },
            "spec": copy.deepcopy(template["spec"]),
        }
        if meta.get("annotations"):
            document["metadata"]["annotations"] = dict(meta["annotations"])
        if _policy(spec, "whenDeleted") == "Delete":
            document["metadata"]["ownerReferences"] = [_reference(owner)]
        work.create(CLAIMS, document)


def keep_claims(
    work: Work, owner: Item, document: Document, numbers: Collection[int], pods: Mapping[int, Item]
) -> None:
    """Let claims go with the set, or with a pod that is scaled away, where its policy says so."""
    spec = document["spec"]
    policy = spec.get("persistentVolumeClaimRetentionPolicy")
    if policy is None:
        return
    for number, claim in _present(work, owner, spec, {*numbers, *pods}):
        pod = pods.get(number)
        keeper: Item | None = None
        if number not in numbers and _policy(spec, "whenScaled") == "Delete":
            keeper = pod
        elif _policy(spec, "whenDeleted") == "Delete":
            keeper = owner
        ours = {owner.uid, *(one.uid for one in pods.values())}
        kept = [o for o in claim.meta.owner_references or () if o.uid not in ours]
        wanted = [o.document() for o in kept] + ([_reference(keeper)] if keeper else [])
        if wanted != [o.document() for o in claim.meta.owner_references or ()]:
            work.patch(claim, {"metadata": {"ownerReferences": wanted or None}})


def _present(
    work: Work, owner: Item, spec: Document, numbers: Collection[int]
) -> Iterator[tuple[int, Item]]:
    for template in _templates(spec):
        for number in sorted(numbers):
            key = (owner.meta.namespace, _name(template, owner, number))
            found = work.world.get(CLAIMS, key)
            if found is not None and not found.deleting:
                yield number, found


def _policy(spec: Document, when: str) -> str:
    said = spec.get("persistentVolumeClaimRetentionPolicy") or {}
    return str(said.get(when, "Retain"))


def _reference(owner: Item) -> Document:
    return {
        "apiVersion": owner.kind.api_version,
        "kind": owner.kind.kind,
        "name": owner.meta.name,
        "uid": owner.uid,
    }
