"""Slot `scheduler` as the kube-scheduler does it: its filters, scores, queue and preemption."""

from __future__ import annotations

from sagong.host import Host
from sagong.scheduling.scheduler import ClusterScheduler, Settings
from sagong_scheduler_kube.decider import KubeDecider

__all__ = ["Configuration", "SchedulerKube"]


class Configuration(Settings, frozen=True, forbid_unknown_fields=True):
    """`percentage_of_nodes_to_score` as upstream's; 0: a hundred feasible nodes are enough.

    `scheduler_names`: the values of a pod's spec.schedulerName that it serves; by default its
    instance's name, or default-scheduler.
    """

    percentage_of_nodes_to_score: int = 0


class SchedulerKube(ClusterScheduler):
    """Scores a sample of the nodes that can take a pod, and makes room where none can."""

    def __init__(self, host: Host) -> None:
        settings = host.config(Configuration)
        percentage = settings.percentage_of_nodes_to_score
        super().__init__(host, lambda: KubeDecider(percentage), settings)
