"""Mirrors: EndpointSlices of Endpoints that somebody wrote by hand for a service without selector.

Source: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/#mirroring
"""

from __future__ import annotations

from typing import Final

from sagong_replication_kube.backends import Port
from sagong_replication_kube.item import Document, Item
from sagong_replication_kube.slices import SERVICE_NAME, SLICES, slice_changes
from sagong_replication_kube.work import Work

__all__ = ["reconcile"]

MANAGED_BY: Final = "endpointslice.kubernetes.io/managed-by"
MIRROR: Final = "endpointslicemirroring-controller.k8s.io"
SKIP: Final = "endpointslice.kubernetes.io/skip-mirror"
LEADER: Final = "control-plane.alpha.kubernetes.io/leader"
MOST_ADDRESSES: Final = 1000


def reconcile(work: Work, item: Item) -> None:
    """Bring the slices of one Endpoints object to its addresses."""
    service = work.world.get("v1/services", item.key)
    wanted: dict[tuple[str, tuple[Port, ...]], list[Document]] = {}
    if service is not None and _mirrored(item, service):
        wanted = _topics(item.document())
    elif not _has_slices(work, item):
        return
    labels = {**item.labels, SERVICE_NAME: item.meta.name, MANAGED_BY: MIRROR}
    slice_changes(work, item, MIRROR, labels, wanted)


def _mirrored(item: Item, service: Item) -> bool:
    skipped = item.labels.get(SKIP) == "true" or LEADER in item.annotations
    return not (skipped or item.deleting or service.document()["spec"].get("selector"))


def _has_slices(work: Work, item: Item) -> bool:
    for one in work.world.within(SLICES, item.meta.namespace):
        if (one.labels.get(SERVICE_NAME), one.labels.get(MANAGED_BY)) == (item.meta.name, MIRROR):
            return True
    return False


def _topics(document: Document) -> dict[tuple[str, tuple[Port, ...]], list[Document]]:
    wanted: dict[tuple[str, tuple[Port, ...]], list[Document]] = {}
    for subset in document.get("subsets") or ():
        ports = tuple(
            sorted(
                Port(
                    port.get("name") or "",
                    port["port"],
                    port.get("protocol") or "TCP",
                    port.get("appProtocol") or "",
                )
                for port in subset.get("ports") or ()
            )
        )
        for key, ready in (("addresses", True), ("notReadyAddresses", False)):
            for address in (subset.get(key) or ())[:MOST_ADDRESSES]:
                family = "IPv6" if ":" in address["ip"] else "IPv4"
                endpoints = wanted.setdefault((family, ports), [])
                endpoints.append(_endpoint(address, ready=ready))
    return wanted


def _endpoint(address: Document, *, ready: bool) -> Document:
    endpoint: Document = {"addresses": [address["ip"]], "conditions": {"ready": ready}}
    for key in ("hostname", "nodeName", "targetRef"):
        if address.get(key):
            endpoint[key] = address[key]
    return endpoint
