"""What every implementation of slot `scheduler` must do; where it does not matter, it may choose.

The lab is the candidate itself. Nothing is said of which of several good nodes is taken.
"""

from __future__ import annotations

from sagong.conformance.scheduler_lab import Json, ask, node, node_of, one, pod, reason_of
from sagong.conformance.scheduler_neighbours import (
    check_affinity_to_nobody_is_refused,
    check_affinity_to_other_namespaces_needs_naming,
    check_anti_affinity_keeps_apart,
    check_ended_pods_take_nothing,
    check_first_of_a_group_may_go_anywhere,
    check_pods_of_a_question_repel_each_other,
    check_present_anti_affinity_holds_for_newcomers,
    check_required_affinity_is_kept,
    check_spread_counts_the_questions_own_pods,
    check_spread_needs_the_label,
    check_topology_spread_is_kept,
)
from sagong.conformance.scheduler_preemption import (
    check_equals_are_no_victims,
    check_never_preempts_when_told_so,
    check_victims_are_lower_and_make_room,
)
from sagong.contracts.scheduler import Scheduler
from sagong.errors import InvalidArgument

__all__ = [
    "check_affinity_to_nobody_is_refused",
    "check_affinity_to_other_namespaces_needs_naming",
    "check_all_tolerations_forms",
    "check_anti_affinity_keeps_apart",
    "check_bound_pods_take_their_room",
    "check_broken_object_is_invalid",
    "check_cordoned_node_is_left_out",
    "check_earlier_pods_go_first",
    "check_empty_question_is_answered",
    "check_ended_pods_take_nothing",
    "check_equals_are_no_victims",
    "check_extended_resources_are_counted",
    "check_first_of_a_group_may_go_anywhere",
    "check_fits_exactly",
    "check_gated_pod_waits",
    "check_host_addresses_share_a_port",
    "check_init_containers_count_by_their_highest",
    "check_named_node_is_the_only_one",
    "check_never_preempts_when_told_so",
    "check_no_nodes_is_said",
    "check_node_affinity_operators",
    "check_node_selector_is_kept",
    "check_number_of_pods_is_limited",
    "check_overhead_counts",
    "check_pods_of_a_question_repel_each_other",
    "check_port_conflict_is_seen",
    "check_ports_within_a_question",
    "check_present_anti_affinity_holds_for_newcomers",
    "check_reasons_are_upstreams",
    "check_required_affinity_is_kept",
    "check_same_question_has_the_same_answer",
    "check_sidecars_run_on",
    "check_spread_counts_the_questions_own_pods",
    "check_spread_needs_the_label",
    "check_taints_need_tolerations",
    "check_terms_are_alternatives",
    "check_topology_spread_is_kept",
    "check_two_many_are_not_squeezed_in",
    "check_victims_are_lower_and_make_room",
]

TAINT = {"key": "disk", "value": "slow", "effect": "NoSchedule"}


async def check_fits_exactly(scheduler: Scheduler) -> None:
    """Room that is just enough is enough."""
    nodes = [node("small", cpu="500m", memory="1Gi"), node("large", cpu="2", memory="2Gi")]
    assert await node_of(scheduler, pod("p", cpu="2", memory="2Gi"), nodes) == "large"
    assert await node_of(scheduler, pod("p", cpu="2001m"), nodes) == ""
    assert await node_of(scheduler, pod("p", memory="2147483649"), nodes) == ""


async def check_bound_pods_take_their_room(scheduler: Scheduler) -> None:
    """What runs already counts, on its node only."""
    nodes, bound = [node("a"), node("b")], [pod("old", cpu="3", on="a")]
    assert await node_of(scheduler, pod("p", cpu="1500m"), nodes, bound) == "b"


async def check_earlier_pods_go_first(scheduler: Scheduler) -> None:
    """The room that an earlier pod of the question took is gone for later ones."""
    pods = [pod("first", cpu="3"), pod("second", cpu="3"), pod("third", cpu="1")]
    first, second, third = await ask(scheduler, pods, [node("a")])
    assert first.node == third.node == "a"
    assert second.node == "" and second.reasons


