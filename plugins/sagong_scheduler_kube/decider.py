"""The kube-scheduler's way to decide: filter, score a sample of the feasible nodes, else preempt."""

from __future__ import annotations

from sagong.scheduling.decision import Decision
from sagong.scheduling.feasibility import NO_NODES, Feasibility, Refusals, message
from sagong.scheduling.shape import Pod, Shape
from sagong.scheduling.snapshot import Snapshot
from sagong_scheduler_kube.preemption import UNHELPFUL, preempt
from sagong_scheduler_kube.scores import best

__all__ = ["KubeDecider", "sample_size"]

LEAST_SAMPLE = 100


def sample_size(nodes: int, percentage: int) -> int:
    """How many feasible nodes are scored: all of few; of many a percentage, 100 at least."""
    if nodes <= LEAST_SAMPLE or percentage >= 100:
        return nodes
    return max(nodes * percentage // 100, LEAST_SAMPLE)


class KubeDecider:
    """Decides; begins each search where the last one ended, so that samples differ."""

    def __init__(self, percentage: int = 0) -> None:
        self._percentage = percentage
        self._start = 0
        # The last failure: equal pods fail equally until something changes.
        self._failed: tuple[Shape, int, bool, int] | None = None
        self._failure = ""

    def decide(self, snapshot: Snapshot, pod: Pod) -> Decision:
        """Where the pod goes."""
        if not snapshot.nodes:
            return Decision("", NO_NODES)
        case = (pod.shape, pod.priority, pod.may_preempt, snapshot.changes)
        if case == self._failed and not pod.nominated:
            return Decision("", self._failure)
        feasibility = Feasibility(snapshot, pod)
        if feasibility.problem:
            return self._hopeless(snapshot, pod, feasibility)
        limit = sample_size(len(snapshot.nodes), self._percentage)
        found, seen, refusals = feasibility.find(limit, self._start)
        if refusals is not None:
            return self._refused(snapshot, pod, refusals)
        self._start += seen
        return Decision(best(snapshot, pod, found, feasibility.standing).name)

    def _hopeless(self, snapshot: Snapshot, pod: Pod, feasibility: Feasibility) -> Decision:
        total = len(snapshot.nodes)
        why = f"0/{total} nodes are available: {feasibility.problem}."
        return Decision("", f"{why} preemption: {message(total, {UNHELPFUL: total})}")

    def _refused(self, snapshot: Snapshot, pod: Pod, refusals: Refusals) -> Decision:
        why = message(len(snapshot.nodes), refusals.counts)
        sacrifice = preempt(snapshot, pod, refusals)
        if sacrifice.node:
            return Decision(sacrifice.node, why, sacrifice.victims)
        # Looking for victims changes nothing in the end, but counts as changes.
        self._failed = (pod.shape, pod.priority, pod.may_preempt, snapshot.changes)
        self._failure = f"{why} preemption: {sacrifice.why}"
        return Decision("", self._failure)
