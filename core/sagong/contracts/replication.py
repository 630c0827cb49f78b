"""Slot `replication`: makes what is be what is wished, for workloads and what hangs on them.

In a cluster the plugin watches by `objects` and commits batches. How it decides is the method
`reconcile`, a pure question with everything it depends on in it.
"""

from __future__ import annotations

from typing import Protocol

from sagong.contract import Message, method, slot
from sagong.contracts.objects import Write
from sagong.errors import InvalidArgument

__all__ = ["Plan", "Replication", "Situation"]


class Situation(Message):
    """All objects that matter (Kubernetes objects as JSON, apiVersion and kind set), and the time.

    `now` is seconds since the epoch; `seed` makes generated names repeatable.
    """

    objects: tuple[bytes, ...]
    now: float
    seed: int = 0


class Plan(Message):
    """The writes to commit, and when to look again without a change (seconds, 0: never)."""

    writes: tuple[Write, ...] = ()
    again_seconds: float = 0.0


@slot("replication", version=1)
class Replication(Protocol):
    """Controllers."""

    @method(idempotent=True, raises=(InvalidArgument,))
    async def reconcile(self, situation: Situation) -> Plan:
        """Decide what to write; the same situation has the same plan."""
        ...
