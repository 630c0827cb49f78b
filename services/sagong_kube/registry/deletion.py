"""Deletions: grace, finalizers, propagation, and when an object really goes."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from sagong.contracts.state import Compare, Operation, OperationKind
from sagong_kube import refusal
from sagong_kube.registry import document as documents
from sagong_kube.registry import strategy
from sagong_kube.registry.actor import DeleteOptions
from sagong_kube.registry.allocation import held_keys
from sagong_kube.registry.document import Document
from sagong_kube.registry.resource import Resource
from sagong_kube.registry.view import View
from sagong_kube.storage.record import Record

__all__ = ["Deletion", "ends_by_update", "plan_deletion", "preconditions", "released"]

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
_POLICIES = {"": "", "Background": "", "Foreground": FOREGROUND, "Orphan": ORPHAN}
_DONE = ("Succeeded", "Failed")
_DEFAULT_GRACE = 30


class Deletion(msgspec.Struct):
    """A planned deletion: the object as it was or as it is marked; `gone` if it ends now."""

    document: Document
    gone: bool
    changed: bool = True


def preconditions(resource: Resource, record: Record, options: DeleteOptions) -> None:
    """Refuse to delete another object than the one that is meant."""
    if options.uid and options.uid != record.uid:
        why = (
            f"Precondition failed: UID in precondition: {options.uid}, UID in object meta: "
            f"{record.uid}"
        )
        raise refusal.conflict(resource.plural, resource.group, record.name, why)
    if options.resource_version and options.resource_version != str(record.revision):
        why = (
            f"Precondition failed: ResourceVersion in precondition: {options.resource_version}, "
            f"ResourceVersion in object meta: {record.revision}"
        )
        raise refusal.conflict(resource.plural, resource.group, record.name, why)


def plan_deletion(
    view: View, resource: Resource, record: Record, options: DeleteOptions
) -> Deletion:
    """Mark or remove an object on the view."""
    document = documents.decode(record)
    document["metadata"].pop("resourceVersion", None)
    if resource.storage == "core/namespaces":
        planned = _end_namespace(document)
    else:
        planned = _end(resource, document, options)
    if planned.gone:
        beside, guards = released(view, resource, document)
        view.plan(resource.storage, record.key, None, beside=beside, guards=guards)
    elif planned.changed:
        view.plan(resource.storage, record.key, documents.encode(document))
    return planned


def _end_namespace(document: Document) -> Deletion:
    metadata, spec = document["metadata"], document.get("spec") or {}
    if not spec.get("finalizers") and not metadata.get("finalizers"):
        return Deletion(document, gone=True)
    if "deletionTimestamp" in metadata:
        return Deletion(document, gone=False, changed=False)
    metadata["deletionTimestamp"] = documents.now()
    document.setdefault("status", {})["phase"] = "Terminating"
    return Deletion(document, gone=False)


def _end(resource: Resource, document: Document, options: DeleteOptions) -> Deletion:
    metadata = document["metadata"]
    before = (metadata.get("deletionTimestamp"), list(metadata.get("finalizers") or ()))
    finalizers = _finalizers(resource, metadata, options)
    grace = _grace(document, options) if resource.storage == "core/pods" else 0
    if not finalizers and grace == 0:
        _mark(metadata, 0)
        return Deletion(document, gone=True)
    if "deletionTimestamp" in metadata:
        shortened = grace < int(metadata.get("deletionGracePeriodSeconds") or 0)
        if shortened:
            _mark(metadata, grace)
        changed = shortened or finalizers != before[1]
        return Deletion(document, gone=False, changed=changed)
    _mark(metadata, grace)
    if strategy.has_generation(resource) and metadata.get("generation"):
        metadata["generation"] += 1
    return Deletion(document, gone=False)


def _mark(metadata: Document, grace: int) -> None:
    metadata["deletionTimestamp"] = documents.timestamp(time.time() + grace)
    metadata["deletionGracePeriodSeconds"] = grace


def _finalizers(resource: Resource, metadata: Document, options: DeleteOptions) -> list[str]:
    kept = [f for f in metadata.get("finalizers") or () if f not in (FOREGROUND, ORPHAN)]
    own = [f for f in metadata.get("finalizers") or () if f in (FOREGROUND, ORPHAN)]
    if options.propagation not in _POLICIES:
        raise refusal.bad_request(
            f'invalid propagationPolicy "{options.propagation}": must be Foreground, Background '
            "or Orphan"
        )
    wanted = _POLICIES[options.propagation]
    if wanted:
        own = [wanted]
    elif options.propagation == "Background":
        own = []
    elif not own and resource.storage in strategy.ORPHANS_BY_DEFAULT:
        own = [ORPHAN]
    finalizers = kept + own
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)
    return finalizers


def _grace(pod: Document, options: DeleteOptions) -> int:
    spec = pod.get("spec", {})
    grace = options.grace_seconds
    if grace is None:
        grace = spec.get("terminationGracePeriodSeconds", _DEFAULT_GRACE)
    if not spec.get("nodeName") or (pod.get("status") or {}).get("phase") in _DONE:
        grace = 0
    return max(0, int(grace))


def ends_by_update(new: Document, old: Document) -> bool:
    """Whether an update takes away the last thing that kept a deleted object."""
    metadata = new["metadata"]
    if "deletionTimestamp" not in old["metadata"] or metadata.get("finalizers"):
        return False
    if new["kind"] == "Namespace" and new["apiVersion"] == "v1":
        return not (new.get("spec") or {}).get("finalizers")
    return int(metadata.get("deletionGracePeriodSeconds") or 0) == 0


def released(
    view: View, resource: Resource, document: Document
) -> tuple[Sequence[Operation], Sequence[Compare]]:
    """Operations that free what the object held (addresses and ports of services)."""
    if resource.storage != "core/services":
        return (), ()
    keys = held_keys(document)
    return tuple(Operation(kind=OperationKind.DELETE, key=key) for key in keys), ()
