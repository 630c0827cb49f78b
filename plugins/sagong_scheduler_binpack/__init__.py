"""Slot `scheduler` that fills nodes: each pod goes to the fullest node that can take it."""

from __future__ import annotations

from sagong.host import Host
from sagong.scheduling.decision import Foremost
from sagong.scheduling.node import Node
from sagong.scheduling.scheduler import ClusterScheduler, Settings

__all__ = ["SchedulerBinpack", "fullness"]


def fullness(node: Node) -> float:
    """Mean share of cpu and memory taken, twice; pods that ask for nothing count a little."""
    if not (node.cpu and node.memory):
        return 0.0
    return node.cpu_likely / node.cpu + node.memory_likely / node.memory


class SchedulerBinpack(ClusterScheduler):
    """Few nodes are full, the others can be switched off."""

    def __init__(self, host: Host) -> None:
        super().__init__(host, lambda: Foremost(fullness), host.config(Settings))
