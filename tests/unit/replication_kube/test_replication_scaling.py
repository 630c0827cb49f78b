"""Autoscaling as numbers: cautious where something is unknown, steady, and not too fast."""

from __future__ import annotations

from sagong_replication_kube.scaling import (
    Measured,
    Memory,
    bounded,
    by_average,
    by_utilization,
    stabilized,
)

TEN = [10] * 4


def test_replicas_follow_the_ratio() -> None:
    assert by_utilization(4, 50, Measured([10] * 4, TEN)) == 8
    assert by_utilization(4, 50, Measured([5] * 4, TEN)) == 4
    assert by_utilization(4, 50, Measured([2] * 4, TEN)) == 2
    assert by_average(3, 20, Measured([30, 30, 30], TEN)) == 5


def test_the_tolerance_keeps_it_still() -> None:
    assert by_utilization(10, 50, Measured([54] * 10, [100] * 10)) == 10
    assert by_utilization(10, 50, Measured([56] * 10, [100] * 10)) == 12


def test_missing_pods_never_enlarge_a_change() -> None:
    assert by_utilization(4, 50, Measured([10] * 2, [10] * 2, missing=[10] * 2)) == 4
    assert by_utilization(4, 50, Measured([1] * 3, [10] * 3, missing=[10])) == 2
    assert by_utilization(4, 50, Measured([30] * 3, [10] * 3, unready=[10])) == 18


def test_fewer_are_enough_only_when_they_were_for_a_while() -> None:
    memory = Memory()
    assert stabilized(memory, {}, 10, 10, 0.0) == (10, False)
    assert stabilized(memory, {}, 10, 5, 100.0) == (10, True)
    assert stabilized(memory, {}, 10, 4, 299.0) == (10, True)
    assert stabilized(memory, {}, 10, 4, 301.0) == (5, True)
    assert stabilized(memory, {}, 10, 12, 302.0) == (12, False)


def test_policies_bound_each_step() -> None:
    memory = Memory()
    assert bounded(memory, {}, 2, 50, 0.0) == 6, "four pods are more than 100 %"
    assert bounded(memory, {}, 20, 50, 0.0) == 40
    memory.done.append((0.0, 20))
    assert bounded(memory, {}, 40, 50, 5.0) == 40, "that much was added within the period"
    assert bounded(memory, {}, 40, 50, 20.0) == 50
    slow = {"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}
    assert bounded(Memory(), slow, 10, 1, 0.0) == 9
    assert bounded(Memory(), {"scaleDown": {"selectPolicy": "Disabled"}}, 10, 1, 0.0) == 10
