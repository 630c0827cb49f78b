"""What a kubelet tells about itself below `nodes/NAME/proxy`, told for this machine without one.

`stats/summary` is the kubelet's stats API (v1alpha1); `metrics/resource` and `metrics/cadvisor` are
texts for Prometheus, with the names that dashboards know. Pods' networks are counted by slot
`network`, each found by its address. All other paths, and other nodes, are asked themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from sagong.cadvisor import Figures, add_container, add_network
from sagong.contracts.metrics import Machine, Metrics, Sample, SampleQuery
from sagong.contracts.network import Counters, CountersQuery, Networks
from sagong.errors import SagongError
from sagong_kube.handlers.exchange import Answer, Ask, Reply, json_answer
from sagong_kube.handlers.proxy import split_name
from sagong_kube.handlers.router import ObjectHandler
from sagong_kube.registry import document as documents
from sagong_kube.registry.document import Document
from sagong_kube.registry.resource import Resource
from sagong_kube.storage.collection import Selection
from sagong_kube.storage.store import Store

__all__ = ["Kubelet", "Pod", "View", "cadvisor", "resource_figures", "summary"]

_SCHEME = "sagong://"
_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_NANO = 1e-9


class Pod(NamedTuple):
    """A pod of this machine: its object, its containers' samples by name, its interfaces."""

    item: Document
    containers: dict[str, Sample]
    interfaces: tuple[Counters, ...]

    @property
    def labels(self) -> dict[str, str]:
        """As figures name it."""
        metadata = self.item["metadata"]
        return {"namespace": metadata["namespace"], "pod": metadata["name"]}


class View(NamedTuple):
    """This machine and its pods at a moment."""

    node: str
    machine: Machine
    pods: tuple[Pod, ...]


class Kubelet:
    """Handler of nodes/proxy."""

    def __init__(
        self, store: Store, slots: tuple[Metrics, Networks], node: str, beyond: ObjectHandler
    ) -> None:
        self._store = store
        self._metrics, self._network = slots
        self._node = node
        self._beyond = beyond

    async def proxy(self, ask: Ask, resource: Resource) -> Reply:
        """Of this machine what is known here, else what the node itself answers."""
        _, name, port = split_name(ask.target.name)
        shown = _SHOWN.get(ask.path.partition("/proxy/")[2].rstrip("/"))
        mine = not port and self._is_here(name)
        if shown is None or not mine or ask.method not in ("GET", "HEAD"):
            return await self._beyond(ask, resource)
        return shown(await self._view(name))

    def _is_here(self, name: str) -> bool:
        """As in metrics.k8s.io: every node is this machine where none is named."""
        known = self._store.collection("core/nodes").select(Selection())
        return name == (self._node or name) and any(record.name == name for record in known)

    async def _view(self, node: str) -> View:
        machine, found, counted = await asyncio.gather(
            self._metrics.machine(), self._metrics.sample(SampleQuery()), self._counted()
        )
        samples = {sample.id: sample for sample in found.samples}
        pods = tuple(_pods(self._items(node), samples, counted))
        return View(node, machine, pods)

    def _items(self, node: str) -> Iterator[Document]:
        for record in self._store.collection("core/pods").select(Selection()):
            item = msgspec.json.decode(record.body)
            if item.get("spec", {}).get("nodeName") == node:
                yield item

    async def _counted(self) -> dict[str, tuple[Counters, ...]]:
        """By the sandboxes' addresses; none when nobody counts now."""
        try:
            known, counted = await asyncio.gather(
                self._network.sandboxes(), self._network.counters(CountersQuery())
            )
        except SagongError:
            return {}
        of = {sandbox.id: sandbox.interfaces for sandbox in counted.sandboxes}
        return {
            address: of.get(sandbox.id, ())
            for sandbox in known.sandboxes
            for endpoint in sandbox.endpoints
            for address in (endpoint.ipv4, endpoint.ipv6)
            if address
        }


def _pods(
    items: Iterable[Document],
    samples: dict[str, Sample],
    counted: dict[str, tuple[Counters, ...]],
) -> Iterator[Pod]:
    for item in items:
        status = item.get("status") or {}
        containers = {}
        for container in status.get("containerStatuses") or ():
            sample = samples.get((container.get("containerID") or "").removeprefix(_SCHEME))
            if sample is not None:
                containers[container["name"]] = sample
        own = not item["spec"].get("hostNetwork")
        interfaces = counted.get(status.get("podIP") or "", ()) if own else ()
        if containers:
            yield Pod(item, containers, interfaces)


