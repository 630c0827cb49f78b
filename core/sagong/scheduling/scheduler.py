"""A scheduler around its decider: answers `place`, binds pods in a cluster, sleeps between."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sagong.contracts.objects import Objects
from sagong.contracts.scheduler import Question, Verdict
from sagong.host import Host
from sagong.scheduling.decision import Decider, answer
from sagong.scheduling.dispatch import Dispatch
from sagong.scheduling.hooks import filters

__all__ = ["ClusterScheduler", "Settings"]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`scheduler_names`: the values of a pod's spec.schedulerName that it serves; by default its
    instance's name, or default-scheduler."""

    scheduler_names: tuple[str, ...] = ()


class ClusterScheduler:
    """Fills slot `scheduler`; what it is made for is its decider.

    `decider` makes one: the cluster has its own for as long as it is followed, and each question of
    `place` a new one, so that the same question has the same answer.
    """

    def __init__(self, host: Host, decider: Callable[[], Decider], settings: Settings) -> None:
        self._host = host
        self._decider = decider
        # A pod names its scheduler by instance; the default one has Kubernetes' own name.
        self._names = settings.scheduler_names or (host.instance or "default-scheduler",)
        self._filters = filters(host)

    async def start(self) -> None:
        """Begin to follow pods and nodes; returns at once."""
        self._dispatch = Dispatch(
            self._host.use(Objects),
            self._decider(),
            names=self._names,
            log=self._host.log,
            filters=self._filters,
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
        return answer(self._decider(), question, self._filters)
