"""Checks of preemption: who preempts must do it right; who never does it passes."""

from __future__ import annotations

from sagong.conformance.scheduler_lab import node, one, pod
from sagong.contracts.scheduler import Scheduler

__all__ = [
    "check_equals_are_no_victims",
    "check_never_preempts_when_told_so",
    "check_victims_are_lower_and_make_room",
]


async def check_victims_are_lower_and_make_room(scheduler: Scheduler) -> None:
    """Victims run on the named node, have lower priority, are needed, and are enough."""
    nodes = [node("a"), node("b")]
    bound = [
        pod("low-a", cpu="3", priority=1, on="a"),
        pod("tiny-a", cpu="100m", priority=1, on="a"),
        pod("high-b", cpu="3", priority=100, on="b"),
    ]
    placement = await one(scheduler, pod("p", cpu="3", priority=10), nodes, bound)
    if not placement.victims:
        assert placement.node == "" and placement.reasons
        return
    assert placement.node == "a"
    assert [victim.name for victim in placement.victims] == ["low-a"]
    assert placement.reasons, "it can't run yet, and is told why"


async def check_equals_are_no_victims(scheduler: Scheduler) -> None:
    """Nobody goes for a pod that is not more important."""
    bound = [pod("x", cpu="4", priority=10, on="a")]
    placement = await one(scheduler, pod("p", cpu="1", priority=10), [node("a")], bound)
    assert placement.node == "" and placement.victims == ()
    assert "1 Insufficient cpu" in placement.reasons[0]


async def check_never_preempts_when_told_so(scheduler: Scheduler) -> None:
    """preemptionPolicy Never is kept."""
    bound = [pod("x", cpu="4", priority=1, on="a")]
    wanted = pod("p", cpu="1", priority=10, preemptionPolicy="Never")
    placement = await one(scheduler, wanted, [node("a")], bound)
    assert placement.node == "" and placement.victims == ()
