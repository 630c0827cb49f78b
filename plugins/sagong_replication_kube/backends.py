"""Backends of a service: its pods' addresses, states and ports, as endpoints and slices need them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from sagong.model.numbers import natural
from sagong.model.selectors import from_labels
from sagong_replication_kube.item import Document, Item
from sagong_replication_kube.pods import PODS, ready
from sagong_replication_kube.work import Work

__all__ = ["Backend", "Port", "backends", "families"]

ZONE: Final = "topology.kubernetes.io/zone"


class Port(NamedTuple):
    """A port as a backend has it; `app` is the protocol spoken on it."""

    name: str
    number: int
    protocol: str
    app: str = ""


class Backend(NamedTuple):
    """A pod behind a service."""

    pod: Item
    addresses: tuple[str, ...]
    ports: tuple[Port, ...]
    ready: bool
    serving: bool
    terminating: bool
    hostname: str
    zone: str

    def address(self, family: str) -> str:
        """Its address of a family (IPv4, IPv6); "" if it has none."""
        for address in self.addresses:
            if (":" in address) == (family == "IPv6"):
                return address
        return ""


def families(service: Document) -> tuple[str, ...]:
    """Address families that the service has."""
    said = service["spec"].get("ipFamilies")
    if said:
        return tuple(said)
    ip = service["spec"].get("clusterIP") or ""
    return ("IPv6",) if ":" in ip else ("IPv4",)


def backends(work: Work, service: Item, document: Document) -> list[Backend]:
    """All pods behind the service that have an address, by name."""
    spec = document["spec"]
    selector = from_labels(spec.get("selector"))
    eager = bool(spec.get("publishNotReadyAddresses"))
    found = []
    for pod in work.world.selected(PODS, service.meta.namespace, selector):
        addresses = _addresses(pod)
        if not addresses or pod.status.phase in ("Succeeded", "Failed"):
            continue
        serving = ready(pod)
        found.append(
            Backend(
                pod=pod,
                addresses=addresses,
                ports=tuple(_ports(spec.get("ports") or (), pod)),
                ready=eager or (serving and not pod.deleting),
                serving=serving,
                terminating=pod.deleting,
                hostname=_hostname(service, pod),
                zone=_zone(work, pod.spec.node_name),
            )
        )
    return sorted(found, key=lambda backend: backend.pod.key)


def _addresses(pod: Item) -> tuple[str, ...]:
    many = tuple(one.ip for one in pod.status.pod_ips or () if one.ip)
    return many or ((pod.status.pod_ip,) if pod.status.pod_ip else ())


def _hostname(service: Item, pod: Item) -> str:
    """Pods that name the service as their domain have a name in it."""
    return pod.spec.hostname if pod.spec.subdomain == service.meta.name else ""


def _zone(work: Work, node: str) -> str:
    found = work.world.get("v1/nodes", ("", node))
    return found.labels.get(ZONE, "") if found is not None else ""


def _ports(ports: Sequence[Document], pod: Item) -> Iterator[Port]:
    for port in ports:
        protocol = port.get("protocol") or "TCP"
        number = _number(port, protocol, pod)
        if number:
            yield Port(port.get("name") or "", number, protocol, port.get("appProtocol") or "")


def _number(port: Document, protocol: str, pod: Item) -> int:
    """The port of the pod: a number, or the one that a container calls so."""
    target = port.get("targetPort") or port["port"]
    if isinstance(target, int):
        return target
    sidecars = (c for c in pod.spec.init_containers or () if c.restart_policy == "Always")
    for container in (*(pod.spec.containers or ()), *sidecars):
        for one in container.ports or ():
            if one.name == target and (one.protocol or "TCP") == protocol:
                return one.container_port
    return natural(target) or 0
