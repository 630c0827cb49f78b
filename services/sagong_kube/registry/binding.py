"""Binding of pods to nodes."""

from __future__ import annotations

from collections.abc import Mapping

from sagong_kube import refusal
from sagong_kube.registry import document as documents
from sagong_kube.registry.document import Document

__all__ = ["bind", "set_condition"]


def bind(
    pod: Document,
    node: str,
    *,
    uid: str = "",
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Document:
    """Assign a pod to a node, once."""
    metadata, spec = pod["metadata"], pod["spec"]
    name = metadata["name"]
    if uid and uid != metadata["uid"]:
        why = (
            f"Precondition failed: UID in precondition: {uid}, UID in object meta: "
            f"{metadata['uid']}"
        )
        raise refusal.conflict("pods/binding", "", name, why)
    if "deletionTimestamp" in metadata:
        why = f"pod {name} is being deleted, cannot be assigned to a host"
        raise refusal.conflict("pods/binding", "", name, why)
    if spec.get("nodeName"):
        why = f'pod {name} is already assigned to node "{spec["nodeName"]}"'
        raise refusal.conflict("pods/binding", "", name, why)
    if spec.get("schedulingGates"):
        why = f"pod {name} has non-empty .spec.schedulingGates"
        raise refusal.conflict("pods/binding", "", name, why)
    spec["nodeName"] = node
    for field, added in (("labels", labels), ("annotations", annotations)):
        if added:
            metadata[field] = {**(metadata.get(field) or {}), **added}
    set_condition(pod, {"type": "PodScheduled", "status": "True"})
    return pod


def set_condition(document: Document, condition: Document) -> None:
    """Put a condition among the status's; its transition time changes only with its status."""
    status = document.setdefault("status", {})
    conditions = list(status.get("conditions") or ())
    old = next((c for c in conditions if c["type"] == condition["type"]), None)
    stamp = documents.now()
    if old is not None and old.get("status") == condition["status"]:
        stamp = old.get("lastTransitionTime") or stamp
    fresh = {"lastProbeTime": None, **condition, "lastTransitionTime": stamp}
    if old is None:
        conditions.append(fresh)
    else:
        conditions[conditions.index(old)] = fresh
    status["conditions"] = conditions
