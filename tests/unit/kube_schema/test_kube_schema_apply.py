"""Server-side apply: who owns what, conflicts, and what goes when it is applied no longer."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagong.errors import InvalidArgument
from sagong.model.objects import GroupVersionKind
from sagong_kube.patch import apply, fieldset, managed
from sagong_kube.patch.shapes import shape_of
from sagong_kube.patch.typed import compared, field_set, merged

DEPLOYMENT = GroupVersionKind("apps", "v1", "Deployment")
SERVICE = GroupVersionKind("", "v1", "Service")
THING = GroupVersionKind("example.com", "v1", "Thing")
T1, T2, T3 = (f"2024-01-01T00:0{at}:00Z" for at in (1, 2, 3))


def deployment(replicas: int | None = None, **env: str) -> dict[str, Any]:
    container: dict[str, Any] = {"name": "web", "image": "nginx"}
    if env:
        container["env"] = [{"name": name, "value": value} for name, value in env.items()]
    spec: dict[str, Any] = {"template": {"spec": {"containers": [container]}}}
    if replicas is not None:
        spec["replicas"] = replicas
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "a"},
        "spec": spec,
    }


def applied(live: Any, config: Any, manager: str = "kubectl", **options: Any) -> Any:
    kind = options.pop("kind", DEPLOYMENT)
    now = options.pop("now", T1)
    return apply.apply(live, config, kind, manager=manager, now=now, **options).document


def updated(live: Any, manager: str, change: Any, **options: Any) -> Any:
    new = copy.deepcopy(live)
    change(new)
    new["metadata"]["managedFields"] = managed.after_update(
        new, live, DEPLOYMENT, manager=manager, now=T2, **options
    )
    return new


def owners(document: Any) -> dict[str, set[str]]:
    return {
        f"{entry['manager']}/{entry['operation']}": {
            fieldset.shown(path) for path in fieldset.decode(entry["fieldsV1"])
        }
        for entry in document["metadata"]["managedFields"]
    }


def test_an_applier_owns_what_it_says() -> None:
    document = applied(None, deployment(2, A="1"))
    (entry,) = document["metadata"]["managedFields"]
    assert entry["manager"] == "kubectl"
    assert entry["operation"] == "Apply"
    assert entry["apiVersion"] == "apps/v1"
    assert entry["fieldsType"] == "FieldsV1"
    assert entry["time"] == T1
    assert entry["fieldsV1"] == {
        "f:spec": {
            "f:replicas": {},
            "f:template": {
                "f:spec": {
                    "f:containers": {
                        'k:{"name":"web"}': {
                            ".": {},
                            "f:env": {'k:{"name":"A"}': {".": {}, "f:name": {}, "f:value": {}}},
                            "f:image": {},
                            "f:name": {},
                        }
                    }
                }
            },
        }
    }


def test_an_updater_owns_what_it_changed_and_takes_it_from_others() -> None:
    live = applied(None, deployment(2))
    new = updated(live, "scaler", lambda d: d["spec"].update(replicas=5))
    assert owners(new)["scaler/Update"] == {".spec.replicas"}
    assert ".spec.replicas" not in owners(new)["kubectl/Apply"]


def test_a_conflict_names_the_other_and_the_field() -> None:
    live = updated(applied(None, deployment(2)), "scaler", lambda d: d["spec"].update(replicas=5))
    with pytest.raises(apply.ApplyConflict) as refused:
        applied(live, deployment(3))
    assert refused.value.message == (
        'Apply failed with 1 conflict: conflict with "scaler" using apps/v1: .spec.replicas'
    )
    assert refused.value.causes == (
        ("FieldManagerConflict", ".spec.replicas", 'conflict with "scaler" using apps/v1'),
    )
    forced = applied(live, deployment(3), force=True)
    assert forced["spec"]["replicas"] == 3
    assert list(owners(forced)) == ["kubectl/Apply"]


def test_several_conflicts_are_listed() -> None:
    def change(document: Any) -> None:
        document["spec"]["replicas"] = 5
        document["spec"]["template"]["spec"]["containers"][0]["image"] = "other"

    live = updated(applied(None, deployment(2)), "scaler", change, subresource="scale")
    with pytest.raises(apply.ApplyConflict) as refused:
        applied(live, deployment(3))
    assert refused.value.message == (
        'Apply failed with 2 conflicts: conflicts with "scaler" with subresource "scale" '
        "using apps/v1:\n- .spec.replicas\n"
        '- .spec.template.spec.containers[name="web"].image'
    )


def test_the_same_value_is_shared_without_a_conflict() -> None:
    live = applied(None, deployment(2))
    both = applied(live, deployment(2), "other")
    assert ".spec.replicas" in owners(both)["kubectl/Apply"]
    assert ".spec.replicas" in owners(both)["other/Apply"]


def test_what_is_applied_no_longer_goes_unless_another_owns_it() -> None:
    live = applied(None, deployment(2, A="1", B="2"))
    live = applied(live, deployment(A="1"), "other")
    result = applied(live, deployment(B="2"))
    assert "replicas" not in result["spec"]
    env = result["spec"]["template"]["spec"]["containers"][0]["env"]
    assert [each["name"] for each in env] == ["A", "B"]
    result = applied(result, deployment(B="2"), "other")
    env = result["spec"]["template"]["spec"]["containers"][0]["env"]
    assert env == [{"name": "B", "value": "2"}]


def test_a_removed_item_takes_what_was_defaulted_in_it_along() -> None:
    live = applied(None, deployment(A="1"))
    container = live["spec"]["template"]["spec"]["containers"][0]
    container["imagePullPolicy"] = "Always"
    other = deployment()
    other["spec"]["template"]["spec"]["containers"] = [{"name": "db", "image": "x"}]
    (left,) = applied(live, other)["spec"]["template"]["spec"]["containers"]
    assert left == {"name": "db", "image": "x"}


def test_applying_the_same_again_changes_nothing() -> None:
    live = applied(None, deployment(2, A="1"))
    result = apply.apply(live, deployment(2, A="1"), DEPLOYMENT, manager="kubectl", now=T3)
    assert not result.changed
    assert result.document == live


def test_objects_without_managers_belong_to_before_first_apply() -> None:
    live = deployment(2)
    with pytest.raises(apply.ApplyConflict, match='conflict with "before-first-apply" using apps'):
        applied(live, deployment(3))


def test_status_and_spec_are_owned_through_their_own_endpoints() -> None:
    live = applied(None, deployment(2))

    def change(document: Any) -> None:
        document["spec"]["replicas"] = 9
        document["status"] = {"replicas": 2}

    new = updated(live, "controller", change, subresource="status")
    entry = new["metadata"]["managedFields"][-1]
    assert entry["subresource"] == "status"
    assert set(entry["fieldsV1"]) == {"f:status"}
    new = updated(live, "user", change)
    assert owners(new)["user/Update"] == {".spec.replicas"}


def test_managed_fields_can_be_reset_but_not_applied() -> None:
    live = applied(None, deployment(2))
    new = copy.deepcopy(live)
    new["metadata"]["managedFields"] = [{}]
    assert managed.after_update(new, live, DEPLOYMENT, manager="x", now=T2) == []
    config = deployment()
    config["metadata"]["managedFields"] = [{"manager": "x"}]
    with pytest.raises(InvalidArgument, match=r"metadata\.managedFields must be nil"):
        applied(live, config)


def test_ten_updaters_are_kept() -> None:
    live = applied(None, deployment(0))
    for at in range(15):
        live = updated(live, f"m{at}", lambda d, at=at: _label(d, at))
        live = updated(live, f"n{at}", lambda d, at=at: d["spec"].update({"paused": at % 2 == 0}))
    assert len([name for name in owners(live) if name.endswith("/Update")]) <= 10


def test_ports_are_keyed_with_their_default_protocol() -> None:
    config = {"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}}
    document = applied(None, config, kind=SERVICE)
    ports = document["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:ports"]
    assert list(ports) == ['k:{"port":80,"protocol":"TCP"}']
    live = copy.deepcopy(document)
    live["spec"]["ports"] = [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    config["spec"] = {"ports": [{"port": 80, "name": "http"}]}
    assert applied(live, config, kind=SERVICE)["spec"]["ports"] == [
        {"port": 80, "protocol": "TCP", "targetPort": 80, "name": "http"}
    ]


def _label(document: Any, at: int) -> None:
    document["metadata"]["labels"] = {f"l{at}": "x"}


SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "items": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["id"],
                    "items": {"type": "object", "properties": {"id": {"type": "string"}}},
                },
                "tags": {
                    "type": "array",
                    "x-kubernetes-list-type": "set",
                    "items": {"type": "string"},
                },
                "whole": {"type": "object", "x-kubernetes-map-type": "atomic"},
            },
        }
    },
}


def test_custom_kinds_merge_by_their_schema() -> None:
    def thing(**spec: Any) -> dict[str, Any]:
        return {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {}, "spec": spec}

    options: dict[str, Any] = {"kind": THING, "schema": SCHEMA}
    one = thing(items=[{"id": "a", "n": 1}], tags=["x"], whole={"a": 1})
    live = applied(None, one, "one", **options)
    two = thing(items=[{"id": "b", "n": 2}], tags=["y"])
    live = applied(live, two, "two", **options)
    assert live["spec"]["items"] == [{"id": "a", "n": 1}, {"id": "b", "n": 2}]
    assert live["spec"]["tags"] == ["x", "y"]
    live = applied(live, thing(whole={"b": 2}), "one", **options)
    assert live["spec"] == {"items": [{"id": "b", "n": 2}], "tags": ["y"], "whole": {"b": 2}}
    with pytest.raises(InvalidArgument, match='omits key field "id"'):
        applied(live, thing(items=[{"n": 1}]), "one", **options)


ELEMENTS = st.sampled_from(["f:a", "f:b", 'k:{"name":"x"}', 'v:"y"', "i:0"])
PATHS = st.frozensets(st.lists(ELEMENTS, min_size=1, max_size=4).map(tuple), max_size=8)


@given(PATHS)
def test_field_sets_survive_their_encoding(paths: fieldset.FieldSet) -> None:
    assert fieldset.decode(fieldset.encode(paths)) == paths


ENV = st.dictionaries(st.sampled_from("ABCD"), st.sampled_from("12"), max_size=4)


@given(ENV, ENV)
def test_a_merge_says_all_that_was_applied(live: dict[str, str], config: dict[str, str]) -> None:
    shape = shape_of(DEPLOYMENT, None)
    before, wanted = deployment(1, **live), deployment(2, **config)
    result = merged(before, wanted, shape)
    assert field_set(result, shape) == field_set(before, shape) | field_set(wanted, shape)
    assert compared(result, merged(result, wanted, shape), shape).same
    changes = compared(before, result, shape)
    assert changes.removed == frozenset()
    assert changes.same is (before == result)
    names = [each["name"] for each in _env(result) if each["name"] in config]
    assert names == list(config)


def _env(document: Any) -> list[Any]:
    found: list[Any] = document["spec"]["template"]["spec"]["containers"][0].get("env") or []
    return found


@given(ENV, ENV, ENV)
def test_one_managers_last_apply_decides(
    a: dict[str, str], b: dict[str, str], c: dict[str, str]
) -> None:
    live: Any = None
    for env in (a, b, c):
        live = applied(live, deployment(1, **env))
    assert {each["name"]: each["value"] for each in _env(live)} == c
