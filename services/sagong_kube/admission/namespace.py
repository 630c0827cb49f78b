"""Namespaces must exist to create in, and take nothing new while they end."""

from __future__ import annotations

import msgspec

from sagong_kube import refusal
from sagong_kube.refusal import Cause
from sagong_kube.registry.review import CREATE, DELETE, Review

__all__ = ["exists", "is_deletable"]

_IMMORTAL = frozenset(("default", "kube-system", "kube-public"))
_TERMINATING_EXEMPT = frozenset(("core/events",))


def exists(review: Review) -> None:
    """Refuse creation in a namespace that is not there or is being terminated."""
    if review.operation != CREATE or not review.resource.namespaced or review.subresource:
        return
    namespace = review.view.record("core/namespaces", review.namespace)
    if namespace is None:
        raise refusal.not_found("namespaces", "", review.namespace)
    if namespace.deleting and review.storage not in _TERMINATING_EXEMPT:
        _refuse_terminating(review, _since(namespace.body))


class _Metadata(msgspec.Struct):
    deletionTimestamp: str = ""


class _Namespace(msgspec.Struct):
    metadata: _Metadata


def _since(body: bytes) -> str:
    return msgspec.json.decode(body, type=_Namespace).metadata.deletionTimestamp


def _refuse_terminating(review: Review, since: str) -> None:
    why = (
        f"unable to create new content in namespace {review.namespace} because it is being "
        "terminated"
    )
    cause = Cause(
        "NamespaceTerminating",
        f"namespace {review.namespace} is being terminated",
        "metadata.namespace",
    )
    raise refusal.forbidden(
        review.resource.plural, review.resource.group, review.name, why, (cause,)
    )


def is_deletable(review: Review) -> None:
    """The namespaces that everything rests on stay."""
    if (
        review.operation == DELETE
        and review.storage == "core/namespaces"
        and review.name in _IMMORTAL
    ):
        raise refusal.forbidden("namespaces", "", review.name, "this namespace may not be deleted")
