"""What pods use: measured by slot `metrics`, or said by PodMetrics objects in a closed question."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from sagong.contracts.metrics import Sample
from sagong.errors import InvalidArgument
from sagong.model.quantity import NANO, nano
from sagong_replication_kube.item import Item

__all__ = ["FRESH_SECONDS", "Amounts", "Usage"]

# Older measurements are asked for anew.
FRESH_SECONDS: Final = 15.0
_SCHEME: Final = "sagong://"


class Amounts(NamedTuple):
    """Nano-cores and nano-bytes, as quantities count."""

    cpu: int
    memory: int

    def of(self, resource: str) -> int:
        """By the name of the resource."""
        return self.cpu if resource == "cpu" else self.memory


class _Container(msgspec.Struct):
    name: str
    usage: dict[str, str]


class _PodMetrics(msgspec.Struct):
    metadata: dict[str, msgspec.Raw]
    containers: tuple[_Container, ...] = ()


class Usage:
    """Amounts by container of each pod, as of `measured`."""

    def __init__(self) -> None:
        self.measured = 0.0
        self._by_container: dict[str, Amounts] = {}
        self._by_pod: dict[tuple[str, str], dict[str, Amounts]] = {}

    def fresh(self, now: float) -> bool:
        """Whether it need not be asked for."""
        return now - self.measured < FRESH_SECONDS

    def take_samples(self, samples: Iterable[Sample], now: float) -> None:
        """What slot `metrics` measured; the latest of each container counts."""
        self._by_container = {
            sample.id: Amounts(int(sample.cpu_rate * NANO), sample.working_set * NANO)
            for sample in samples
        }
        self.measured = now

    def take_object(self, body: bytes, now: float) -> None:
        """A PodMetrics object."""
        try:
            found = msgspec.json.decode(body, type=_PodMetrics)
            key = (
                msgspec.json.decode(found.metadata.get("namespace", b'""'), type=str),
                msgspec.json.decode(found.metadata["name"], type=str),
            )
        except (msgspec.DecodeError, KeyError) as error:
            raise InvalidArgument(f"PodMetrics is not readable: {error}") from None
        self._by_pod[key] = {
            one.name: Amounts(nano(one.usage.get("cpu", 0)), nano(one.usage.get("memory", 0)))
            for one in found.containers
        }
        self.measured = now

    def of(self, pod: Item) -> dict[str, Amounts] | None:
        """Amounts by container's name; None if something of the pod was not measured."""
        said = self._by_pod.get(pod.key)
        if said is not None:
            return said
        found = {}
        for status in pod.status.container_statuses or ():
            amounts = self._by_container.get(status.container_id.removeprefix(_SCHEME))
            if amounts is None:
                return None
            found[status.name] = amounts
        return found or None
