"""The world: what is newer wins, whoever tells it first, and indexes follow."""

from __future__ import annotations

import json
from typing import Any

from sagong_replication_kube.item import Item
from sagong_replication_kube.resources import BY_RESOURCE
from sagong_replication_kube.world import World


def item(resource: str, name: str, revision: int, **more: Any) -> Item:
    """An object."""
    meta = {"name": name, "namespace": "n", "uid": f"uid-{name}", "resourceVersion": str(revision)}
    body = {"metadata": {**meta, **more.pop("meta", {})}, **more}
    return Item(BY_RESOURCE[resource], json.dumps(body).encode())


def test_an_older_form_changes_nothing() -> None:
    world = World()
    assert world.put(item("v1/pods", "p", 7)) is not None
    assert world.put(item("v1/pods", "p", 7)) is None
    assert world.put(item("v1/pods", "p", 5)) is None
    assert world.put(item("v1/pods", "p", 8)) is not None
    assert world.put(item("v1/secrets", "s", 1)) is not None
    assert world.put(item("v1/secrets", "s", 2)) is not None


def test_a_renewed_lease_counts_although_its_revision_stays() -> None:
    world = World()
    leases = "coordination.k8s.io/v1/leases"
    assert world.put(item(leases, "l", 3, spec={"renewTime": "a"})) is not None
    assert world.put(item(leases, "l", 3, spec={"renewTime": "a"})) is None
    assert world.put(item(leases, "l", 3, spec={"renewTime": "b"})) is not None


def test_what_is_gone_does_not_come_back_by_a_late_watch() -> None:
    world = World()
    world.put(item("v1/pods", "p", 3))
    ended = {"deletionTimestamp": "2025-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0}
    change = world.put(item("v1/pods", "p", 5, meta=ended))
    assert change is not None and change.after is None
    assert world.put(item("v1/pods", "p", 4)) is None
    assert world.get("v1/pods", ("n", "p")) is None
    assert world.put(item("v1/pods", "p", 6)) is not None


def test_what_is_gone_does_not_come_back_by_a_late_answer() -> None:
    world = World()
    pods, key = BY_RESOURCE["v1/pods"], ("n", "p")
    world.put(item("v1/pods", "p", 3))
    assert world.bury(pods, key, 5) is not None
    assert world.put(item("v1/pods", "p", 4)) is None
    assert world.put(item("v1/pods", "p", 6)) is not None  # a namesake
    world.remove(pods, key, 7)
    world.settle()
    assert world.put(item("v1/pods", "p", 6)) is None  # the watch has not told of the second end
    world.bury(pods, key, 7)
    world.settle()
    assert not world._graves and not world._told


def test_indexes_follow_owners_and_nodes() -> None:
    world = World()
    owner = {"kind": "ReplicaSet", "name": "r", "uid": "r", "controller": True}
    world.put(item("v1/pods", "p", 1))
    assert [one.meta.name for one in world.loose("v1/pods", "n")] == ["p"]
    owned = {"ownerReferences": [owner]}
    world.put(item("v1/pods", "p", 2, meta=owned, spec={"nodeName": "a"}))
    assert list(world.loose("v1/pods", "n")) == []
    assert [one.meta.name for one in world.controlled("r", "v1/pods")] == ["p"]
    assert [one.meta.name for one in world.on_node("a")] == ["p"]
    world.remove(BY_RESOURCE["v1/pods"], ("n", "p"))
    assert world.dependents("r") == [] and world.on_node("a") == []
    assert world.by_uid("uid-p") is None
