"""Versions of the same resource: between the stored form and the one that a client asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from sagong.errors import InvalidArgument
from sagong.model.objects import GroupVersionKind
from sagong_kube.registry.document import Document
from sagong_kube.registry.resource import Resource
from sagong_kube.schema import decoding
from sagong_kube.storage.record import Record

__all__ = ["from_stored", "present", "shown", "to_stored"]

_EVENT_NAMES = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_METRICS = "autoscaling.alpha.kubernetes.io/metrics"
_CURRENT = "autoscaling.alpha.kubernetes.io/current-metrics"
_CONDITIONS = "autoscaling.alpha.kubernetes.io/conditions"
_BEHAVIOR = "autoscaling.alpha.kubernetes.io/behavior"
_AUTOSCALER = GroupVersionKind("autoscaling", "v2", "HorizontalPodAutoscaler")


def present(resource: Resource, record: Record) -> bytes:
    """The record's bytes as the resource's version shows them."""
    return shown(resource, record.body)


def shown(resource: Resource, body: bytes) -> bytes:
    """Stored bytes in another version; the stored version's are given as they are."""
    if resource.kind == resource.stored_kind:
        return body
    document: Document = msgspec.json.decode(body)
    if not resource.custom:
        _FROM.get(resource.storage, _same)(document)
    document["apiVersion"] = resource.kind.api_version
    return msgspec.json.encode(document)


def to_stored(resource: Resource, document: Document) -> Document:
    """A client's document in the stored version."""
    if resource.kind == resource.stored_kind:
        return document
    if not resource.custom:
        _TO.get(resource.storage, _same)(document)
    return {**document, "apiVersion": resource.stored_kind.api_version}


def from_stored(resource: Resource, document: Document) -> Document:
    """A stored document in the resource's version."""
    if resource.kind == resource.stored_kind:
        return document
    if not resource.custom:
        _FROM.get(resource.storage, _same)(document)
    return {**document, "apiVersion": resource.kind.api_version}


def _same(document: Document) -> None:
    return


def _event_to_core(event: Document) -> None:
    for core, newer in _EVENT_NAMES.items():
        if newer in event:
            event[core] = event.pop(newer)


def _event_from_core(event: Document) -> None:
    for core, newer in _EVENT_NAMES.items():
        if core in event:
            event[newer] = event.pop(core)


def _cpu_metric(percent: int) -> Document:
    target = {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}


def _autoscaler_to_v2(document: Document) -> None:
    spec = document.get("spec", {})
    annotations = document["metadata"].get("annotations") or {}
    metrics: list[Any] = []
    if (percent := spec.pop("targetCPUUtilizationPercentage", None)) is not None:
        metrics.append(_cpu_metric(percent))
    metrics += _unpacked(annotations, _METRICS, "spec", "metrics") or []
    if metrics:
        spec["metrics"] = metrics
    if (behavior := _unpacked(annotations, _BEHAVIOR, "spec", "behavior")) is not None:
        spec["behavior"] = behavior
    status = document.get("status") or {}
    current = _unpacked(annotations, _CURRENT, "status", "currentMetrics") or []
    if (percent := status.pop("currentCPUUtilizationPercentage", None)) is not None:
        value = {"averageUtilization": percent}
        current.insert(0, {"type": "Resource", "resource": {"name": "cpu", "current": value}})
    if current:
        status["currentMetrics"] = current
    if (conditions := _unpacked(annotations, _CONDITIONS, "status", "conditions")) is not None:
        status["conditions"] = conditions


def _unpacked(annotations: dict[str, str], annotation: str, where: str, name: str) -> Any:
    """The field of version 2 that an annotation of version 1 carries; None if it is no such thing."""
    packed = annotations.pop(annotation, None)
    if packed is None:
        return None
    try:
        document = {"metadata": {}, where: {name: msgspec.json.decode(packed)}}
        found = decoding.conform(document, _AUTOSCALER, validation="Ignore").document
    except (msgspec.DecodeError, InvalidArgument):
        return None
    return found[where].get(name)


def _autoscaler_to_v1(document: Document) -> None:
    spec, status = document.get("spec", {}), document.get("status") or {}
    packed: dict[str, str] = {}
    metrics = spec.pop("metrics", None) or []
    for metric in list(metrics):
        target = metric.get("resource", {}).get("target", {})
        if metric.get("resource", {}).get("name") == "cpu" and "averageUtilization" in target:
            spec["targetCPUUtilizationPercentage"] = target["averageUtilization"]
            metrics.remove(metric)
            break
    current = status.pop("currentMetrics", None) or []
    for metric in list(current):
        value = metric.get("resource", {}).get("current", {})
        if metric.get("resource", {}).get("name") == "cpu" and "averageUtilization" in value:
            status["currentCPUUtilizationPercentage"] = value["averageUtilization"]
            current.remove(metric)
            break
    for name, value in (
        (_METRICS, metrics),
        (_CURRENT, current),
        (_CONDITIONS, status.pop("conditions", None)),
        (_BEHAVIOR, spec.pop("behavior", None)),
    ):
        if value:
            packed[name] = msgspec.json.encode(value).decode()
    if packed:
        metadata = document["metadata"]
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **packed}


_TO: Mapping[str, Callable[[Document], None]] = {
    "core/events": _event_to_core,
    "autoscaling/horizontalpodautoscalers": _autoscaler_to_v2,
}
_FROM: Mapping[str, Callable[[Document], None]] = {
    "core/events": _event_from_core,
    "autoscaling/horizontalpodautoscalers": _autoscaler_to_v1,
}
