"""Preemption: which pods of lower priority should go so that a pod fits, and on which node.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sagong.scheduling.budgets import violations
from sagong.scheduling.feasibility import Feasibility, Refusals, message
from sagong.scheduling.node import Node
from sagong.scheduling.shape import Pod
from sagong.scheduling.snapshot import Snapshot

__all__ = ["Sacrifice", "preempt"]

UNHELPFUL = "Preemption is not helpful for scheduling"
NO_VICTIMS = "No preemption victims found for incoming pod"
NEVER = "not eligible due to preemptionPolicy=Never."
LEAVING = "not eligible due to terminating pod on the nominated node."


class Sacrifice(NamedTuple):
    """Where room can be made, and who must go; without a node, `why` says so."""

    node: str
    victims: tuple[Pod, ...]
    why: str


class _Candidate(NamedTuple):
    """A node and the victims there; candidates compare by how little they hurt."""

    broken: int
    highest: int
    total: int
    number: int
    youngest: float
    at: int
    victims: tuple[Pod, ...]
    node: str


def preempt(snapshot: Snapshot, pod: Pod, refusals: Refusals) -> Sacrifice:
    """Find the node where making room hurts least."""
    if not pod.may_preempt:
        return Sacrifice("", (), NEVER)
    if _leaving(snapshot, pod):
        return Sacrifice("", (), LEAVING)
    candidates: list[_Candidate] = []
    most = max(len(snapshot.nodes) // 10, 100)
    for at, node in enumerate(refusals.helpable):
        found = _victims(snapshot, pod, node, at)
        if found is not None:
            candidates.append(found)
            if len(candidates) >= most:
                break
    if not candidates:
        counts = {NO_VICTIMS: len(refusals.helpable)} if refusals.helpable else {}
        rest = len(snapshot.nodes) - len(refusals.helpable)
        counts |= {UNHELPFUL: rest} if rest else {}
        return Sacrifice("", (), message(len(snapshot.nodes), counts))
    chosen = min(candidates)
    return Sacrifice(chosen.node, chosen.victims, "")


def _leaving(snapshot: Snapshot, pod: Pod) -> bool:
    """Whether an earlier sacrifice for this pod is still on its way out."""
    node = snapshot.nodes.get(pod.nominated)
    if node is None:
        return False
    return any(p.terminating and p.priority < pod.priority for p in node.pods.values())


def _victims(snapshot: Snapshot, pod: Pod, node: Node, at: int) -> _Candidate | None:
    """Take away all pods of lower priority, then give back as many as possible, important first."""
    lower = [p for p in node.pods.values() if p.priority < pod.priority]
    if not lower or not _could_fit(pod, node, lower):
        return None
    for victim in lower:
        snapshot.remove(victim.key)
    back = list(lower)
    try:
        if not _fits(snapshot, pod, node):
            return None
        lower.sort(key=_importance)
        broken = violations(lower, snapshot.budgets.values())
        victims = []
        # Those whose going would break a budget are given back first.
        for victim in sorted(lower, key=lambda p: p.key not in broken):
            snapshot.add(victim)
            back.remove(victim)
            if not _fits(snapshot, pod, node):
                snapshot.remove(victim.key)
                back.append(victim)
                victims.append(victim)
    finally:
        for victim in back:
            snapshot.add(victim)
    return _candidate(victims, broken, at, node) if victims else None


def _fits(snapshot: Snapshot, pod: Pod, node: Node) -> bool:
    return Feasibility(snapshot, pod).admits(node)


def _importance(pod: Pod) -> tuple[int, float, tuple[str, str]]:
    return (-pod.priority, pod.started or pod.created, pod.key)


def _could_fit(pod: Pod, node: Node, lower: Sequence[Pod]) -> bool:
    """A quick look at cpu and memory before anything is tried."""
    wants = pod.shape
    cpu = node.cpu_free + sum(p.shape.demand.cpu for p in lower)
    memory = node.memory_free + sum(p.shape.demand.memory for p in lower)
    return cpu >= wants.cpu_floor and memory >= wants.memory_floor


def _candidate(
    victims: Sequence[Pod], broken: set[tuple[str, str]], at: int, node: Node
) -> _Candidate:
    highest = max(p.priority for p in victims)
    started = min(p.started or p.created for p in victims if p.priority == highest)
    ordered = tuple(sorted(victims, key=_importance))
    return _Candidate(
        broken=sum(p.key in broken for p in victims),
        highest=highest,
        # As upstream: shifted so that several low ones never count less than one.
        total=sum(p.priority + (1 << 31) for p in victims),
        number=len(victims),
        youngest=-started,
        at=at,
        victims=ordered,
        node=node.name,
    )
