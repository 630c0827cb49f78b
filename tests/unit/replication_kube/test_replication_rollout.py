"""Rollouts as numbers: bounds hold whatever pods do, and every rollout ends."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sagong_replication_kube.indexes import format_indexes, parse_indexes
from sagong_replication_kube.rollout import Limits, Part, limits, proportional, rolling


def test_percentages_round_up_for_surge_and_down_for_missing() -> None:
    assert limits({"maxSurge": "25%", "maxUnavailable": "25%"}, 10) == Limits(3, 2)
    assert limits(None, 10) == Limits(3, 2)
    assert limits({"maxSurge": 0, "maxUnavailable": 0}, 10) == Limits(0, 1)
    assert limits({"maxSurge": "0%", "maxUnavailable": "5%"}, 10) == Limits(0, 1)
    assert limits({"maxSurge": 1, "maxUnavailable": 5}, 3) == Limits(1, 3)
    assert limits({"maxSurge": 1, "maxUnavailable": 0}, 3) == Limits(1, 0)


def test_what_is_too_much_or_does_not_serve_goes_first() -> None:
    assert rolling(2, Part("new", 5, 5), [], Limits(1, 0)) == {"new": 2}
    old = [Part("a", 3, 1, created=1), Part("b", 1, 1, created=2)]
    assert rolling(4, Part("new", 1, 1), old, Limits(1, 1)) == {"a": 1}


def test_of_equal_sets_the_newer_grows_and_the_older_gives() -> None:
    parts = [Part("a", 3, 3, created=1), Part("b", 3, 3, created=2)]
    assert proportional(7, 0, parts) == {"b": 4}
    assert proportional(5, 0, parts) == {"a": 2}


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 4), st.integers(0, 4), st.data())
def test_a_rollout_keeps_its_bounds_and_ends(
    wanted: int, present: int, surge: int, missing: int, data: st.DataObject
) -> None:
    """Pods become ready at random moments; sizes never leave the bounds they can keep."""
    bounds = limits({"maxSurge": surge, "maxUnavailable": missing}, wanted)
    sizes = {"old": present, "new": 0}
    serving = {"old": present, "new": 0}
    for _ in range(200):
        parts = {n: Part(n, sizes[n], serving[n]) for n in sizes}
        changes = rolling(wanted, parts["new"], [parts["old"]], bounds)
        grown = changes.get("new", sizes["new"]) > sizes["new"]
        sizes |= changes
        assert min(sizes.values()) >= 0
        if grown:
            assert sum(sizes.values()) <= wanted + bounds.surge
        for name in serving:
            serving[name] = min(serving[name], sizes[name])
        if present >= wanted:
            assert sum(serving.values()) >= wanted - bounds.unavailable
        if sizes == {"old": 0, "new": wanted} and serving["new"] == wanted:
            return
        if serving["new"] < sizes["new"] and (not changes or data.draw(st.booleans())):
            serving["new"] += 1
    raise AssertionError(f"still rolling: {sizes} of {wanted}")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=2, max_size=4), st.integers(0, 60), st.integers(0, 5))
def test_a_scaled_rollout_shares_exactly(sizes: list[int], wanted: int, surge: int) -> None:
    parts = [Part(f"s{n}", size, size, created=n) for n, size in enumerate(sizes)]
    after = {p.name: p.replicas for p in parts} | proportional(wanted, surge, parts)
    assert sum(after.values()) == (wanted + surge if wanted else 0)
    assert min(after.values()) >= 0


@given(st.sets(st.integers(0, 60)))
def test_indexes_are_read_as_they_were_written(numbers: set[int]) -> None:
    assert parse_indexes(format_indexes(numbers)) == numbers


def test_what_is_no_index_is_passed_over() -> None:
    assert parse_indexes("1,²,x,3-,5-6,0-99999999999,-4") == {1, 3, 5, 6}


def test_indexes_are_written_as_upstream_does() -> None:
    assert format_indexes([1, 3, 4, 5, 7, 8]) == "1,3-5,7,8"
