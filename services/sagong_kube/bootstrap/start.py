"""The first start: objects that every cluster has are made, once; later starts find them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from sagong.errors import AlreadyExists
from sagong_kube.bootstrap import roles
from sagong_kube.registry.actor import SYSTEM, WriteOptions
from sagong_kube.registry.document import Document, decode
from sagong_kube.registry.planner import Subject
from sagong_kube.registry.resource import Catalogue, Resource
from sagong_kube.registry.writer import Writer

__all__ = ["Advertised", "offer_storage", "publish_authority", "start"]

_NAMESPACES = ("kube-system", "default", "kube-public", "kube-node-lease")
_PRIORITIES = {
    "system-cluster-critical": (
        2000000000,
        "Used for system critical pods that must run in the cluster, but can be moved to another "
        "node if necessary.",
    ),
    "system-node-critical": (
        2000001000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
}
_MANAGER = "kube-apiserver"
_KUBERNETES = "kubernetes"
# On kube-system: the default StorageClass was made, or was not wanted.
_OFFERED = "sagong.io/storage-class"


class Advertised:
    """Where the API is reached from pods: the service's address, and the server's own."""

    def __init__(self, service: str, address: str, port: int) -> None:
        self.service = service
        self.address = address
        self.port = port


async def start(writer: Writer, catalogue: Catalogue, advertised: Advertised) -> None:
    """Make what is missing."""
    for document in _documents(advertised):
        resource = _resource(catalogue, document)
        if resource is not None:
            await _ensure(writer, resource, document)
    for document in _endpoints(advertised):
        resource = _resource(catalogue, document)
        if resource is not None:
            await _renew_endpoints(writer, resource, document)


async def offer_storage(writer: Writer, catalogue: Catalogue, name: str) -> None:
    """A default StorageClass by slot `volume`, once: who deletes it does not get it again."""
    system = _resource(catalogue, _namespace(_NAMESPACES[0]))
    document = _storage_class(name)
    resource = _resource(catalogue, document)
    if not name or system is None or resource is None:
        return
    record = writer.store.get(system.storage, system.key("", _NAMESPACES[0]))
    if record is None or _OFFERED in _annotations(decode(record)):
        return
    if not writer.store.collection(resource.storage).records:
        await _ensure(writer, resource, document)

    def offered(live: Document) -> Document:
        metadata = {**live["metadata"], "annotations": {**_annotations(live), _OFFERED: name}}
        return {**live, "metadata": metadata}

    await writer.edit(_subject(system, _namespace(_NAMESPACES[0])), offered)


def _annotations(document: Document) -> dict[str, str]:
    return document["metadata"].get("annotations") or {}


def _storage_class(name: str) -> Document:
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, "annotations": default},
        "provisioner": "local.sagong.io",
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    }


async def publish_authority(writer: Writer, catalogue: Catalogue, certificate: str) -> None:
    """The cluster's certificate in kube-system, from where each namespace is given its copy."""
    document: Document = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kube-root-ca.crt", "namespace": "kube-system"},
        "data": {"ca.crt": certificate},
    }
    resource = _resource(catalogue, document)
    if resource is not None:
        await _ensure(writer, resource, document)


def _resource(catalogue: Catalogue, document: Document) -> Resource | None:
    group, _, version = document["apiVersion"].rpartition("/")
    return catalogue.of_kind(group, version, document["kind"])


def _documents(advertised: Advertised) -> Iterator[Document]:
    for name in _NAMESPACES:
        yield _namespace(name)
    for name, (value, description) in _PRIORITIES.items():
        yield {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": value,
            "description": description,
        }
    yield from roles.documents()
    yield _service(advertised)


def _namespace(name: str) -> Document:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _service(advertised: Advertised) -> Document:
    port = {"name": "https", "port": 443, "protocol": "TCP", "targetPort": advertised.port}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": _KUBERNETES,
            "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "clusterIP": advertised.service,
            "ports": [port],
            "sessionAffinity": "None",
            "type": "ClusterIP",
        },
    }


def _endpoints(advertised: Advertised) -> Sequence[Document]:
    if ipaddress.ip_address(advertised.address).is_loopback:
        # A machine without a network: nothing but itself could reach the API anyway.
        return ()
    ports: list[Any] = [{"name": "https", "port": advertised.port, "protocol": "TCP"}]
    metadata = {"name": _KUBERNETES, "namespace": "default"}
    family = "IPv6" if ":" in advertised.address else "IPv4"
    return (
        {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {
                **metadata,
                "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
            },
            "subsets": [{"addresses": [{"ip": advertised.address}], "ports": ports}],
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {"kubernetes.io/service-name": _KUBERNETES}},
            "addressType": family,
            "endpoints": [{"addresses": [advertised.address], "conditions": {"ready": True}}],
            "ports": ports,
        },
    )


def _subject(resource: Resource, document: Document) -> Subject:
    metadata = document["metadata"]
    options = WriteOptions(manager=_MANAGER, validation="Ignore")
    return Subject(resource, metadata.get("namespace", ""), metadata["name"], SYSTEM, options)


async def _ensure(writer: Writer, resource: Resource, document: Document) -> None:
    metadata = document["metadata"]
    key = resource.key(metadata.get("namespace", ""), metadata["name"])
    if writer.store.get(resource.storage, key) is not None:
        return
    try:
        subject = _subject(resource, document)
        await writer.create(subject, copied(document), lambda: copied(document))
    except AlreadyExists:
        return


def copied(document: Document) -> Document:
    """A copy that planning may change."""
    made: Document = msgspec.json.decode(msgspec.json.encode(document))
    return made


async def _renew_endpoints(writer: Writer, resource: Resource, document: Document) -> None:
    await _ensure(writer, resource, document)
    parts = {k: v for k, v in document.items() if k in ("subsets", "endpoints", "ports")}
    await writer.edit(_subject(resource, document), lambda live: {**live, **parts})