async def check_two_many_are_not_squeezed_in(scheduler: Scheduler) -> None:
    """Thirty pods on three nodes with room for eight each: six must wait."""
    pods = [pod(f"p{number}", cpu="500m") for number in range(30)]
    placements = await ask(scheduler, pods, [node(name) for name in "abc"])
    placed = [p.node for p in placements if p.node]
    assert len(placed) == 24
    assert all(placed.count(name) == 8 for name in "abc")
    assert not any(p.node for p in placements[24:])


async def check_number_of_pods_is_limited(scheduler: Scheduler) -> None:
    """A node says how many pods it takes."""
    nodes, bound = [node("a", pods=1)], [pod("old", on="a")]
    assert "1 Too many pods" in await reason_of(scheduler, pod("p"), nodes, bound)


async def check_extended_resources_are_counted(scheduler: Scheduler) -> None:
    """Resources of any name are whole numbers that nodes offer."""
    nodes = [node("plain"), node("gpu", allocatable={"example.com/gpu": "1"})]
    wanted = pod("p", requests={"example.com/gpu": "1"})
    assert await node_of(scheduler, wanted, nodes) == "gpu"
    bound = [pod("old", requests={"example.com/gpu": "1"}, on="gpu")]
    reason = await reason_of(scheduler, wanted, nodes, bound)
    assert "2 Insufficient example.com/gpu" in reason


async def check_init_containers_count_by_their_highest(scheduler: Scheduler) -> None:
    """They run one after the other, before the containers."""
    init = {"name": "i", "image": "i", "resources": {"requests": {"cpu": "3"}}}
    wanted = pod("p", cpu="1", initContainers=[init, init])
    assert await node_of(scheduler, wanted, [node("a", cpu="2")]) == ""
    assert await node_of(scheduler, wanted, [node("a", cpu="3")]) == "a"


async def check_sidecars_run_on(scheduler: Scheduler) -> None:
    """An init container that is always restarted counts beside the containers."""
    side = {"name": "s", "image": "i", "resources": {"requests": {"cpu": "1"}}}
    wanted = pod("p", cpu="1", initContainers=[{**side, "restartPolicy": "Always"}])
    assert await node_of(scheduler, wanted, [node("a", cpu="1500m")]) == ""
    assert await node_of(scheduler, wanted, [node("a", cpu="2")]) == "a"


async def check_overhead_counts(scheduler: Scheduler) -> None:
    """What the runtime itself takes for the pod is added."""
    wanted = pod("p", cpu="1", overhead={"cpu": "500m"})
    assert await node_of(scheduler, wanted, [node("a", cpu="1400m")]) == ""
    assert await node_of(scheduler, wanted, [node("a", cpu="1500m")]) == "a"


async def check_cordoned_node_is_left_out(scheduler: Scheduler) -> None:
    """Unless the pod tolerates just that."""
    nodes = [node("a", unschedulable=True)]
    reason = await reason_of(scheduler, pod("p"), nodes)
    assert "1 node(s) were unschedulable" in reason
    toleration = {"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}
    assert await node_of(scheduler, pod("p", tolerations=[toleration]), nodes) == "a"


async def check_taints_need_tolerations(scheduler: Scheduler) -> None:
    """NoSchedule and NoExecute keep away, PreferNoSchedule does not."""
    for effect in ("NoSchedule", "NoExecute"):
        nodes = [node("a", taints=[{**TAINT, "effect": effect}])]
        reason = await reason_of(scheduler, pod("p"), nodes)
        assert "1 node(s) had untolerated taint {disk: slow}" in reason
    nodes = [node("a", taints=[{**TAINT, "effect": "PreferNoSchedule"}])]
    assert await node_of(scheduler, pod("p"), nodes) == "a"


async def check_all_tolerations_forms(scheduler: Scheduler) -> None:
    """Equal and Exists, with and without key and effect."""
    nodes = [node("a", taints=[TAINT])]
    enough: list[dict[str, str]] = [
        {"key": "disk", "operator": "Equal", "value": "slow", "effect": "NoSchedule"},
        {"key": "disk", "value": "slow"},
        {"key": "disk", "operator": "Exists"},
        {"operator": "Exists"},
    ]
    for toleration in enough:
        assert await node_of(scheduler, pod("p", tolerations=[toleration]), nodes) == "a"
    other: list[dict[str, str]] = [
        {"key": "disk", "value": "fast"},
        {"key": "disc", "operator": "Exists"},
        {"key": "disk", "operator": "Exists", "effect": "NoExecute"},
    ]
    for toleration in other:
        assert await node_of(scheduler, pod("p", tolerations=[toleration]), nodes) == ""


async def check_node_selector_is_kept(scheduler: Scheduler) -> None:
    """All labels of the selector must be there."""
    nodes = [node("a", labels={"disk": "ssd"}), node("b", labels={"disk": "ssd", "arch": "arm"})]
    wanted = pod("p", nodeSelector={"disk": "ssd", "arch": "arm"})
    assert await node_of(scheduler, wanted, nodes) == "b"
    reason = await reason_of(scheduler, pod("p", nodeSelector={"disk": "hdd"}), nodes)
    assert "2 node(s) didn't match Pod's node affinity/selector" in reason


def _affine(*terms: Json) -> Json:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [*terms]}}
    return {"nodeAffinity": required}


