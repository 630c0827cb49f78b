"""Slot `replication` with Kubernetes' controllers: what is wished becomes what is."""

from __future__ import annotations

import msgspec

from sagong.contracts.metrics import Metrics
from sagong.contracts.objects import Objects
from sagong.contracts.replication import Plan, Situation
from sagong.errors import InvalidArgument, NotFound
from sagong.host import Host
from sagong_replication_kube.loop import Loop
from sagong_replication_kube.situation import plan

__all__ = ["Configuration", "ReplicationKube"]


class Configuration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing can be set yet."""


class ReplicationKube:
    """Answers `reconcile`, and runs the controllers where API objects are served."""

    def __init__(self, host: Host) -> None:
        self._host = host
        host.config(Configuration)

    async def start(self) -> None:
        """Begin to follow; returns at once."""
        self._loop = Loop(self._host.use(Objects), self._metrics(), log=self._host.log)
        self._host.spawn(self._loop.run(), "controllers")

    def busy(self) -> bool:
        """Whether a controller has something to do, now or soon."""
        return self._loop.busy()

    async def doze(self) -> float:
        """Sleep until something changes, a node falls silent, or something is due."""
        return await self._loop.doze()

    def _metrics(self) -> Metrics | None:
        try:
            return self._host.use(Metrics)
        except NotFound:
            return None  # a host without it: only autoscalers miss it

    def reconcile(self, situation: Situation) -> Plan:
        """Decide the question; nothing of the cluster's state plays a part."""
        try:
            return plan(situation)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            said = f"{type(error).__name__}: {error}"
            raise InvalidArgument(f"an object lacks what its kind must have: {said}") from None
