"""metrics.k8s.io: what nodes and pods use now, by slot `metrics`."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from sagong.contracts.metrics import Metrics, Sample, SampleQuery
from sagong_kube import refusal
from sagong_kube.handlers.exchange import Ask, Reply
from sagong_kube.handlers.negotiation import negotiate
from sagong_kube.handlers.parameters import selection_of
from sagong_kube.handlers.rendering import document_answer
from sagong_kube.registry import document as documents
from sagong_kube.registry.document import Document
from sagong_kube.registry.resource import Resource
from sagong_kube.storage.record import Record
from sagong_kube.storage.store import Store

__all__ = ["Usage"]

_GROUP = "metrics.k8s.io"
_WINDOW = 10.0
_SCHEME = "sagong://"


class Usage:
    """Handlers of metrics.k8s.io on this machine."""

    def __init__(self, store: Store, metrics: Metrics, node_name: str) -> None:
        self._store = store
        self._metrics = metrics
        self._node_name = node_name

    async def nodes(self, ask: Ask, resource: Resource) -> Reply:
        """GET nodes: only this machine's can be measured from here."""
        records = self._selected(ask, resource, "core/nodes")
        machine = await self._metrics.machine()
        items = [
            {
                **_head(resource, record, machine.time, _WINDOW),
                "usage": _amounts(machine.cpu_rate, machine.working_set),
            }
            for record in records
            if not self._node_name or record.name == self._node_name
        ]
        return self._answer(ask, resource, items)

    async def pods(self, ask: Ask, resource: Resource) -> Reply:
        """GET pods."""
        records = self._selected(ask, resource, "core/pods")
        found = await self._metrics.sample(SampleQuery())
        newest = {sample.id: sample for sample in found.samples}
        items = [item for record in records if (item := _pod(resource, record, newest))]
        return self._answer(ask, resource, items)

    def _selected(self, ask: Ask, resource: Resource, storage: str) -> list[Record]:
        collection = self._store.collection(storage)
        return list(collection.select(selection_of(ask, resource, collection)))

    def _answer(self, ask: Ask, resource: Resource, items: list[Document]) -> Reply:
        listed = ask.target.verb == "list"
        form = negotiate(ask.headers.get("accept", ""), listed=listed, transforms=False)
        if not listed:
            if not items:
                name = ask.target.name
                raise refusal.not_found(resource.plural, _GROUP, name)
            return document_answer(form, items[0])
        return document_answer(
            form,
            {
                "kind": f"{resource.kind.kind}List",
                "apiVersion": resource.kind.api_version,
                "metadata": {},
                "items": items,
            },
        )


def _head(resource: Resource, record: Record, moment: float, window: float) -> Document:
    metadata: dict[str, Any] = {"name": record.name, "creationTimestamp": documents.now()}
    if record.namespace:
        metadata["namespace"] = record.namespace
    if record.labels:
        metadata["labels"] = dict(record.labels)
    return {
        "kind": resource.kind.kind,
        "apiVersion": resource.kind.api_version,
        "metadata": metadata,
        "timestamp": documents.timestamp(moment or time.time()),
        "window": f"{window or _WINDOW:g}s",
    }


def _amounts(cores: float, memory: int) -> Document:
    return {"cpu": f"{int(cores * 1e9)}n", "memory": f"{memory // 1024}Ki"}


def _pod(resource: Resource, record: Record, newest: dict[str, Sample]) -> Document | None:
    status = msgspec.json.decode(record.body).get("status") or {}
    containers = []
    moment, window = 0.0, 0.0
    for container in status.get("containerStatuses") or ():
        sample = newest.get((container.get("containerID") or "").removeprefix(_SCHEME))
        if sample is None:
            return None
        moment, window = sample.time, sample.window
        usage = _amounts(sample.cpu_rate, sample.working_set)
        containers.append({"name": container["name"], "usage": usage})
    if not containers:
        return None
    return {**_head(resource, record, moment, window), "containers": containers}
