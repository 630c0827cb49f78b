"""Node restriction: a node's identity writes only its own node, its pods, and what these need."""

from __future__ import annotations

from typing import Any

import msgspec

from sagong_kube import refusal
from sagong_kube.registry.document import Document
from sagong_kube.registry.review import CREATE, DELETE, UPDATE, Review

__all__ = ["restrict"]

_ISOLATION = "node-restriction.kubernetes.io/"
_MIRROR = "kubernetes.io/config.mirror"
_LEASES = "kube-node-lease"


def restrict(review: Review) -> None:
    """Refuse what a node may not do though its role allows the kind."""
    node = review.actor.node
    if not node:
        return
    step = {
        "core/nodes": _node,
        "core/pods": _pod,
        "coordination.k8s.io/leases": _lease,
        "storage.k8s.io/csinodes": _named,
        "core/serviceaccounts": _token,
    }.get(review.storage)
    if step is not None:
        step(review, node)


def _refuse(review: Review, why: str) -> None:
    raise refusal.forbidden(review.resource.plural, review.resource.group, review.name, why)


def _named(review: Review, node: str) -> None:
    if review.name != node:
        what = review.resource.plural
        _refuse(review, f'node "{node}" is not allowed to modify {what} of node "{review.name}"')


def _node(review: Review, node: str) -> None:
    if review.name != node:
        _refuse(review, f'node "{node}" is not allowed to modify node "{review.name}"')
    if review.operation == DELETE:
        _refuse(review, f'node "{node}" is not allowed to delete itself')
    if review.operation == UPDATE and review.new is not None and review.old is not None:
        if _taints(review.new) != _taints(review.old):
            _refuse(review, f'node "{node}" is not allowed to modify taints')
        changed = _changed(_labels(review.new), _labels(review.old))
        isolated = sorted(name for name in changed if _ISOLATION in name)
        if isolated:
            _refuse(review, f"is not allowed to modify labels: {', '.join(isolated)}")
    elif review.new is not None:
        isolated = sorted(name for name in _labels(review.new) if _ISOLATION in name)
        if isolated:
            _refuse(review, f"is not allowed to set the following labels: {', '.join(isolated)}")


def _taints(node: Document) -> Any:
    return (node.get("spec") or {}).get("taints") or []


def _labels(document: Document) -> dict[str, str]:
    return document["metadata"].get("labels") or {}


def _changed(new: dict[str, str], old: dict[str, str]) -> set[str]:
    return {name for name in new.keys() | old.keys() if new.get(name) != old.get(name)}


def _pod(review: Review, node: str) -> None:
    if review.operation == CREATE and not review.subresource:
        assert review.new is not None
        if _MIRROR not in (review.new["metadata"].get("annotations") or {}):
            _refuse(
                review,
                f'pod does not have "{_MIRROR}" annotation, node "{node}" can only create mirror pods',
            )
        if review.new["spec"].get("nodeName") != node:
            _refuse(review, f'node "{node}" can only create pods with spec.nodeName set to itself')
        return
    pod = review.old
    if review.operation == UPDATE and review.subresource not in ("status", ""):
        _refuse(review, f'node "{node}" cannot update pod {review.subresource}')
    if pod is not None and (pod.get("spec") or {}).get("nodeName") != node:
        verb = "delete" if review.operation == DELETE else "update status for"
        _refuse(review, f'node "{node}" can only {verb} pods with spec.nodeName set to itself')


def _lease(review: Review, node: str) -> None:
    if review.namespace == _LEASES and review.name != node:
        _refuse(review, f'can only access lease named "{node}" in the "{_LEASES}" namespace')


def _token(review: Review, node: str) -> None:
    if review.subresource != "token" or review.new is None:
        return
    bound = (review.new.get("spec") or {}).get("boundObjectRef") or {}
    if bound.get("kind") != "Pod":
        _refuse(review, "node requested token not bound to a pod")
    record = review.view.record("core/pods", f"{review.namespace}/{bound.get('name')}")
    if record is None or record.uid != bound.get("uid"):
        _refuse(review, "node requested token bound to a pod that does not exist")
    else:
        pod = msgspec.json.decode(record.body)
        if pod["spec"].get("nodeName") != node:
            _refuse(review, "node requested token bound to a pod scheduled on a different node")
