"""Slot `scheduler`: decides on which node a pod runs.

In a cluster the plugin watches pods and nodes by `objects` and commits bindings; how it decides is
the method `place`, a pure question with everything it depends on in it.
"""

from __future__ import annotations

from typing import Protocol

from sagong.contract import Message, method, slot
from sagong.errors import InvalidArgument

__all__ = ["Placement", "Question", "Scheduler", "Verdict", "Victim"]


class Question(Message):
    """Pods to place, in queue order, on `nodes`, where `bound` pods run already.

    All are Kubernetes objects as JSON (core/v1 Pod and Node). Earlier pods of the list take their
    place before later ones are decided.
    """

    pods: tuple[bytes, ...]
    nodes: tuple[bytes, ...]
    bound: tuple[bytes, ...] = ()


class Victim(Message):
    """A bound pod that must go first (preemption)."""

    namespace: str
    name: str


class Placement(Message):
    """Where a pod goes; `node` "" if nowhere, then `reasons` says why, as upstream words it."""

    namespace: str
    name: str
    node: str = ""
    reasons: tuple[str, ...] = ()
    victims: tuple[Victim, ...] = ()


class Verdict(Message):
    """One placement for each pod of the question, in its order."""

    placements: tuple[Placement, ...]


@slot("scheduler", version=1)
class Scheduler(Protocol):
    """Places pods on nodes."""

    @method(idempotent=True, raises=(InvalidArgument,))
    async def place(self, question: Question) -> Verdict:
        """Decide; the same question has the same answer. InvalidArgument names a broken object."""
        ...
