"""What a pod takes of a node: requests of its containers as the API counts them, ports, images.

Source: https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/ (resource sharing)
and https://kubernetes.io/docs/concepts/scheduling-eviction/pod-overhead/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from sagong.model.quantity import milli, value
from sagong.scheduling.documents import ContainerDocument, PodSpecDocument

__all__ = ["CPU_UNSAID", "MEMORY_UNSAID", "Demand", "Port", "amounts", "demand"]

# Scores pretend that a container which says nothing takes this much, else all would go to one node.
CPU_UNSAID: Final = 100
MEMORY_UNSAID: Final = 200 * 1024 * 1024


class Port(NamedTuple):
    """A port on the node."""

    ip: str
    protocol: str
    number: int


class Demand(NamedTuple):
    """`cpu` in thousandths, `memory` in bytes, `other` by resource; `likely_` are for scores."""

    cpu: int
    memory: int
    other: tuple[tuple[str, int], ...]
    likely_cpu: int
    likely_memory: int
    ports: tuple[Port, ...]
    images: tuple[str, ...]


def amounts(said: Mapping[str, str | int | float] | None) -> dict[str, int]:
    """Resources as whole numbers: cpu in thousandths, all others in units."""
    return {k: milli(v) if k == "cpu" else value(v) for k, v in (said or {}).items()}


def demand(spec: PodSpecDocument) -> Demand:
    """The demand of a pod."""
    containers = spec.containers or ()
    inits = spec.init_containers or ()
    total = _total(spec, {})
    likely = _total(spec, {"cpu": CPU_UNSAID, "memory": MEMORY_UNSAID})
    other = {k: v for k, v in total.items() if k not in ("cpu", "memory") and v > 0}
    running = [*containers, *(c for c in inits if c.restart_policy == "Always")]
    return Demand(
        cpu=total.get("cpu", 0),
        memory=total.get("memory", 0),
        other=tuple(sorted(other.items())),
        likely_cpu=likely.get("cpu", 0),
        likely_memory=likely.get("memory", 0),
        ports=tuple(_ports(running)),
        images=tuple(c.image for c in containers if c.image),
    )


def _total(spec: PodSpecDocument, unsaid: Mapping[str, int]) -> dict[str, int]:
    total: dict[str, int] = {}
    for container in spec.containers or ():
        _add(total, _requests(container, unsaid))
    total = _with_inits(total, spec.init_containers or (), unsaid)
    if spec.resources is not None:  # what the pod as a whole requests counts instead
        total |= amounts(spec.resources.requests)
    _add(total, amounts(spec.overhead))
    return total


def _requests(container: ContainerDocument, unsaid: Mapping[str, int]) -> dict[str, int]:
    said = container.resources.requests if container.resources is not None else None
    return {**unsaid, **amounts(said)}


def _with_inits(
    total: dict[str, int], inits: Iterable[ContainerDocument], unsaid: Mapping[str, int]
) -> dict[str, int]:
    """Sidecars run on beside the containers; other inits run before, beside earlier sidecars."""
    sidecars: dict[str, int] = {}
    highest: dict[str, int] = {}
    for container in inits:
        wants = _requests(container, unsaid)
        if container.restart_policy == "Always":
            _add(sidecars, wants)
            wants = dict(sidecars)
        else:
            _add(wants, sidecars)
        _raise(highest, wants)
    _add(total, sidecars)
    _raise(total, highest)
    return total


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for key, amount in more.items():
        total[key] = total.get(key, 0) + amount


def _raise(total: dict[str, int], floor: Mapping[str, int]) -> None:
    for key, amount in floor.items():
        if amount > total.get(key, 0):
            total[key] = amount


def _ports(containers: Iterable[ContainerDocument]) -> Iterable[Port]:
    for container in containers:
        for port in container.ports or ():
            if port.host_port:
                yield Port(port.host_ip or "0.0.0.0", port.protocol or "TCP", port.host_port)
