"""Containers' figures by cAdvisor's names, in the text format of Prometheus, version 0.0.4. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sagong.contracts.metrics import Sample
from sagong.contracts.network import Counters
from sagong.prometheus import labelled

__all__ = ["Figures", "add_container", "add_network"]

_NANO = 1e-9
_COUNTED = {
    "bytes": "bytes",
    "packets": "packets",
    "errors": "errors",
    "dropped": "packets_dropped",
}
_WAYS = {"receive": "rx", "transmit": "tx"}
_HELP = {
    "container_cpu_usage_seconds_total": "Processor time of a container.",
    "container_cpu_user_seconds_total": "Processor time of a container outside the kernel.",
    "container_cpu_system_seconds_total": "Processor time of a container inside the kernel.",
    "container_cpu_cfs_periods_total": "Periods of a container's processor limit.",
    "container_cpu_cfs_throttled_periods_total": "Periods in which the limit was reached.",
    "container_memory_usage_bytes": "Memory of a container, with its part of the page cache.",
    "container_memory_working_set_bytes": "Memory that can't be taken back at once.",
    "container_memory_rss": "Anonymous memory of a container, in bytes.",
    "container_memory_cache": "Page cache of a container, in bytes.",
    "container_processes": "Processes of a container.",
}


class Figures:
    """A text for Prometheus: the series of each name stand together, below what they are."""

    def __init__(self) -> None:
        self._series: dict[str, list[str]] = {}
        self._kinds: dict[str, str] = {}

    def add(self, name: str, kind: str, value: float, /, **labels: str) -> None:
        """One series; `kind` is counter or gauge."""
        shown = str(value) if isinstance(value, int) else f"{value:.9f}"
        self._series.setdefault(name, []).append(f"{labelled(name, labels)} {shown}")
        self._kinds[name] = kind

    def lines(self) -> Iterator[str]:
        """The text."""
        for name, series in self._series.items():
            yield f"# HELP {name} {_HELP.get(name) or _words(name)}"
            yield f"# TYPE {name} {self._kinds[name]}"
            yield from series


def _words(name: str) -> str:
    """`container_network_receive_bytes_total` as `Container network receive bytes.`"""
    return name.removesuffix("_total").replace("_", " ").capitalize() + "."


def add_container(found: Figures, sample: Sample, labels: dict[str, str]) -> None:
    """Processor time, memory and processes of a container."""
    cpu, memory = "container_cpu", "container_memory"
    found.add(f"{cpu}_usage_seconds_total", "counter", sample.cpu_total * _NANO, **labels)
    found.add(f"{cpu}_user_seconds_total", "counter", sample.cpu_user * _NANO, **labels)
    found.add(f"{cpu}_system_seconds_total", "counter", sample.cpu_system * _NANO, **labels)
    found.add(f"{cpu}_cfs_periods_total", "counter", sample.periods, **labels)
    found.add(f"{cpu}_cfs_throttled_periods_total", "counter", sample.throttled_periods, **labels)
    found.add(f"{memory}_usage_bytes", "gauge", sample.memory_usage, **labels)
    found.add(f"{memory}_working_set_bytes", "gauge", sample.working_set, **labels)
    found.add(f"{memory}_rss", "gauge", sample.rss, **labels)
    found.add(f"{memory}_cache", "gauge", sample.cache, **labels)
    found.add("container_processes", "gauge", sample.pids, **labels)


def add_network(found: Figures, interfaces: Iterable[Counters], labels: dict[str, str]) -> None:
    """What a sandbox received and sent by each of its interfaces."""
    for counters in interfaces:
        for way, side in _WAYS.items():
            for what, name in _COUNTED.items():
                value = getattr(counters, f"{side}_{what}")
                series = f"container_network_{way}_{name}_total"
                found.add(series, "counter", value, interface=counters.interface, **labels)
