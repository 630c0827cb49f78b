"""A node as the snapshot keeps it: what it offers, what is taken, which pods it has."""

from __future__ import annotations

from typing import Final

from sagong.model.numbers import natural
from sagong.scheduling.demand import Port, amounts
from sagong.scheduling.documents import NodeDocument
from sagong.scheduling.nodes import Taint
from sagong.scheduling.shape import Pod

__all__ = ["Node"]

ZONE: Final = "topology.kubernetes.io/zone"
REGION: Final = "topology.kubernetes.io/region"
_ANY: Final = ("0.0.0.0", "::", "")


class Node:
    """Capacity and use; `*_free` may be negative when a node was overcommitted by others."""

    __slots__ = (
        "cordoned",
        "cpu",
        "cpu_free",
        "cpu_likely",
        "images",
        "labels",
        "memory",
        "memory_free",
        "memory_likely",
        "name",
        "other",
        "other_used",
        "pods",
        "pods_free",
        "ports",
        "revision",
        "taints",
        "version",
        "zone",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.labels: dict[str, str] = {}
        self.taints: tuple[Taint, ...] = ()
        self.cordoned = False
        self.zone = ""
        self.images: dict[str, int] = {}
        self.cpu = self.memory = 0
        self.cpu_free = self.memory_free = self.pods_free = 0
        # Taken, where containers that ask for nothing count as taking a little: for scores.
        self.cpu_likely = self.memory_likely = 0
        self.other: dict[str, int] = {}
        self.other_used: dict[str, int] = {}
        self.pods: dict[tuple[str, str], Pod] = {}
        self.ports: dict[tuple[str, int], list[str]] = {}
        self.revision = 0
        # Grows with each change of what is free or offered; a kept verdict of an older one is void.
        self.version = 0

    def describe(self, document: NodeDocument) -> bool:
        """Take over what the object says; whether something that selectors see has changed."""
        before = (self.labels, self.taints, self.cordoned)
        meta, spec, status = document.metadata, document.spec, document.status
        self.labels = meta.labels or {}
        self.taints = tuple(Taint.of(t) for t in (spec.taints if spec else None) or ())
        self.cordoned = bool(spec is not None and spec.unschedulable)
        self.zone = _zone(self.labels)
        offered = amounts((status.allocatable or status.capacity) if status is not None else None)
        self._offer(offered)
        images = (status.images if status is not None else None) or ()
        self.images = {name: image.size_bytes for image in images for name in image.names or ()}
        self.revision = natural(meta.resource_version) or 0
        return before != (self.labels, self.taints, self.cordoned)

    def _offer(self, offered: dict[str, int]) -> None:
        cpu, memory = offered.pop("cpu", 0), offered.pop("memory", 0)
        self.cpu_free += cpu - self.cpu
        self.memory_free += memory - self.memory
        self.pods_free = offered.pop("pods", 0) - len(self.pods)
        self.cpu, self.memory, self.other = cpu, memory, offered
        self.version += 1

    @property
    def pods_limit(self) -> int:
        """How many pods it takes."""
        return self.pods_free + len(self.pods)

    def add(self, pod: Pod) -> None:
        """A pod takes its place."""
        wants = pod.shape.demand
        self.pods[pod.key] = pod
        self.cpu_free -= wants.cpu
        self.memory_free -= wants.memory
        self.pods_free -= 1
        self.cpu_likely += wants.likely_cpu
        self.memory_likely += wants.likely_memory
        for resource, amount in wants.other:
            self.other_used[resource] = self.other_used.get(resource, 0) + amount
        for port in wants.ports:
            self.ports.setdefault((port.protocol, port.number), []).append(port.ip)
        self.version += 1

    def remove(self, pod: Pod) -> None:
        """A pod leaves."""
        wants = pod.shape.demand
        del self.pods[pod.key]
        self.cpu_free += wants.cpu
        self.memory_free += wants.memory
        self.pods_free += 1
        self.cpu_likely -= wants.likely_cpu
        self.memory_likely -= wants.likely_memory
        for resource, amount in wants.other:
            self.other_used[resource] -= amount
        for port in wants.ports:
            self.ports[port.protocol, port.number].remove(port.ip)
        self.version += 1

    def other_free(self, resource: str) -> int:
        """What is left of a resource beside cpu and memory."""
        return self.other.get(resource, 0) - self.other_used.get(resource, 0)

    def port_taken(self, port: Port) -> bool:
        """Whether somebody listens there already; an unspecific address conflicts with all."""
        taken = self.ports.get((port.protocol, port.number))
        if not taken:
            return False
        return port.ip in _ANY or any(ip in _ANY or ip == port.ip for ip in taken)


def _zone(labels: dict[str, str]) -> str:
    region, zone = labels.get(REGION, ""), labels.get(ZONE, "")
    return f"{region}:{zone}" if region or zone else ""
