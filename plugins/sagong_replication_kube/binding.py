"""Claims and volumes: which volume a claim gets, or has made for it, and what becomes of both.

Source: https://kubernetes.io/docs/concepts/storage/persistent-volumes/#lifecycle-of-a-volume-and-claim
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sagong.model.quantity import value
from sagong.model.selectors import from_object
from sagong_replication_kube.item import Document, Item
from sagong_replication_kube.pods import PODS
from sagong_replication_kube.work import Work

__all__ = ["CLAIMS", "VOLUMES", "reconcile_claim", "reconcile_volume"]

CLAIMS: Final = "v1/persistentvolumeclaims"
VOLUMES: Final = "v1/persistentvolumes"
CLASSES: Final = "storage.k8s.io/v1/storageclasses"
# `NAME.sagong.io` is the instance NAME of slot `volume`, `local` its default one.
_DOMAIN: Final = ".sagong.io"
_COMPLETED: Final = "pv.kubernetes.io/bind-completed"
_BY_CONTROLLER: Final = "pv.kubernetes.io/bound-by-controller"
_PROVISIONED_BY: Final = "pv.kubernetes.io/provisioned-by"
_SELECTED_NODE: Final = "volume.kubernetes.io/selected-node"
_PROVISIONER: Final = "volume.kubernetes.io/storage-provisioner"
_CLAIM_FINALIZER: Final = "kubernetes.io/pvc-protection"
_VOLUME_FINALIZER: Final = "kubernetes.io/pv-protection"


def reconcile_claim(work: Work, item: Item) -> None:
    """One step of a claim: bound, bound soon, made, lost, or free to go."""
    document = item.document()
    if item.deleting:
        if not _in_use(work, item):
            _unhold(work, item, _CLAIM_FINALIZER)
        return
    if document["spec"].get("volumeName"):
        _follow(work, item, document)
    elif (document.get("status") or {}).get("phase") != "Lost":
        _seek(work, item, document)
    work.writes += work.statuses  # pods wait for it
    work.statuses = []


def _in_use(work: Work, item: Item) -> bool:
    for pod in work.world.within(PODS, item.meta.namespace):
        ended = pod.status.phase in ("Succeeded", "Failed")
        if not ended and item.meta.name in pod.spec.claims(pod.meta.name):
            return True
    return False


def _unhold(work: Work, item: Item, finalizer: str) -> None:
    finalizers = item.meta.finalizers or ()
    if finalizer in finalizers:
        kept = [f for f in finalizers if f != finalizer]
        work.patch(item, {"metadata": {"finalizers": kept or None}})


def _follow(work: Work, item: Item, document: Document) -> None:
    """A claim that names its volume: complete the binding, or say that it is lost."""
    volume = work.world.get(VOLUMES, ("", document["spec"]["volumeName"]))
    status = {**(document.get("status") or {})}
    if volume is None:
        if _COMPLETED in item.annotations:
            work.status(item, {**status, "phase": "Lost"})
        return
    found = volume.document()
    holder = found["spec"].get("claimRef") or {}
    if holder and not _holds(holder, item):
        if _COMPLETED in item.annotations:
            work.status(item, {**status, "phase": "Lost"})
        return
    _bind(work, item, document, volume, found)


def _holds(holder: Document, item: Item) -> bool:
    """Whether a volume's reference means this claim; one without uid is a promise."""
    same = (holder.get("namespace"), holder.get("name")) == item.key
    return same and holder.get("uid") in (None, "", item.uid)


def _bind(work: Work, item: Item, document: Document, volume: Item, found: Document) -> None:
    """Let both name each other; then say that they are bound."""
    holder = found["spec"].get("claimRef") or {}
    if holder.get("uid") != item.uid:
        patch: Document = {"spec": {"claimRef": _reference(item)}}
        if not holder:
            patch["metadata"] = {"annotations": {_BY_CONTROLLER: "yes"}}
        work.patch(volume, patch)
    wanted = {_COMPLETED: "yes"}
    if document["spec"].get("volumeName") != volume.meta.name:
        wanted[_BY_CONTROLLER] = "yes"
    if not wanted.items() <= item.annotations.items():
        name = {"volumeName": volume.meta.name}
        work.patch(item, {"metadata": {"annotations": wanted}, "spec": name})
    if work.writes:
        return
    status = {
        **(document.get("status") or {}),
        "phase": "Bound",
        "accessModes": found["spec"].get("accessModes") or [],
        "capacity": found["spec"].get("capacity") or {},
    }
    work.status(item, status)


def _reference(item: Item) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": item.meta.namespace,
        "name": item.meta.name,
        "uid": item.uid,
    }


