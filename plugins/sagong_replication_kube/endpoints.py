"""Endpoints of services: the old form, one object with all addresses by sets of ports.

Source: https://kubernetes.io/docs/concepts/services-networking/service/#endpoints
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sagong_replication_kube.backends import Backend, Port, backends, families
from sagong_replication_kube.item import Document, Item
from sagong_replication_kube.slices import reconcile_slices
from sagong_replication_kube.work import Work

__all__ = ["reconcile"]

ENDPOINTS: Final = "v1/endpoints"
HEADLESS: Final = "service.kubernetes.io/headless"
MANAGED_BY: Final = "endpoints.kubernetes.io/managed-by"
OVER_CAPACITY: Final = "endpoints.kubernetes.io/over-capacity"
MOST_ADDRESSES: Final = 1000


def reconcile(work: Work, service: Item) -> None:
    """Endpoints and slices of a service with a selector; others are somebody else's."""
    document = service.document()
    spec = document["spec"]
    if service.deleting or not spec.get("selector") or spec.get("type") == "ExternalName":
        return
    found = backends(work, service, document)
    _reconcile_endpoints(work, service, document, found)
    reconcile_slices(work, service, document, found)


def _reconcile_endpoints(
    work: Work, service: Item, document: Document, found: Sequence[Backend]
) -> None:
    subsets, cut = _subsets(found, families(document)[0])
    labels = {**service.labels, MANAGED_BY: "endpoint-controller"}
    if document["spec"].get("clusterIP") == "None":
        labels[HEADLESS] = ""
    present = work.world.get(ENDPOINTS, service.key)
    wanted: Document = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": service.meta.name,
            "namespace": service.meta.namespace,
            "labels": labels,
        },
    }
    if subsets:
        wanted["subsets"] = subsets
    if cut:
        wanted["metadata"]["annotations"] = {OVER_CAPACITY: "truncated"}
    if present is None:
        work.create(ENDPOINTS, wanted)
        return
    old = present.document()
    if present.labels != labels or (old.get("subsets") or []) != subsets:
        wanted["metadata"] = {
            **{k: v for k, v in old["metadata"].items() if k != "managedFields"},
            **wanted["metadata"],
        }
        work.update(present, wanted)


def _subsets(found: Sequence[Backend], family: str) -> tuple[list[Document], bool]:
    """Addresses with the same ports stand together; an address is either ready or not."""
    parts: dict[tuple[Port, ...], tuple[list[Document], list[Document]]] = {}
    published = [b for b in found if b.address(family) and (not b.terminating or b.ready)]
    for backend in published[:MOST_ADDRESSES]:
        part = parts.setdefault(tuple(sorted(backend.ports)), ([], []))
        part[0 if backend.ready else 1].append(_address(backend, family))
    subsets = []
    for ports, (ready, waiting) in sorted(parts.items()):
        subset: Document = {}
        if ready:
            subset["addresses"] = sorted(ready, key=lambda a: a["ip"])
        if waiting:
            subset["notReadyAddresses"] = sorted(waiting, key=lambda a: a["ip"])
        if ports:
            subset["ports"] = [_port(port) for port in ports]
        subsets.append(subset)
    return subsets, len(published) > MOST_ADDRESSES


def _address(backend: Backend, family: str) -> Document:
    pod = backend.pod
    address: Document = {"ip": backend.address(family)}
    if backend.hostname:
        address["hostname"] = backend.hostname
    if pod.spec.node_name:
        address["nodeName"] = pod.spec.node_name
    address["targetRef"] = {
        "kind": "Pod",
        "name": pod.meta.name,
        "namespace": pod.meta.namespace,
        "uid": pod.uid,
    }
    return address


def _port(port: Port) -> Document:
    found: Document = {"name": port.name} if port.name else {}
    found |= {"port": port.number, "protocol": port.protocol}
    if port.app:
        found["appProtocol"] = port.app
    return found
