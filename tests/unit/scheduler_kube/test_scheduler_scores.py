"""Which of several good nodes is taken, and what counting costs: scores, samples, tallies."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagong.conformance.scheduler_lab import node, pod
from sagong.contracts.scheduler import Question
from sagong.model.selectors import from_object
from sagong.scheduling.budgets import Budget
from sagong.scheduling.decision import Foremost, answer, take
from sagong.scheduling.documents import NodeDocument, PodDocument, read
from sagong.scheduling.snapshot import Snapshot
from sagong_scheduler_binpack import fullness
from sagong_scheduler_kube.decider import KubeDecider, sample_size

ZONE = "topology.kubernetes.io/zone"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def placed(decider: Any, pods: list[Any], nodes: list[Any], bound: list[Any] | None = None) -> Any:
    """Nodes of the pods, in order."""

    def bodies(objects: list[Any]) -> tuple[bytes, ...]:
        return tuple(json.dumps(one).encode() for one in objects)

    question = Question(pods=bodies(pods), nodes=bodies(nodes), bound=bodies(bound or []))
    return [p.node for p in answer(decider, question).placements]


def test_the_emptier_node_is_better() -> None:
    bound = [pod("x", cpu="2", memory="4Gi", on="a")]
    nodes = [node("a"), node("b")]
    assert placed(KubeDecider(), [pod("p", cpu="1", memory="1Gi")], nodes, bound) == ["b"]
    assert placed(Foremost(fullness), [pod("p", cpu="1", memory="1Gi")], nodes, bound) == ["a"]


def test_what_leaves_processor_and_memory_in_balance_is_better() -> None:
    """Of nodes with as much left; and of a pod that asks for memory alone, even of one with less."""
    nodes = [node(name, cpu="4", memory="8Gi") for name in "ab"]
    bound = [pod("x", cpu="2", on="a"), pod("y", cpu="1", memory="2Gi", on="b")]
    assert placed(KubeDecider(), [pod("p", cpu="1", memory="2Gi")], nodes, bound) == ["b"]
    bound = [pod("x", memory="2Gi", on="a"), pod("y", cpu="2", on="b")]
    assert placed(KubeDecider(), [pod("p", memory="4Gi")], nodes, bound) == ["b"]


def test_pods_that_ask_for_nothing_are_spread_too() -> None:
    pods = [pod(f"p{number}") for number in range(9)]
    nodes = [node(name) for name in "abc"]
    assert Counter(placed(KubeDecider(), pods, nodes)) == Counter({"a": 3, "b": 3, "c": 3})


def test_a_taint_that_advises_against_counts() -> None:
    taint = {"key": "k", "value": "v", "effect": "PreferNoSchedule"}
    nodes = [node("a", taints=[taint]), node("b", cpu="3900m")]
    assert placed(KubeDecider(), [pod("p")], nodes) == ["b"]
    toleration = {"key": "k", "operator": "Exists"}
    assert placed(KubeDecider(), [pod("p", tolerations=[toleration])], nodes) == ["a"]


def test_preferred_nodes_are_better() -> None:
    rule = {"key": "disk", "operator": "In", "values": ["ssd"]}
    terms = [{"weight": 10, "preference": {"matchExpressions": [rule]}}]
    wanted = pod("p", affinity={"nodeAffinity": {PREFERRED: terms}})
    nodes = [node("a"), node("b", labels={"disk": "ssd"}, cpu="3900m")]
    assert placed(KubeDecider(), [wanted], nodes) == ["b"]


def test_liked_and_avoided_pods_count_both_ways() -> None:
    nodes = [node("a", cpu="3900m"), node("b")]
    bound = [pod("x", labels={"app": "x"}, on="a")]
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "x"}}}
    terms = [{"weight": 100, "podAffinityTerm": term}]
    likes = pod("p", affinity={"podAffinity": {PREFERRED: terms}})
    assert placed(KubeDecider(), [likes], nodes, bound) == ["a"]
    term["labelSelector"] = {"matchLabels": {"app": "p"}}
    bound = [pod("x", affinity={"podAntiAffinity": {PREFERRED: terms}}, on="b")]
    assert placed(KubeDecider(), [pod("p", labels={"app": "p"})], nodes, bound) == ["a"]


def test_an_image_that_is_there_draws() -> None:
    nodes = [node("a"), node("b", cpu="3950m")]
    nodes[1]["status"]["images"] = [{"names": ["i:latest"], "sizeBytes": 900 << 20}]
    assert placed(KubeDecider(), [pod("p")], nodes) == ["b"]


def test_pods_of_a_controller_are_spread_over_hosts_and_zones() -> None:
    owner = {"kind": "ReplicaSet", "name": "r", "uid": "u", "controller": True}
    pods = [pod(f"p{number}") for number in range(6)]
    for one in pods:
        one["metadata"]["ownerReferences"] = [owner]
    nodes = [node(f"n{n}", labels={ZONE: "a" if n < 4 else "b"}) for n in range(6)]
    found = placed(KubeDecider(), pods, nodes)
    assert Counter(name < "n4" for name in found[:4]) == Counter({True: 2, False: 2})
    assert len(set(found)) == 6


def test_samples_are_upstreams_when_asked_for_and_a_hundred_else() -> None:
    assert sample_size(80, 0) == 80
    assert sample_size(5000, 0) == 100
    assert sample_size(5000, 10) == 500
    assert sample_size(5000, 100) == 5000


def test_samples_go_round() -> None:
    nodes = [node(f"n{number:03}") for number in range(300)]
    found = placed(KubeDecider(), [pod(f"p{number}") for number in range(30)], nodes)
    assert len(set(found)) == 30


def test_the_least_hurt_is_chosen() -> None:
    nodes = [node("a", cpu="1"), node("b", cpu="1"), node("c", cpu="1")]
    bound = [
        pod("x", cpu="1", priority=5, on="a"),
        pod("y", cpu="1", priority=3, on="b"),
        pod("z", cpu="500m", priority=3, on="c"),
        pod("w", cpu="500m", priority=3, on="c"),
    ]
    assert placed(KubeDecider(), [pod("p", cpu="1", priority=9)], nodes, bound) == ["b"]


def test_a_broken_budget_is_avoided() -> None:
    """A budget that nobody may go from weighs more than the victim's priority."""
    bound = [
        pod("x", cpu="1", priority=5, on="a"),
        pod("y", cpu="1", priority=3, labels={"app": "db"}, on="b"),
    ]
    snapshot = Snapshot.of(
        [json.dumps(node(name, cpu="1")).encode() for name in "ab"],
        [json.dumps(one).encode() for one in bound],
    )
    body = json.dumps(pod("p", cpu="1", priority=9)).encode()
    one = snapshot.pod(read(body, PodDocument, "pod"))
    assert KubeDecider().decide(snapshot, one).node == "b"
    snapshot.budgets["default", "db"] = Budget(
        "default", from_object({"matchLabels": {"app": "db"}}), 0
    )
    assert KubeDecider().decide(snapshot, one).node == "a"