def _seek(work: Work, item: Item, document: Document) -> None:
    """A claim without a volume: one promised to it, the smallest that suits, or a new one."""
    promised = [v for v in _free(work, item) if _promised(v, item)]
    name = document["spec"].get("storageClassName") or ""
    class_ = work.world.get(CLASSES, ("", name))
    kind = class_.document() if class_ is not None else {}
    waits = kind.get("volumeBindingMode") == "WaitForFirstConsumer"
    if promised:
        _bind(work, item, document, promised[0], promised[0].document())
        return
    node = item.annotations.get(_SELECTED_NODE, "")
    if waits and not node:
        return  # the scheduler chooses a node for the first pod that wants it
    suiting = _suiting(work, item, document) if not waits else []
    if suiting:
        _bind(work, item, document, suiting[0], suiting[0].document())
    elif _ours(kind.get("provisioner", "")):
        _provision(work, item, document, kind, node)
    elif kind.get("provisioner") and item.annotations.get(_PROVISIONER) != kind["provisioner"]:
        annotations = {_PROVISIONER: kind["provisioner"]}
        work.patch(item, {"metadata": {"annotations": annotations}})
        said = f"Waiting for a volume to be created by the external provisioner '{kind['provisioner']}'"
        work.event(item, "Normal", "ExternalProvisioning", said)


def _ours(provisioner: str) -> bool:
    """`local.sagong.io`, or with the name of another instance of slot `volume`."""
    return provisioner.endswith(_DOMAIN)


def _free(work: Work, item: Item) -> Iterable[Item]:
    """Volumes that nobody has, or that are promised to just this claim."""
    for volume in sorted(work.world.all(VOLUMES), key=lambda one: one.meta.name):
        holder = volume.document()["spec"].get("claimRef") or {}
        if not volume.deleting and (not holder or _holds(holder, item)):
            yield volume


def _promised(volume: Item, item: Item) -> bool:
    holder = volume.document()["spec"].get("claimRef") or {}
    return bool(holder) and _holds(holder, item)


def _suiting(work: Work, item: Item, document: Document) -> list[Item]:
    """Free volumes that suit, the smallest first."""
    wants = document["spec"]
    asked = value(((wants.get("resources") or {}).get("requests") or {}).get("storage", 0))
    said = wants.get("selector")
    selector = from_object({} if said is None else said)
    found: list[tuple[int, str, Item]] = []
    for volume in _free(work, item):
        offers: dict[str, Any] = volume.document()["spec"]
        size = value((offers.get("capacity") or {}).get("storage", 0))
        if (
            size >= asked
            and selector.matches(volume.labels)
            and (offers.get("storageClassName") or "") == (wants.get("storageClassName") or "")
            and (offers.get("volumeMode") or "Filesystem")
            == (wants.get("volumeMode") or "Filesystem")
            and set(wants.get("accessModes") or ()) <= set(offers.get("accessModes") or ())
        ):
            found.append((size, volume.meta.name, volume))
    return [volume for _, _, volume in sorted(found, key=lambda one: one[:2])]


def _provision(work: Work, item: Item, document: Document, kind: Document, node: str) -> None:
    """A volume of the node's own; slot `volume` makes it there when it is first used."""
    spec, name = document["spec"], f"pvc-{item.uid}"
    if work.world.get(VOLUMES, ("", name)) is not None:
        return
    volume: Document = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {_PROVISIONED_BY: kind["provisioner"]}},
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec.get("accessModes") or [],
            "claimRef": _reference(item),
            "persistentVolumeReclaimPolicy": kind.get("reclaimPolicy") or "Delete",
            "storageClassName": spec.get("storageClassName") or "",
            "volumeMode": spec.get("volumeMode") or "Filesystem",
            # An empty option: a plain directory, made when it is missing.
            "csi": {
                "driver": kind["provisioner"],
                "volumeHandle": name,
                "volumeAttributes": {"o": "", **(kind.get("parameters") or {})},
            },
        },
    }
    if kind.get("mountOptions"):
        volume["spec"]["mountOptions"] = kind["mountOptions"]
    if node:
        rule = {"key": "kubernetes.io/hostname", "operator": "In", "values": [_host(work, node)]}
        terms = {"nodeSelectorTerms": [{"matchExpressions": [rule]}]}
        volume["spec"]["nodeAffinity"] = {"required": terms}
    work.create(VOLUMES, volume)
    work.event(item, "Normal", "ProvisioningSucceeded", f"Successfully provisioned volume {name}")


def _host(work: Work, node: str) -> str:
    found = work.world.get("v1/nodes", ("", node))
    return found.labels.get("kubernetes.io/hostname", node) if found is not None else node


def reconcile_volume(work: Work, item: Item) -> None:
    """A volume's phase, and its end when its claim has ended."""
    document = item.document()
    holder = document["spec"].get("claimRef") or {}
    claim = work.world.get(CLAIMS, (holder.get("namespace", ""), holder.get("name", "")))
    held = claim is not None and bool(holder.get("uid")) and claim.uid == holder["uid"]
    if item.deleting:
        if not held:
            _unhold(work, item, _VOLUME_FINALIZER)
        return
    status = {**(document.get("status") or {})}
    if not holder.get("uid"):
        status["phase"] = "Available"
    elif held:
        named = claim is not None and claim.document()["spec"].get("volumeName") == item.meta.name
        status["phase"] = "Bound" if named else status.get("phase", "Pending")
    else:
        status["phase"] = "Released"
        ours = _ours(item.annotations.get(_PROVISIONED_BY, ""))
        if ours and document["spec"].get("persistentVolumeReclaimPolicy") == "Delete":
            work.delete(item)
    work.status(item, status)
    work.writes += work.statuses
    work.statuses = []
