"""Most-allocated fit: few nodes are full, the others can be switched off."""

from __future__ import annotations

from sagong.scheduling.decision import Decision
from sagong.scheduling.feasibility import NO_NODES, Feasibility, message
from sagong.scheduling.node import Node
from sagong.scheduling.shape import Pod
from sagong.scheduling.snapshot import Snapshot

__all__ = ["BinpackDecider"]


class BinpackDecider:
    """Looks at all nodes: the fullest one may be anywhere."""

    def decide(self, snapshot: Snapshot, pod: Pod) -> Decision:
        """The fullest feasible node; among equals the one with the first name."""
        if not snapshot.nodes:
            return Decision("", NO_NODES)
        total = len(snapshot.nodes)
        feasibility = Feasibility(snapshot, pod)
        if feasibility.problem:
            return Decision("", f"0/{total} nodes are available: {feasibility.problem}.")
        found, _, refusals = feasibility.find(limit=total)
        if refusals is not None:
            return Decision("", message(total, refusals.counts))
        return Decision(min(found, key=lambda node: (-_fullness(node), node.name)).name)


def _fullness(node: Node) -> float:
    """Mean share of cpu and memory taken; pods that ask for nothing count a little."""
    if not (node.cpu and node.memory):
        return 0.0
    return node.cpu_likely / node.cpu + node.memory_likely / node.memory
