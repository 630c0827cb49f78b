"""JSON patch, merge patch, strategic merge patch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagong.errors import InvalidArgument
from sagong.model.objects import GroupVersionKind
from sagong_kube.patch import jsonpatch, mergepatch, strategic

POD = GroupVersionKind("", "v1", "Pod")
DEPLOYMENT = GroupVersionKind("apps", "v1", "Deployment")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab/~", max_size=3),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(st.text("ab/~", max_size=2), below, max_size=3)
    ),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from("abcd"), JSON, max_size=4)


# RFC 6902


@pytest.mark.parametrize(
    ("document", "operation", "result"),
    [
        ({"a": [1, 2]}, {"op": "add", "path": "/a/1", "value": 9}, {"a": [1, 9, 2]}),
        ({"a": [1]}, {"op": "add", "path": "/a/-", "value": 2}, {"a": [1, 2]}),
        ({"a/b": 1}, {"op": "replace", "path": "/a~1b", "value": 2}, {"a/b": 2}),
        ({"a": {"b": 1}}, {"op": "remove", "path": "/a/b"}, {"a": {}}),
        ({"a": 1}, {"op": "move", "from": "/a", "path": "/b"}, {"b": 1}),
        (
            {"a": {"x": 1}},
            {"op": "copy", "from": "/a", "path": "/b"},
            {"a": {"x": 1}, "b": {"x": 1}},
        ),
        ({"a": 1}, {"op": "test", "path": "/a", "value": 1}, {"a": 1}),
        ({"a": 1}, {"op": "test", "path": "/b", "value": None}, {"a": 1}),
        ({"a": 1}, {"op": "add", "path": "", "value": {"z": 0}}, {"z": 0}),
        ({"": 1}, {"op": "remove", "path": "/"}, {}),
        ({"a": [1, 2, 3]}, {"op": "remove", "path": "/a/1"}, {"a": [1, 3]}),
        ({"a": [1, 2, 3]}, {"op": "replace", "path": "/a/0", "value": 9}, {"a": [9, 2, 3]}),
        ({"a": [{"b": [1, 2]}]}, {"op": "remove", "path": "/a/0/b/1"}, {"a": [{"b": [1]}]}),
        ({"a": [1, 2]}, {"op": "add", "path": "/a/2", "value": 3}, {"a": [1, 2, 3]}),
        ({"a": [1, 2]}, {"op": "add", "path": "/a/0", "value": 0}, {"a": [0, 1, 2]}),
        # Upstream's library counts from the end, too.
        ({"a": [1, 2]}, {"op": "add", "path": "/a/-1", "value": 3}, {"a": [1, 2, 3]}),
        ({"a": [1, 2]}, {"op": "add", "path": "/a/-3", "value": 0}, {"a": [0, 1, 2]}),
        ({"a": [1, 2]}, {"op": "replace", "path": "/a/-1", "value": 3}, {"a": [1, 3]}),
        ({"a": [1, 2]}, {"op": "remove", "path": "/a/-2"}, {"a": [2]}),
        ({"a": [1, 2]}, {"op": "move", "from": "/a/0", "path": "/a/1"}, {"a": [2, 1]}),
        ({"a~1": 1, "a/": 2}, {"op": "remove", "path": "/a~01"}, {"a/": 2}),
        (
            {"a": {"b": [1, {"c": None}]}},
            {"op": "test", "path": "/a/b/1", "value": {"c": None}},
            None,
        ),
        ({"a": {"b": 1, "c": 2}}, {"op": "test", "path": "/a", "value": {"c": 2, "b": 1}}, None),
        ({"a": [[1], [2]]}, {"op": "test", "path": "/a", "value": [[1], [2]]}, None),
        ({"a": 1.0}, {"op": "test", "path": "/a", "value": 1}, None),
        ({"a": True}, {"op": "test", "path": "/a", "value": True}, None),
    ],
)
def test_json_patch_operations(document: Any, operation: Any, result: Any) -> None:
    before = copy.deepcopy(document)
    assert jsonpatch.apply(document, [operation]) == (before if result is None else result)
    assert document == before


@pytest.mark.parametrize(
    ("operation", "said"),
    [
        ({"op": "test", "path": "/a", "value": 2}, "testing value /a failed: test failed"),
        ({"op": "test", "path": "/a", "value": True}, "testing value /a failed: test failed"),
        ({"op": "remove", "path": "/x"}, "remove operation does not apply: doc is missing key"),
        ({"op": "replace", "path": "/x", "value": 1}, "replace operation does not apply"),
        ({"op": "add", "path": "/x/y", "value": 1}, 'doc is missing path: "/x/y": missing value'),
        ({"op": "add", "path": "/l/9", "value": 1}, "invalid index referenced"),
        ({"op": "add", "path": "/l/01", "value": 1}, "not a proper array index"),
        ({"op": "add", "path": "/x"}, "missing value"),
        ({"op": "bogus", "path": "/x"}, "Unexpected kind: bogus"),
        ({"op": "move", "from": "/o", "path": "/o/p"}, "can not move into itself"),
        (
            {"op": "move", "from": "/x", "path": "/y"},
            "move operation does not apply: doc is missing",
        ),
        ({"op": "copy", "from": "/l/0", "path": "/y"}, "Unable to access invalid index: 0"),
        ({"op": "remove", "path": "/l/0"}, "Unable to access invalid index: 0"),
        ({"op": "replace", "path": "/p/2", "value": 1}, "Unable to access invalid index: 2"),
        ({"op": "remove", "path": "/p/-3"}, "Unable to access invalid index: -3"),
        ({"op": "add", "path": "/p/3", "value": 1}, "Unable to access invalid index: 3"),
        ({"op": "add", "path": "/p/-4", "value": 1}, "Unable to access invalid index: -4"),
        ({"op": "add", "path": "/p/x", "value": 1}, "not a proper array index: 'x'"),
        ({"op": "add", "path": "/a/b", "value": 1}, 'doc is missing path: "/a/b"'),
        ({"op": "add", "path": "/p/x/y", "value": 1}, 'doc is missing path: "/p/x/y"'),
        ({"op": "add", "path": "a", "value": 1}, 'doc is missing path: "a"'),
        ({"op": "add", "path": 5, "value": 1}, 'doc is missing path: "5"'),
        ({"op": "replace", "path": "/a"}, "error in replace for path: '/a': missing value"),
        ({"op": "test", "path": "/x", "value": 1}, "testing value /x failed"),
        ({"op": "test", "path": "/p/5", "value": 1}, "error in test for path: '/p/5'"),
        ({"op": "test", "path": "/p", "value": [1]}, "testing value /p failed"),
        ({"op": "test", "path": "/p", "value": [1, 3]}, "testing value /p failed"),
        ({"op": "test", "path": "/p", "value": {"0": 1}}, "testing value /p failed"),
        ({"op": "test", "path": "/q", "value": {"x": 1}}, "testing value /q failed"),
        ({"op": "test", "path": "/q", "value": {"x": 1, "y": 3}}, "testing value /q failed"),
        ({"op": "test", "path": "/q", "value": {"x": True, "y": 2}}, "testing value /q failed"),
        ({"op": [], "path": "/a"}, "Unexpected kind: []"),
        ({"path": "/a"}, "Unexpected kind: "),
    ],
)
def test_json_patches_that_do_not_apply(operation: Any, said: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        document = {"a": 1, "l": [], "o": {}, "p": [1, 2], "q": {"x": 1, "y": 2}}
        jsonpatch.apply(document, [operation])
    assert said in refused.value.message
    assert refused.value.detail["code"] == "422"


def test_json_patches_that_are_none() -> None:
    with pytest.raises(InvalidArgument, match="error decoding patch"):
        jsonpatch.apply({}, {"op": "add"})
    many = [{"op": "test", "path": "/a", "value": 1}] * (jsonpatch.MOST_OPERATIONS + 1)
    with pytest.raises(InvalidArgument, match="allowed maximum operations"):
        jsonpatch.apply({"a": 1}, many)
    assert jsonpatch.apply({"a": 1}, many[1:]) == {"a": 1}


def test_what_is_copied_is_counted() -> None:
    """In all, as JSON: half of the limit may be copied twice, but not a byte more."""
    half = "x" * (jsonpatch.MOST_COPIED // 2 - 2)
    patch = [{"op": "copy", "from": "/a", "path": f"/{to}"} for to in "bc"]
    assert jsonpatch.apply({"a": half}, patch)["c"] == half
    with pytest.raises(InvalidArgument) as refused:
        jsonpatch.apply({"a": f"{half}x"}, patch)
    assert refused.value.detail["code"] == "413"
    moves = [{"op": "move", "from": f"/{f}", "path": f"/{to}"} for f, to in ("ab", "bc", "ca")]
    assert jsonpatch.apply({"a": f"{half}x"}, moves) == {"a": f"{half}x"}


@given(OBJECTS, JSON)
def test_adding_then_removing_leaves_the_document(document: Any, value: Any) -> None:
    document.pop("new", None)
    patch = [{"op": "add", "path": "/new", "value": value}, {"op": "remove", "path": "/new"}]
    assert jsonpatch.apply(document, patch) == document


# RFC 7386


def test_merge_patch_follows_the_examples_of_its_standard() -> None:
    assert mergepatch.apply({"a": "b"}, {"a": None}) == {}
    assert mergepatch.apply({"a": ["b"]}, {"a": "c"}) == {"a": "c"}
    assert mergepatch.apply({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}) == {"a": {"b": "d"}}
    assert mergepatch.apply({}, {"a": {"bb": {"ccc": None}}}) == {"a": {"bb": {}}}
    assert mergepatch.apply({"e": None}, {"a": 1}) == {"e": None, "a": 1}


def no_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: no_nulls(v) for k, v in value.items() if v is not None}
    return value


@given(OBJECTS, OBJECTS)
def test_a_merge_patch_applied_twice_changes_nothing_more(document: Any, patch: Any) -> None:
    once = mergepatch.apply(document, patch)
    assert mergepatch.apply(once, patch) == once


# Strategic merge


def spec(**fields: Any) -> dict[str, Any]:
    return {"spec": fields}


A, B, C = ({"name": name, "image": "1"} for name in "abc")


def test_lists_merge_by_their_keys() -> None:
    live = spec(containers=[A, B])
    patch = spec(containers=[{"name": "b", "image": "2"}, C])
    result = strategic.apply(live, patch, POD)
    assert result == spec(containers=[A, {"name": "b", "image": "2"}, C])
    assert live == spec(containers=[A, B])


def test_items_are_deleted_and_lists_replaced_by_directives() -> None:
    live = spec(containers=[A, B])
    assert strategic.apply(live, spec(containers=[{"name": "a", "$patch": "delete"}]), POD) == spec(
        containers=[B]
    )
    patch = spec(containers=[{"$patch": "replace"}, C])
    assert strategic.apply(live, patch, POD) == spec(containers=[C])
    patch = spec(nodeSelector={"$patch": "replace", "x": "y"})
    assert strategic.apply(spec(nodeSelector={"a": "b"}), patch, POD) == spec(
        nodeSelector={"x": "y"}
    )


def test_the_order_of_elements_can_be_set() -> None:
    live = spec(containers=[A, B, C])
    patch = {
        "spec": {
            "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
            "containers": [{"name": "a", "image": "2"}],
        }
    }
    names = [c["name"] for c in strategic.apply(live, patch, POD)["spec"]["containers"]]
    assert names == ["b", "a", "c"]


def test_an_order_may_stand_beside_deletions_and_alone() -> None:
    live = spec(containers=[A, B, C])
    order = [{"name": "c"}, {"name": "a"}]
    deleted = [{"name": "b", "$patch": "delete"}]
    patch = {"spec": {"$setElementOrder/containers": order, "containers": deleted}}
    assert strategic.apply(live, patch, POD) == spec(containers=[C, A])
    alone = {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}
    names = [c["name"] for c in strategic.apply(live, alone, POD)["spec"]["containers"]]
    assert names == ["b", "a", "c"]
    assert strategic.apply({"spec": {}}, alone, POD) == {"spec": {}}
    first = {"spec": {"$setElementOrder/containers": order, "containers": [C, A]}}
    assert strategic.apply({"spec": {}}, first, POD) == spec(containers=[C, A])


def test_what_enters_a_document_has_no_directives() -> None:
    new = {"name": "b", "image": "1", "env": [{"$patch": "replace"}, {"name": "x", "value": None}]}
    found = strategic.apply(spec(containers=[A]), spec(containers=[new]), POD)
    # What is new stands before what the patch does not name, as upstream has it.
    assert found == spec(containers=[{"name": "b", "image": "1", "env": [{"name": "x"}]}, A])
    gone = spec(nodeSelector={"$patch": "delete"}, securityContext={"$retainKeys": ["a"], "a": 1})
    assert strategic.apply({"spec": {}}, gone, POD) == spec(
        nodeSelector={}, securityContext={"a": 1}
    )


def test_elements_of_plain_lists_are_deleted() -> None:
    live = {"metadata": {"finalizers": ["a", "b", "c"]}}
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"]}}
    assert strategic.apply(live, patch, POD) == {"metadata": {"finalizers": ["a", "c"]}}
    merged = strategic.apply(live, {"metadata": {"finalizers": ["d", "a"]}}, POD)
    assert sorted(merged["metadata"]["finalizers"]) == ["a", "b", "c", "d"]


def test_only_the_retained_keys_stay() -> None:
    live = spec(strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}})
    patch = spec(strategy={"$retainKeys": ["type"], "type": "Recreate"})
    assert strategic.apply(live, patch, DEPLOYMENT) == spec(strategy={"type": "Recreate"})
    with pytest.raises(InvalidArgument, match="superset of the fields in the patch"):
        bad = spec(strategy={"$retainKeys": ["type"], "rollingUpdate": {}})
        strategic.apply(live, bad, DEPLOYMENT)


def test_null_removes_and_atomic_lists_are_replaced() -> None:
    live = spec(nodeName="n", tolerations=[{"key": "a"}])
    patch = spec(nodeName=None, tolerations=[{"key": "b"}])
    assert strategic.apply(live, patch, POD) == spec(tolerations=[{"key": "b"}])


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        (spec(containers=[{"image": "x"}]), "does not contain declared merge key: name"),
        ({"spec": {"$patch": "bogus"}}, "Unknown patch directive type: bogus"),
        (spec(containers=["x"]), "invalid element"),
        (
            {"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [B]}},
            "doesn't match \\$setElementOrder",
        ),
        ({"spec": {"$setElementOrder/containers": "a"}}, "containers must be a list"),
        ({"spec": {"$retainKeys": "a"}}, "retainKeys must be a list"),
        (spec(containers=[{"$patch": "delete"}]), "delete patch type with no merge key defined"),
        (
            spec(containers=[{"$patch": "bogus", "name": "a"}]),
            "Unknown patch directive type: bogus",
        ),
    ],
)
def test_broken_strategic_patches_are_refused(patch: Any, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        strategic.apply(spec(containers=[A]), patch, POD)


NAMES = st.lists(st.sampled_from("abcdef"), unique=True, max_size=6)


@given(NAMES, NAMES)
def test_a_strategic_merge_has_all_items_once(live: list[str], wanted: list[str]) -> None:
    before = spec(containers=[{"name": name, "image": "1"} for name in live])
    patch = spec(containers=[{"name": name, "image": "2"} for name in wanted])
    found = strategic.apply(before, patch, POD)["spec"]["containers"]
    assert sorted(c["name"] for c in found) == sorted({*live, *wanted})
    assert all(c["image"] == ("2" if c["name"] in wanted else "1") for c in found)
    assert [c["name"] for c in found if c["name"] in wanted] == wanted
    again = strategic.apply(spec(containers=found), patch, POD)["spec"]["containers"]
    assert again == found