def _text(lines: Iterable[str]) -> Answer:
    return Answer(("\n".join(lines) + "\n").encode(), 200, _TEXT)


def summary(view: View) -> Document:
    """The kubelet's stats/v1alpha1 Summary."""
    machine = view.machine
    moment = documents.timestamp(machine.time)
    node = {
        "nodeName": view.node,
        "cpu": _cpu(moment, machine.cpu_rate, machine.cpu_total),
        "memory": {
            "time": moment,
            "availableBytes": machine.memory_available,
            "usageBytes": machine.memory_total - machine.memory_available,
            "workingSetBytes": machine.working_set,
        },
    }
    return {"node": node, "pods": [_pod(pod) for pod in view.pods]}


def _cpu(moment: str, rate: float, total: int) -> Document:
    return {"time": moment, "usageNanoCores": int(rate / _NANO), "usageCoreNanoSeconds": total}


def _memory(moment: str, samples: Iterable[Sample]) -> Document:
    found = list(samples)
    return {
        "time": moment,
        "usageBytes": sum(s.memory_usage for s in found),
        "workingSetBytes": sum(s.working_set for s in found),
        "rssBytes": sum(s.rss for s in found),
    }


def _pod(pod: Pod) -> Document:
    metadata, samples = pod.item["metadata"], list(pod.containers.values())
    moment = documents.timestamp(max(s.time for s in samples))
    shown: dict[str, Any] = {
        "podRef": {key: metadata[key] for key in ("name", "namespace", "uid")},
        "startTime": (pod.item.get("status") or {}).get("startTime"),
        "containers": [
            {
                "name": name,
                "cpu": _cpu(documents.timestamp(s.time), s.cpu_rate, s.cpu_total),
                "memory": _memory(documents.timestamp(s.time), (s,)),
            }
            for name, s in pod.containers.items()
        ],
        "cpu": _cpu(moment, sum(s.cpu_rate for s in samples), sum(s.cpu_total for s in samples)),
        "memory": _memory(moment, samples),
    }
    if pod.interfaces:
        listed = [_interface(counters) for counters in pod.interfaces]
        shown["network"] = {"time": moment, **listed[0], "interfaces": listed}
    return shown


def _interface(counters: Counters) -> Document:
    return {
        "name": counters.interface,
        "rxBytes": counters.rx_bytes,
        "rxErrors": counters.rx_errors,
        "txBytes": counters.tx_bytes,
        "txErrors": counters.tx_errors,
    }


def resource_figures(view: View) -> Iterator[str]:
    """The kubelet's /metrics/resource."""
    found = Figures()
    seconds, working = "_cpu_usage_seconds_total", "_memory_working_set_bytes"
    found.add(f"node{seconds}", "counter", view.machine.cpu_total * _NANO)
    found.add(f"node{working}", "gauge", view.machine.working_set)
    for pod in view.pods:
        samples = pod.containers
        for name, sample in samples.items():
            labels = {"container": name, **pod.labels}
            found.add(f"container{seconds}", "counter", sample.cpu_total * _NANO, **labels)
            found.add(f"container{working}", "gauge", sample.working_set, **labels)
        total = sum(sample.cpu_total for sample in samples.values())
        found.add(f"pod{seconds}", "counter", total * _NANO, **pod.labels)
        used = sum(sample.working_set for sample in samples.values())
        found.add(f"pod{working}", "gauge", used, **pod.labels)
    found.add("resource_scrape_error", "gauge", 0)
    return found.lines()


def cadvisor(view: View) -> Iterator[str]:
    """What dashboards read of cAdvisor, by its names."""
    found = Figures()
    found.add("machine_cpu_cores", "gauge", view.machine.cores)
    found.add("machine_memory_bytes", "gauge", view.machine.memory_total)
    for pod in view.pods:
        for name, sample in pod.containers.items():
            add_container(found, sample, {"container": name, **pod.labels})
        add_network(found, pod.interfaces, pod.labels)
    return found.lines()


_SHOWN: dict[str, Callable[[View], Reply]] = {
    "stats/summary": lambda view: json_answer(summary(view)),
    "metrics/resource": lambda view: _text(resource_figures(view)),
    "metrics/cadvisor": lambda view: _text(cadvisor(view)),
}
