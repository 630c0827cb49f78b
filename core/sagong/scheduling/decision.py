"""Decisions: what a scheduler answers for a pod, and the loop over the pods of a question."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from sagong.contracts.scheduler import Placement, Question, Verdict, Victim
from sagong.scheduling.documents import PodDocument, read
from sagong.scheduling.feasibility import GATED, NO_NODES, Feasibility, message
from sagong.scheduling.node import Node
from sagong.scheduling.shape import Pod
from sagong.scheduling.snapshot import Filter, Snapshot

__all__ = ["Decider", "Decision", "Foremost", "answer", "take"]


class Decision(NamedTuple):
    """`node` "" with `why` if the pod fits nowhere; with `victims` it fits there once they are gone."""

    node: str
    why: str = ""
    victims: tuple[Pod, ...] = ()


class Decider(Protocol):
    """The part of a scheduler that decides; it changes nothing of the snapshot."""

    def decide(self, snapshot: Snapshot, pod: Pod) -> Decision:
        """Where the pod goes."""
        ...


class Foremost:
    """Decides by one number a node: of all that can take the pod, the one with the greatest."""

    def __init__(self, rank: Callable[[Node], float]) -> None:
        self._rank = rank

    def decide(self, snapshot: Snapshot, pod: Pod) -> Decision:
        """Where the pod goes; among equals to the first name. The filters say which nodes can."""
        if not snapshot.nodes:
            return Decision("", NO_NODES)
        total = len(snapshot.nodes)
        feasibility = Feasibility(snapshot, pod)
        if feasibility.problem:
            return Decision("", f"0/{total} nodes are available: {feasibility.problem}.")
        found, _, refusals = feasibility.find(limit=total)
        if refusals is not None:
            return Decision("", message(total, refusals.counts))
        rank = self._rank
        return Decision(min(found, key=lambda node: (-rank(node), node.name)).name)


def answer(decider: Decider, question: Question, filters: tuple[Filter, ...] = ()) -> Verdict:
    """Decide a closed question pod by pod; each takes its place before the next is decided."""
    snapshot = Snapshot.of(question.nodes, question.bound, filters)
    placements = []
    for number, body in enumerate(question.pods):
        document = read(body, PodDocument, f"pod {number}")
        pod = snapshot.pod(document, document.spec.node_name)
        decision = Decision("", GATED) if pod.gated else decider.decide(snapshot, pod)
        take(snapshot, pod, decision)
        placements.append(
            Placement(
                namespace=pod.namespace,
                name=pod.name,
                node=decision.node,
                reasons=(decision.why,) if decision.why else (),
                victims=tuple(Victim(namespace=v.namespace, name=v.name) for v in decision.victims),
            )
        )
    return Verdict(placements=tuple(placements))


def take(snapshot: Snapshot, pod: Pod, decision: Decision) -> None:
    """Let the pod take the place that was decided, or wait for the room being made."""
    if not decision.node:
        return
    if decision.victims:
        for victim in decision.victims:
            snapshot.doom(victim)
        snapshot.nominate(pod, decision.node)
        return
    snapshot.dismiss(pod.key)
    pod.node = decision.node
    snapshot.add(pod)
