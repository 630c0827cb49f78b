"""What every namespace has: the service account `default` and the ConfigMap `kube-root-ca.crt`."""

from __future__ import annotations

from typing import Final

from sagong_replication_kube.item import Document, Item
from sagong_replication_kube.work import Work

__all__ = ["ROOT_CA", "reconcile"]

ACCOUNTS: Final = "v1/serviceaccounts"
CONFIG_MAPS: Final = "v1/configmaps"
ROOT_CA: Final = "kube-root-ca.crt"
SYSTEM: Final = "kube-system"
_SAID: Final = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal "
    "endpoints such as the internal service IP or kubernetes.default.svc. No other usage is "
    "guaranteed across distributions of Kubernetes clusters."
)


def reconcile(work: Work, item: Item) -> None:
    """See that a namespace has both."""
    if item.deleting:
        return
    name = item.meta.name
    if work.world.get(ACCOUNTS, (name, "default")) is None:
        work.create(ACCOUNTS, _object("ServiceAccount", "default", name))
    source = work.world.get(CONFIG_MAPS, (SYSTEM, ROOT_CA))
    if name == SYSTEM or source is None:
        return
    data = source.document().get("data")
    present = work.world.get(CONFIG_MAPS, (name, ROOT_CA))
    if present is None:
        wanted = _object("ConfigMap", ROOT_CA, name)
        wanted["metadata"]["annotations"] = {"kubernetes.io/description": _SAID}
        work.create(CONFIG_MAPS, {**wanted, "data": data})
    elif present.document().get("data") != data and not present.deleting:
        work.patch(present, {"data": data})


def _object(kind: str, name: str, namespace: str) -> Document:
    return {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
    }