async def check_node_affinity_operators(scheduler: Scheduler) -> None:
    """In, NotIn, Exists, DoesNotExist, Gt and Lt; and names by matchFields."""
    nodes = [node("a", labels={"size": "5", "x": "y"}), node("b", labels={"size": "50"})]
    cases: list[tuple[str, str, list[str], str]] = [
        ("size", "In", ["5", "6"], "a"),
        ("size", "NotIn", ["5"], "b"),
        ("x", "Exists", [], "a"),
        ("x", "DoesNotExist", [], "b"),
        ("size", "Gt", ["10"], "b"),
        ("size", "Lt", ["10"], "a"),
    ]
    for key, operator, values, expected in cases:
        requirement = {"key": key, "operator": operator, "values": values}
        wanted = pod("p", affinity=_affine({"matchExpressions": [requirement]}))
        assert await node_of(scheduler, wanted, nodes) == expected, operator
    requirement = {"key": "metadata.name", "operator": "In", "values": ["b"]}
    wanted = pod("p", affinity=_affine({"matchFields": [requirement]}))
    assert await node_of(scheduler, wanted, nodes) == "b"


async def check_terms_are_alternatives(scheduler: Scheduler) -> None:
    """One term is enough; within a term all must hold; an empty term matches nothing."""
    nodes = [node("a", labels={"x": "1"}), node("b", labels={"y": "1", "z": "1"})]
    x, y, z, w = ({"key": key, "operator": "Exists"} for key in "xyzw")
    both: list[Json] = [{"matchExpressions": [w]}, {"matchExpressions": [y, z]}]
    assert await node_of(scheduler, pod("p", affinity=_affine(*both)), nodes) == "b"
    neither: list[Json] = [{"matchExpressions": [x, y]}]
    assert await node_of(scheduler, pod("p", affinity=_affine(*neither)), nodes) == ""
    assert await node_of(scheduler, pod("p", affinity=_affine({})), nodes) == ""


async def check_named_node_is_the_only_one(scheduler: Scheduler) -> None:
    """A pod that names its node goes there or nowhere."""
    nodes = [node("a"), node("b"), node("c")]
    assert await node_of(scheduler, pod("p", nodeName="b"), nodes) == "b"
    reason = await reason_of(scheduler, pod("p", nodeName="d"), nodes)
    assert "3 node(s) didn't match the requested node name" in reason


async def check_port_conflict_is_seen(scheduler: Scheduler) -> None:
    """Two pods can't have the same host port of a node; another protocol is another port."""
    nodes, bound = [node("a")], [pod("old", ports=[_port(80)], on="a")]
    reason = await reason_of(scheduler, pod("p", ports=[_port(80)]), nodes, bound)
    assert "1 node(s) didn't have free ports for the requested pod ports" in reason
    assert await node_of(scheduler, pod("p", ports=[_port(80, protocol="UDP")]), nodes, bound)
    assert await node_of(scheduler, pod("p", ports=[_port(81)]), nodes, bound)


