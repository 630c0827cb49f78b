"""Persistent volume claims: the default class, protection while in use, growing only where allowed."""

from __future__ import annotations

import msgspec

from sagong.model.quantity import nano
from sagong_kube import refusal
from sagong_kube.registry.document import Document
from sagong_kube.registry.review import CREATE, UPDATE, Review
from sagong_kube.storage.collection import Selection

__all__ = ["check_growth", "default_class", "default_ingress_class", "protect"]

_DEFAULT = "storageclass.kubernetes.io/is-default-class"
_INGRESS_DEFAULT = "ingressclass.kubernetes.io/is-default-class"
_CLAIMS = "core/persistentvolumeclaims"
_FINALIZERS = {
    _CLAIMS: "kubernetes.io/pvc-protection",
    "core/persistentvolumes": "kubernetes.io/pv-protection",
}


def _default_of(review: Review, storage: str, mark: str) -> str:
    found: list[tuple[str, str]] = []
    for record in review.view.select(storage, Selection()):
        metadata = msgspec.json.decode(record.body)["metadata"]
        if (metadata.get("annotations") or {}).get(mark) == "true":
            found.append((metadata.get("creationTimestamp", ""), record.name))
    # The newest one wins; of those made in the same second the first by name.
    found.sort(key=lambda pair: pair[1])
    found.sort(key=lambda pair: pair[0], reverse=True)
    return found[0][1] if found else ""


def default_class(review: Review) -> None:
    """A claim that names no class gets the default one."""
    if review.operation != CREATE or review.storage != _CLAIMS or review.new is None:
        return
    spec = review.new["spec"]
    annotations = review.new["metadata"].get("annotations") or {}
    if "storageClassName" in spec or "volume.beta.kubernetes.io/storage-class" in annotations:
        return
    name = _default_of(review, "storage.k8s.io/storageclasses", _DEFAULT)
    if name:
        spec["storageClassName"] = name


def default_ingress_class(review: Review) -> None:
    """An ingress that names no class gets the default one."""
    if review.operation != CREATE or review.storage != "networking.k8s.io/ingresses":
        return
    assert review.new is not None
    annotations = review.new["metadata"].get("annotations") or {}
    spec = review.new.setdefault("spec", {})
    if spec.get("ingressClassName") or "kubernetes.io/ingress.class" in annotations:
        return
    name = _default_of(review, "networking.k8s.io/ingressclasses", _INGRESS_DEFAULT)
    if name:
        spec["ingressClassName"] = name


def protect(review: Review) -> None:
    """Claims and volumes stay until nothing uses them."""
    finalizer = _FINALIZERS.get(review.storage)
    if finalizer is None or review.operation != CREATE or review.new is None:
        return
    finalizers = review.new["metadata"].setdefault("finalizers", [])
    if finalizer not in finalizers:
        finalizers.append(finalizer)


def check_growth(review: Review) -> None:
    """Only claims of classes that allow it grow."""
    if review.operation != UPDATE or review.storage != _CLAIMS or review.subresource:
        return
    assert review.new is not None and review.old is not None
    new, old = _asked(review.new), _asked(review.old)
    if new is None or old is None or nano(new) <= nano(old):
        return
    name = review.new["spec"].get("storageClassName") or ""
    record = review.view.record("storage.k8s.io/storageclasses", name)
    if record is None or not msgspec.json.decode(record.body).get("allowVolumeExpansion"):
        why = (
            "only dynamically provisioned pvc can be resized and the storageclass that "
            "provisions the pvc must support resize"
        )
        raise refusal.forbidden("persistentvolumeclaims", "", review.name, why)


def _asked(claim: Document) -> str | None:
    requests = (claim["spec"].get("resources") or {}).get("requests") or {}
    return requests.get("storage")
