"""EndpointSlices: a service's backends in pieces of at most a hundred, so that changes are small.

Source: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from sagong.model.names import generated_name
from sagong_replication_kube.backends import Backend, Port, families
from sagong_replication_kube.item import Document, Item
from sagong_replication_kube.ownership import controller_reference
from sagong_replication_kube.work import Work

__all__ = ["MANAGER", "SERVICE_NAME", "SLICES", "reconcile_slices", "slice_changes"]

SLICES: Final = "discovery.k8s.io/v1/endpointslices"
SERVICE_NAME: Final = "kubernetes.io/service-name"
MANAGED_BY: Final = "endpointslice.kubernetes.io/managed-by"
MANAGER: Final = "endpointslice-controller.k8s.io"
HEADLESS: Final = "service.kubernetes.io/headless"
MOST_ENDPOINTS: Final = 100

# What a slice is about: an address family and a set of ports.
Topic = tuple[str, tuple[Port, ...]]


def reconcile_slices(
    work: Work, service: Item, document: Document, found: Sequence[Backend]
) -> None:
    """Bring the service's slices to its backends, changing as few of them as possible."""
    labels = {**service.labels, SERVICE_NAME: service.meta.name, MANAGED_BY: MANAGER}
    if document["spec"].get("clusterIP") == "None":
        labels[HEADLESS] = ""
    wanted: dict[Topic, list[Document]] = {}
    for family in families(document):
        for backend in found:
            if backend.address(family):
                topic = (family, tuple(sorted(backend.ports)))
                wanted.setdefault(topic, []).append(_endpoint(backend, family))
    if not wanted:  # a service without backends still has a slice that says so
        wanted = {(family, ()): [] for family in families(document)}
    slice_changes(work, service, MANAGER, labels, wanted)


def slice_changes(
    work: Work,
    owner: Item,
    manager: str,
    labels: dict[str, str],
    wanted: dict[Topic, list[Document]],
) -> None:
    """Create, change and delete the slices of one manager for a service."""
    slices: dict[Topic, list[Item]] = {}
    for known in _present(work, owner, manager):
        slices.setdefault(_topic(known.document()), []).append(known)
    prefix = f"{owner.meta.name}-"
    for topic, endpoints in wanted.items():
        present = slices.pop(topic, [])
        for item, part in _dealt(present, endpoints):
            if item is None:
                name = generated_name(prefix, work.world.chance)
                work.create(SLICES, _slice(owner, name, labels, topic, part))
            elif not part and len(present) > 1:
                work.delete(item)
            elif not _says(item, labels, part):
                document = _slice(owner, item.meta.name, labels, topic, part)
                work.update(item, document)
    for one in (one for rest in slices.values() for one in rest):
        work.delete(one)


def _present(work: Work, owner: Item, manager: str) -> Iterable[Item]:
    for item in work.world.within(SLICES, owner.meta.namespace):
        labels = item.labels
        theirs = labels.get(SERVICE_NAME) == owner.meta.name and not item.deleting
        if theirs and labels.get(MANAGED_BY) == manager:
            yield item


def _topic(document: Document) -> Topic:
    ports = tuple(
        Port(
            port.get("name") or "",
            port.get("port") or 0,
            port.get("protocol") or "TCP",
            port.get("appProtocol") or "",
        )
        for port in document.get("ports") or ()
    )
    return (document["addressType"], tuple(sorted(ports)))


def _dealt(
    present: Sequence[Item], endpoints: Sequence[Document]
) -> list[tuple[Item | None, list[Document]]]:
    """Endpoints stay in the slice where they are; new ones fill it up, then further slices."""
    by_address = {endpoint["addresses"][0]: endpoint for endpoint in endpoints}
    parts: list[tuple[Item | None, list[Document]]] = []
    for item in present:
        known = [e["addresses"][0] for e in item.document().get("endpoints") or ()]
        parts.append((item, [by_address.pop(a) for a in known if a in by_address]))
    rest = list(by_address.values())
    for _, part in parts:
        room = MOST_ENDPOINTS - len(part)
        part.extend(rest[:room])
        rest = rest[room:]
    while rest or not parts:
        parts.append((None, rest[:MOST_ENDPOINTS]))
        rest = rest[MOST_ENDPOINTS:]
    return parts


def _says(item: Item, labels: dict[str, str], endpoints: list[Document]) -> bool:
    return item.labels == labels and (item.document().get("endpoints") or []) == endpoints


def _slice(
    owner: Item, name: str, labels: dict[str, str], topic: Topic, endpoints: list[Document]
) -> Document:
    family, ports = topic
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": owner.meta.namespace,
            "generateName": f"{owner.meta.name}-",
            "labels": labels,
            "ownerReferences": [controller_reference(owner)],
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": [_port(port) for port in ports],
    }


def _port(port: Port) -> Document:
    found: Document = {"name": port.name, "port": port.number, "protocol": port.protocol}
    return {**found, "appProtocol": port.app} if port.app else found


def _endpoint(backend: Backend, family: str) -> Document:
    pod = backend.pod
    endpoint: Document = {
        "addresses": [backend.address(family)],
        "conditions": {
            "ready": backend.ready,
            "serving": backend.serving,
            "terminating": backend.terminating,
        },
        "targetRef": {
            "kind": "Pod",
            "name": pod.meta.name,
            "namespace": pod.meta.namespace,
            "uid": pod.uid,
        },
    }
    if backend.hostname:
        endpoint["hostname"] = backend.hostname
    if pod.spec.node_name:
        endpoint["nodeName"] = pod.spec.node_name
    if backend.zone:
        endpoint["zone"] = backend.zone
    return endpoint