SHAPES: list[dict[str, Any]] = [
    {},
    {"labels": {"app": "x"}},
    {
        "labels": {"app": "x"},
        "topologySpreadConstraints": [
            {
                "maxSkew": 2,
                "topologyKey": ZONE,
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"app": "x"}},
            }
        ],
    },
]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 30))
def test_counts_kept_up_are_those_counted_anew(seed: int) -> None:
    """Tallies and free room after many comings and goings, against a fresh snapshot."""
    chance = random.Random(seed)
    snapshot = Snapshot()
    bodies = [node(f"n{n}", labels={ZONE: "ab"[n % 2]}, pods=1000, cpu="1000") for n in range(4)]
    for body in bodies:
        snapshot.set_node(read(json.dumps(body).encode(), NodeDocument, "node"))
    present: dict[str, Any] = {}
    for number in range(60):
        if present and chance.random() < 0.4:
            name = chance.choice(sorted(present))
            del present[name]
            snapshot.remove(("default", name))
            continue
        body = pod(f"p{number}", cpu="1", **json.loads(json.dumps(chance.choice(SHAPES))))
        one = snapshot.pod(read(json.dumps(body).encode(), PodDocument, "pod"))
        decision = KubeDecider().decide(snapshot, one)
        if decision.node:
            take(snapshot, one, decision)
            body["spec"]["nodeName"] = decision.node
            present[f"p{number}"] = body
    fresh = Snapshot.of(
        [json.dumps(b).encode() for b in bodies],
        [json.dumps(p).encode() for p in present.values()],
    )
    for name, known in snapshot.nodes.items():
        assert known.cpu_free == fresh.nodes[name].cpu_free
        assert known.pods.keys() == fresh.nodes[name].pods.keys()
    for key, tally in snapshot._tallies.items():
        counts = Counter(
            node_.labels[ZONE]
            for node_ in fresh.nodes.values()
            for one in node_.pods.values()
            if tally.selects(one.shape)
        )
        assert {k: v for k, v in tally.values.items() if v} == dict(counts), key
        assert tally.least == min(tally.values.values())


def test_a_label_that_changes_moves_the_counts() -> None:
    snapshot = Snapshot.of(
        [json.dumps(node(n, labels={ZONE: n})).encode() for n in "ab"],
        [json.dumps(pod("x", labels={"app": "x"}, on="a")).encode()],
    )
    body = pod(
        "p",
        labels={"app": "x"},
        topologySpreadConstraints=SHAPES[2]["topologySpreadConstraints"],
    )
    one = snapshot.pod(read(json.dumps(body).encode(), PodDocument, "pod"))
    KubeDecider().decide(snapshot, one)
    moved = node("a", labels={ZONE: "b"})
    snapshot.set_node(read(json.dumps(moved).encode(), NodeDocument, "node"))
    KubeDecider().decide(snapshot, one)
    (tally,) = snapshot._tallies.values()
    assert tally.values == {"b": 1}


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_removed_node_keeps_its_pods_until_it_returns(name: str) -> None:
    snapshot = Snapshot.of(
        [json.dumps(node(n)).encode() for n in "ab"],
        [json.dumps(pod("x", cpu="1", on=name)).encode()],
    )
    snapshot.remove_node(name)
    snapshot.set_node(read(json.dumps(node(name)).encode(), NodeDocument, "node"))
    assert snapshot.nodes[name].cpu_free == 3000
    snapshot.remove(("default", "x"))
    assert snapshot.nodes[name].cpu_free == 4000
