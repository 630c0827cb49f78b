"""What checks of schedulers are made of: small pods and nodes as JSON, and one way to ask."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sagong.contracts.scheduler import Placement, Question, Scheduler, Verdict

__all__ = ["Json", "ask", "node", "node_of", "one", "pod", "reason_of", "spread", "term"]

Json = dict[str, Any]


def node(name: str, *, cpu: str = "4", memory: str = "8Gi", pods: int = 110, **more: Any) -> Json:
    """A node; `labels`, `taints`, `unschedulable` and `allocatable` may be given."""
    labels = {"kubernetes.io/hostname": name, **more.get("labels", {})}
    allocatable = {"cpu": cpu, "memory": memory, "pods": str(pods), **more.get("allocatable", {})}
    spec = {key: more[key] for key in ("taints", "unschedulable") if key in more}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": {"allocatable": allocatable, "capacity": allocatable},
    }


def pod(name: str, *, cpu: str = "", memory: str = "", on: str = "", **more: Any) -> Json:
    """A pod of one container; `labels`, `namespace`, `status`, `ports`, `requests` go where they
    belong, everything else is a field of its spec.
    """
    requests = dict(more.pop("requests", {}))
    requests |= {key: said for key, said in (("cpu", cpu), ("memory", memory)) if said}
    container = {"name": "c", "image": "i", "resources": {"requests": requests}}
    if "ports" in more:
        container["ports"] = more.pop("ports")
    metadata = {"name": name, "namespace": more.pop("namespace", "default"), "uid": f"uid-{name}"}
    metadata["labels"] = more.pop("labels", {})
    status = more.pop("status", {"phase": "Running" if on else "Pending"})
    spec = {"containers": [container], "schedulerName": "default-scheduler", **more}
    if on:
        spec["nodeName"] = on
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": spec,
        "status": status,
    }


def term(key: str, **labels: str) -> Json:
    """A term of pod affinity or anti-affinity."""
    return {"topologyKey": key, "labelSelector": {"matchLabels": labels}}


def spread(key: str, *, skew: int = 1, **labels: str) -> Json:
    """A topology spread constraint that must hold."""
    return {
        "topologyKey": key,
        "maxSkew": skew,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": labels},
    }


async def ask(
    scheduler: Scheduler,
    pods: Sequence[Json | bytes],
    nodes: Sequence[Json | bytes],
    bound: Sequence[Json | bytes] = (),
) -> tuple[Placement, ...]:
    """Put a question; the answer has one placement for each pod, in order."""
    question = Question(pods=_bodies(pods), nodes=_bodies(nodes), bound=_bodies(bound))
    verdict = await scheduler.place(question)
    assert isinstance(verdict, Verdict), f"place answers a Verdict, not {verdict!r}"
    assert len(verdict.placements) == len(pods), "one placement for each pod"
    for wanted, placement in zip(pods, verdict.placements):
        if isinstance(wanted, dict):
            meta = wanted["metadata"]
            assert (placement.namespace, placement.name) == (meta["namespace"], meta["name"])
    return verdict.placements


def _bodies(objects: Sequence[Json | bytes]) -> tuple[bytes, ...]:
    return tuple(o if isinstance(o, bytes) else json.dumps(o).encode() for o in objects)


async def one(
    scheduler: Scheduler, wanted: Json, nodes: Sequence[Json], bound: Sequence[Json] = ()
) -> Placement:
    """The placement of a single pod."""
    (placement,) = await ask(scheduler, [wanted], nodes, bound)
    return placement


async def node_of(
    scheduler: Scheduler, wanted: Json, nodes: Sequence[Json], bound: Sequence[Json] = ()
) -> str:
    """The node of a single pod that fits without anybody's going; "" if there is none."""
    placement = await one(scheduler, wanted, nodes, bound)
    if placement.node and not placement.victims:
        assert not placement.reasons, "a placed pod has no reasons"
        return placement.node
    assert placement.reasons, "a pod that was not placed is told why"
    return ""


async def reason_of(
    scheduler: Scheduler, wanted: Json, nodes: Sequence[Json], bound: Sequence[Json] = ()
) -> str:
    """Why a single pod was not placed, in one line."""
    placement = await one(scheduler, wanted, nodes, bound)
    assert not placement.node or placement.victims, f"placed on {placement.node}"
    return " ".join(placement.reasons)
