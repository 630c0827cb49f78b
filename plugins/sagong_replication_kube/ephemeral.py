"""Claims of generic ephemeral volumes: made for a pod, owned by it.

Source: https://kubernetes.io/docs/concepts/storage/ephemeral-volumes/#generic-ephemeral-volumes
"""

from __future__ import annotations

import msgspec

from sagong_replication_kube.binding import CLAIMS
from sagong_replication_kube.item import Document, Item
from sagong_replication_kube.ownership import controller_reference
from sagong_replication_kube.work import Work

__all__ = ["reconcile"]


def reconcile(work: Work, pod: Item) -> None:
    """Make the claims that the pod's volumes describe."""
    if pod.deleting or pod.status.phase in ("Succeeded", "Failed"):
        return
    for volume in pod.spec.volumes or ():
        if volume.ephemeral is None:
            continue
        name = f"{pod.meta.name}-{volume.name}"
        present = work.world.get(CLAIMS, (pod.meta.namespace, name))
        if present is None:
            template = msgspec.json.decode(volume.ephemeral["volumeClaimTemplate"])
            work.create(CLAIMS, _claim(pod, name, template))
        elif not present.owned_by(pod.uid):
            said = f"PVC {pod.meta.namespace}/{name} was not created for the pod"
            work.event(pod, "Warning", "FailedBinding", said)


def _claim(pod: Item, name: str, template: Document) -> Document:
    meta = template.get("metadata") or {}
    kept = {key: meta[key] for key in ("labels", "annotations") if meta.get(key)}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name,
            "namespace": pod.meta.namespace,
            **kept,
            "ownerReferences": [controller_reference(pod)],
        },
        "spec": template.get("spec") or {},
    }