def _port(number: int, **more: str) -> dict[str, object]:
    return {"containerPort": number, "hostPort": number, "protocol": "TCP", **more}


async def check_host_addresses_share_a_port(scheduler: Scheduler) -> None:
    """Different addresses don't conflict; the unspecific one conflicts with every other."""
    nodes, bound = [node("a")], [pod("old", ports=[_port(80, hostIP="10.0.0.1")], on="a")]
    for address, fits in (("10.0.0.2", True), ("10.0.0.1", False), ("0.0.0.0", False)):
        wanted = pod("p", ports=[_port(80, hostIP=address)])
        assert bool(await node_of(scheduler, wanted, nodes, bound)) is fits, address


async def check_ports_within_a_question(scheduler: Scheduler) -> None:
    """Ports taken by earlier pods of the question are taken."""
    pods = [pod(name, ports=[_port(80)]) for name in ("one", "two", "three")]
    placements = await ask(scheduler, pods, [node("a"), node("b")])
    assert {p.node for p in placements[:2]} == {"a", "b"}
    assert placements[2].node == ""


async def check_gated_pod_waits(scheduler: Scheduler) -> None:
    """A pod with scheduling gates is not placed and takes no room."""
    gated = pod("p", cpu="4", schedulingGates=[{"name": "example.com/wait"}])
    first, second = await ask(scheduler, [gated, pod("q", cpu="4")], [node("a")])
    assert first.node == "" and "scheduling gates" in first.reasons[0]
    assert second.node == "a"


async def check_reasons_are_upstreams(scheduler: Scheduler) -> None:
    """Each reason with its number of nodes, sorted as text, behind the number of all nodes."""
    nodes = [
        node("a", cpu="1"),
        node("b", taints=[TAINT]),
        node("c", taints=[TAINT]),
    ]
    expected = (
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {disk: slow}."
    )
    assert (await reason_of(scheduler, pod("p", cpu="2"), nodes)).startswith(expected)
    wanted = pod("p", cpu="2", memory="16Gi")
    expected = "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory."
    assert (await reason_of(scheduler, wanted, nodes[:1])).startswith(expected)


async def check_no_nodes_is_said(scheduler: Scheduler) -> None:
    """Without any node nothing can be placed, and that is the reason."""
    placement = await one(scheduler, pod("p"), [])
    assert placement.node == "" and "nodes" in placement.reasons[0]


async def check_empty_question_is_answered(scheduler: Scheduler) -> None:
    """No pods, no placements."""
    assert await ask(scheduler, [], [node("a")]) == ()


async def check_same_question_has_the_same_answer(scheduler: Scheduler) -> None:
    """Also when many nodes are equally good, and other questions came between."""
    nodes = [node(f"n{number}") for number in range(150)]
    pods = [pod(f"p{number}", cpu="100m") for number in range(10)]
    first = await ask(scheduler, pods, nodes)
    await ask(scheduler, pods[:3], nodes[:20])
    assert await ask(scheduler, pods, nodes) == first


async def check_broken_object_is_invalid(scheduler: Scheduler) -> None:
    """Broken JSON, wrong types, wrong quantities and nameless objects are named, not skipped."""
    good_pod, good_node = pod("p"), node("a")
    cases: list[tuple[list[Json | bytes], list[Json | bytes]]] = [
        ([b"{"], [good_node]),
        ([good_pod], [b"null"]),
        ([{**good_pod, "spec": {"containers": 3}}], [good_node]),
        ([pod("p", cpu="two")], [good_node]),
        ([good_pod], [{"metadata": {}}]),
        ([{"metadata": {"name": ""}, "spec": {}}], [good_node]),
    ]
    for pods, nodes in cases:
        try:
            placements = await ask(scheduler, pods, nodes)
        except InvalidArgument as error:
            assert error.message
        else:
            raise AssertionError(f"{pods} on {nodes} was answered: {placements}")
