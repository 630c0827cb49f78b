"""Slot `scheduler` as the kube-scheduler does it: its filters, scores, queue and preemption."""

from __future__ import annotations

import msgspec

from sagong.contracts.objects import Objects
from sagong.contracts.scheduler import Question, Verdict
from sagong.host import Host
from sagong.scheduling.decision import answer
from sagong.scheduling.dispatch import Dispatch
from sagong.scheduling.hooks import filters
from sagong.scheduling.naming import names_of
from sagong_scheduler_kube.decider import KubeDecider

__all__ = ["Configuration", "SchedulerKube"]


class Configuration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`percentage_of_nodes_to_score` as upstream's; 0: a hundred feasible nodes are enough.

    `scheduler_names`: the values of a pod's spec.schedulerName that it serves; by default its
    instance's name.
    """

    percentage_of_nodes_to_score: int = 0
    scheduler_names: tuple[str, ...] = ()


class SchedulerKube:
    """Answers `place`, and binds pending pods where API objects are served."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._configuration = host.config(Configuration)
        self._filters = filters(host)

    async def start(self) -> None:
        """Begin to follow pods and nodes; returns at once."""
        decider = KubeDecider(self._configuration.percentage_of_nodes_to_score)
        self._dispatch = Dispatch(
            self._host.use(Objects),
            decider,
            names=names_of(self._host, self._configuration.scheduler_names),
            log=self._host.log,
            filters=self._filters,
            budgets=decider.budgets,
        )
        self._host.spawn(self._dispatch.run(), "dispatch")

    def busy(self) -> bool:
        """Whether a pod is to be placed, or something may follow soon."""
        return self._dispatch.busy()

    async def doze(self) -> float:
        """Sleep until something comes that can make a pod fit, or a pod."""
        return await self._dispatch.doze()

    def place(self, question: Question) -> Verdict:
        """Decide the question; nothing of the cluster's state plays a part."""
        decider = KubeDecider(self._configuration.percentage_of_nodes_to_score)
        return answer(decider, question, self._filters)
