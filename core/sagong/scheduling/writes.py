"""What a scheduler writes: bindings, conditions, nominations, evictions of victims, events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from sagong.contracts.objects import Verb, Write
from sagong.model.times import time_text
from sagong.scheduling.decision import Decision
from sagong.scheduling.shape import Pod
from sagong.scheduling.volumes import SELECTED_NODE, Binding

__all__ = ["bind", "claim_writes", "refusal_writes", "sacrifice_writes"]

PODS: Final = "v1/pods"
_ENCODER: Final = msgspec.json.Encoder()


def bind(pod: Pod, node: str, now: float) -> tuple[Write, Write]:
    """The binding and its event."""
    binding = Write(
        verb=Verb.BIND,
        resource=PODS,
        name=pod.name,
        namespace=pod.namespace,
        uid=pod.uid,
        node=node,
    )
    said = f"Successfully assigned {pod.namespace}/{pod.name} to {node}"
    return binding, event(pod, "Normal", "Scheduled", said, "Binding", now)


def refusal_writes(pod: Pod, body: bytes, decision: Decision, now: float) -> Iterator[Write]:
    """Say at the pod that it fits nowhere; nothing if just that is said already."""
    condition = _condition("PodScheduled", "False", "Unschedulable", decision.why, now)
    patch = _status_patch(body, condition, decision.node)
    if patch is None:
        return
    yield _patch(pod, patch)
    yield event(pod, "Warning", "FailedScheduling", decision.why, "Scheduling", now)


def sacrifice_writes(pod: Pod, victim: Pod, body: bytes, node: str, now: float) -> Iterator[Write]:
    """Let a victim end: say why, then delete it with its own grace."""
    said = f"{pod.scheduler}: preempting to accommodate a higher priority pod"
    condition = _condition("DisruptionTarget", "True", "PreemptionByScheduler", said, now)
    patch = _status_patch(body, condition, "") if body else None
    if patch is not None:
        yield _patch(victim, patch)
    yield Write(
        verb=Verb.DELETE,
        resource=PODS,
        name=victim.name,
        namespace=victim.namespace,
        uid=victim.uid,
    )
    note = f"Preempted by pod {pod.uid} on node {node}"
    yield event(victim, "Normal", "Preempted", note, "Preempting", now, by=pod.scheduler)


def claim_writes(bindings: Iterable[Binding], node: str) -> Iterator[Write]:
    """Bind claims: promise a volume, or ask its provisioner to make one for the node."""
    for binding in bindings:
        if binding.volume:
            reference = {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": binding.namespace,
                "name": binding.claim,
            }
            yield Write(
                verb=Verb.PATCH,
                resource="v1/persistentvolumes",
                name=binding.volume,
                body=_ENCODER.encode({"spec": {"claimRef": reference}}),
            )
        else:
            yield Write(
                verb=Verb.PATCH,
                resource="v1/persistentvolumeclaims",
                name=binding.claim,
                namespace=binding.namespace,
                body=_ENCODER.encode({"metadata": {"annotations": {SELECTED_NODE: node}}}),
            )


def event(
    pod: Pod, kind: str, reason: str, said: str, action: str, now: float, *, by: str = ""
) -> Write:
    """An event about a pod, as kubectl describe shows it."""
    stamp = time_text(now)
    name = f"{pod.name[:230]}.{int(now * 1e9):x}"
    body = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": pod.namespace or "default"},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
        },
        "type": kind,
        "reason": reason,
        "message": said[:1024],
        "action": action,
        "source": {"component": by or pod.scheduler},
        "reportingComponent": by or pod.scheduler,
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
    }
    return Write(
        verb=Verb.CREATE,
        resource="v1/events",
        name=name,
        namespace=pod.namespace or "default",
        body=_ENCODER.encode(body),
    )


def _condition(type_: str, status: str, reason: str, said: str, now: float) -> dict[str, str]:
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": said,
        "lastTransitionTime": time_text(now),
    }


class _Status(msgspec.Struct, rename="camel"):
    conditions: tuple[dict[str, Any], ...] | None = None
    nominated_node_name: str = ""


class _Meta(msgspec.Struct, rename="camel"):
    resource_version: str = ""


class _PodStatus(msgspec.Struct):
    metadata: _Meta
    status: _Status = msgspec.field(default_factory=_Status)


_STATUS: Final = msgspec.json.Decoder(_PodStatus)


def _status_patch(body: bytes, condition: dict[str, str], nominated: str) -> dict[str, Any] | None:
    """A merge patch replaces the list of conditions, so it is made from the present one."""
    found = _STATUS.decode(body)
    conditions = list(found.status.conditions or ())
    for at, old in enumerate(conditions):
        if old.get("type") != condition["type"]:
            continue
        if old.get("status") == condition["status"]:
            if (
                old.get("reason") == condition["reason"]
                and old.get("message") == condition["message"]
                and found.status.nominated_node_name == nominated
            ):
                return None
            condition["lastTransitionTime"] = old.get("lastTransitionTime", "")
        conditions[at] = {**old, **condition}
        break
    else:
        conditions.append(condition)
    status: dict[str, Any] = {"conditions": conditions}
    if nominated or found.status.nominated_node_name:
        status["nominatedNodeName"] = nominated or None
    return {"metadata": {"resourceVersion": found.metadata.resource_version}, "status": status}


def _patch(pod: Pod, patch: dict[str, Any]) -> Write:
    return Write(
        verb=Verb.PATCH,
        resource=PODS,
        name=pod.name,
        namespace=pod.namespace,
        subresource="status",
        uid=pod.uid,
        body=_ENCODER.encode(patch),
    )
