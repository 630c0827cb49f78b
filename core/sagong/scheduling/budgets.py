"""PodDisruptionBudgets as preemption minds them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from sagong.model.selectors import LabelSelector, from_object
from sagong.scheduling.documents import BudgetDocument
from sagong.scheduling.shape import Pod

__all__ = ["Budget", "budget", "violations"]


class Budget(NamedTuple):
    """Whom it protects, and how many more of them may go."""

    namespace: str
    selector: LabelSelector
    allowed: int


def budget(document: BudgetDocument) -> Budget:
    """From the object."""
    said = document.spec.selector
    return Budget(
        document.metadata.namespace,
        from_object({} if said is None else msgspec.to_builtins(said)),
        document.status.disruptions_allowed if document.status is not None else 0,
    )


def violations(pods: Iterable[Pod], budgets: Iterable[Budget]) -> set[tuple[str, str]]:
    """The pods whose going, in this order, would break a budget."""
    left = [[b, b.allowed] for b in budgets]
    broken = set()
    for pod in pods:
        for entry in left:
            one: Budget = entry[0]  # type: ignore[assignment]
            if one.namespace != pod.namespace or not one.selector.matches(pod.shape.labels):
                continue
            entry[1] -= 1  # type: ignore[operator]
            if entry[1] < 0:  # type: ignore[operator]
                broken.add(pod.key)
    return broken
