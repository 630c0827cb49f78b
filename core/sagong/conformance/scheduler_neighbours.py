"""Checks of schedulers about pods near each other: affinity, anti-affinity, topology spread."""

from __future__ import annotations

from typing import Any

from sagong.conformance.scheduler_lab import ask, node, node_of, pod, reason_of, spread, term
from sagong.contracts.scheduler import Scheduler

__all__ = [
    "check_affinity_to_nobody_is_refused",
    "check_affinity_to_other_namespaces_needs_naming",
    "check_anti_affinity_keeps_apart",
    "check_ended_pods_take_nothing",
    "check_first_of_a_group_may_go_anywhere",
    "check_pods_of_a_question_repel_each_other",
    "check_present_anti_affinity_holds_for_newcomers",
    "check_required_affinity_is_kept",
    "check_spread_counts_the_questions_own_pods",
    "check_spread_needs_the_label",
    "check_topology_spread_is_kept",
]

ZONE = "topology.kubernetes.io/zone"
HOST = "kubernetes.io/hostname"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
NODES = [
    node("a1", labels={ZONE: "a"}),
    node("a2", labels={ZONE: "a"}),
    node("b1", labels={ZONE: "b"}),
]


def near(*terms: dict[str, Any]) -> dict[str, Any]:
    """Pod affinity that must hold."""
    return {"podAffinity": {REQUIRED: [*terms]}}


def far(*terms: dict[str, Any]) -> dict[str, Any]:
    """Pod anti-affinity that must hold."""
    return {"podAntiAffinity": {REQUIRED: [*terms]}}


async def check_required_affinity_is_kept(scheduler: Scheduler) -> None:
    """A pod goes to the place where those are that it needs."""
    bound = [pod("db", labels={"app": "db"}, on="b1")]
    wanted = pod("p", affinity=near(term(ZONE, app="db")))
    assert await node_of(scheduler, wanted, NODES, bound) == "b1"
    bound = [pod("db", labels={"app": "db"}, on="a1")]
    full = pod("full", cpu="4", on="a1")
    wanted = pod("p", cpu="1", affinity=near(term(ZONE, app="db")))
    assert await node_of(scheduler, wanted, NODES, [*bound, full]) == "a2"


async def check_affinity_to_nobody_is_refused(scheduler: Scheduler) -> None:
    """Where nobody is that it needs, it waits."""
    wanted = pod("p", labels={"app": "web"}, affinity=near(term(ZONE, app="db")))
    reason = await reason_of(scheduler, wanted, NODES)
    assert "3 node(s) didn't match pod affinity rules" in reason


async def check_first_of_a_group_may_go_anywhere(scheduler: Scheduler) -> None:
    """Pods that want to be with their like would else never begin; later ones follow the first."""
    pods = [
        pod(f"p{n}", labels={"app": "web"}, affinity=near(term(ZONE, app="web"))) for n in range(4)
    ]
    placements = await ask(scheduler, pods, NODES)
    zones = {p.node[:1] for p in placements}
    assert zones == {"a"} or zones == {"b"}, placements


async def check_affinity_to_other_namespaces_needs_naming(scheduler: Scheduler) -> None:
    """A term means pods of the pod's own namespace unless it names others."""
    bound = [pod("db", namespace="data", labels={"app": "db"}, on="b1")]
    own = pod("p", affinity=near(term(ZONE, app="db")))
    assert await node_of(scheduler, own, NODES, bound) == ""
    named = pod("p", affinity=near({**term(ZONE, app="db"), "namespaces": ["data"]}))
    assert await node_of(scheduler, named, NODES, bound) == "b1"
    every = pod("p", affinity=near({**term(ZONE, app="db"), "namespaceSelector": {}}))
    assert await node_of(scheduler, every, NODES, bound) == "b1"


async def check_anti_affinity_keeps_apart(scheduler: Scheduler) -> None:
    """A pod stays away from those that it can't bear, place by place."""
    bound = [pod("x", labels={"app": "x"}, on="a1")]
    wanted = pod("p", affinity=far(term(ZONE, app="x")))
    assert await node_of(scheduler, wanted, NODES, bound) == "b1"
    reason = await reason_of(scheduler, wanted, NODES[:2], bound)
    assert "2 node(s) didn't match pod anti-affinity rules" in reason


async def check_present_anti_affinity_holds_for_newcomers(scheduler: Scheduler) -> None:
    """Pods that are there keep away whom they can't bear, though the newcomer does not mind."""
    bound = [pod("x", affinity=far(term(ZONE, app="web")), on="a1")]
    wanted = pod("p", labels={"app": "web"})
    assert await node_of(scheduler, wanted, NODES, bound) == "b1"
    reason = await reason_of(scheduler, wanted, NODES[:2], bound)
    assert "2 node(s) didn't satisfy existing pods anti-affinity rules" in reason


async def check_pods_of_a_question_repel_each_other(scheduler: Scheduler) -> None:
    """One per host: the fourth finds none of three."""
    pods = [
        pod(f"p{n}", labels={"app": "web"}, affinity=far(term(HOST, app="web"))) for n in range(4)
    ]
    placements = await ask(scheduler, pods, NODES)
    assert {p.node for p in placements[:3]} == {"a1", "a2", "b1"}
    assert placements[3].node == ""


async def check_topology_spread_is_kept(scheduler: Scheduler) -> None:
    """The difference between places stays within maxSkew."""
    bound = [pod("x", labels={"app": "web"}, on="a1")]
    wanted = pod("p", labels={"app": "web"}, topologySpreadConstraints=[spread(ZONE, app="web")])
    assert await node_of(scheduler, wanted, NODES, bound) == "b1"
    full = pod("full", cpu="4", on="b1")
    wanted = pod(
        "p", cpu="1", labels={"app": "web"}, topologySpreadConstraints=[spread(ZONE, app="web")]
    )
    reason = await reason_of(scheduler, wanted, NODES, [*bound, full])
    assert "2 node(s) didn't match pod topology spread constraints" in reason
    loose = [spread(ZONE, skew=2, app="web")]
    wanted = pod("p", cpu="1", labels={"app": "web"}, topologySpreadConstraints=loose)
    assert await node_of(scheduler, wanted, NODES, [*bound, full]) in ("a1", "a2")


async def check_spread_counts_the_questions_own_pods(scheduler: Scheduler) -> None:
    """Six pods over two zones are three and three."""
    rule = [spread(ZONE, app="web")]
    pods = [pod(f"p{n}", labels={"app": "web"}, topologySpreadConstraints=rule) for n in range(6)]
    zones = [p.node[:1] for p in await ask(scheduler, pods, NODES)]
    assert zones.count("a") == zones.count("b") == 3


async def check_spread_needs_the_label(scheduler: Scheduler) -> None:
    """A node outside all places can't keep a constraint."""
    wanted = pod("p", labels={"app": "web"}, topologySpreadConstraints=[spread(ZONE, app="web")])
    reason = await reason_of(scheduler, wanted, [node("plain")])
    expected = "1 node(s) didn't match pod topology spread constraints (missing required label)"
    assert expected in reason


async def check_ended_pods_take_nothing(scheduler: Scheduler) -> None:
    """Pods that succeeded or failed free their room, their ports and their place."""
    for phase in ("Succeeded", "Failed"):
        ended = pod("x", cpu="4", labels={"app": "x"}, on="a1", status={"phase": phase})
        wanted = pod("p", cpu="4", affinity=far(term(HOST, app="x")))
        assert await node_of(scheduler, wanted, NODES[:1], [ended]) == "a1"
