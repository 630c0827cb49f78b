"""Decoding: the fast way and the slow way agree; problems are named as upstream names them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagong.errors import InvalidArgument
from sagong.model.objects import GroupVersionKind
from sagong_kube.schema import decoding
from sagong_kube.schema.defaults import apply_defaults
from sagong_kube.schema.inspection import Inspection

POD = GroupVersionKind("", "v1", "Pod")
DEPLOYMENT = GroupVersionKind("apps", "v1", "Deployment")
CRD = GroupVersionKind("apiextensions.k8s.io", "v1", "CustomResourceDefinition")


def pod(**spec: Any) -> dict[str, Any]:
    containers = [{"name": "a", "image": "nginx"}]
    return {"metadata": {"name": "a"}, "spec": {"containers": containers, **spec}}


def decoded(kind: GroupVersionKind, document: Any, **options: Any) -> decoding.Decoded:
    return decoding.decode(json.dumps(document).encode(), kind, **options)


def test_a_document_comes_back_as_go_types_give_it() -> None:
    given = pod(hostNetwork=False, nodeName="", terminationGracePeriodSeconds=0, nodeSelector={})
    given["spec"]["containers"][0]["resources"] = {"limits": {"cpu": 0.5, "memory": "1024Mi"}}
    given["metadata"]["creationTimestamp"] = None
    document = decoded(POD, given).document
    assert document == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a"},
        "spec": {
            "containers": [
                {
                    "name": "a",
                    "image": "nginx",
                    "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}},
                }
            ],
            "terminationGracePeriodSeconds": 0,
        },
        "status": {},
    }


def test_fields_without_omitempty_always_appear() -> None:
    document = decoded(DEPLOYMENT, {"spec": {}}).document
    assert document["spec"] == {"strategy": {}, "template": {"metadata": {}, "spec": {}}}


def test_unknown_fields_are_named_and_dropped() -> None:
    given = pod(foo=1)
    given["spec"]["containers"][0]["bar"] = {}
    result = decoded(POD, given)
    assert result.problems == (
        'unknown field "spec.containers[0].bar"',
        'unknown field "spec.foo"',
    )
    assert "foo" not in result.document["spec"]
    assert decoding.strict_error(POD, result.problems) == (
        'Pod in version "v1" cannot be handled as a Pod: strict decoding error: '
        'unknown field "spec.containers[0].bar", unknown field "spec.foo"'
    )
    assert decoded(POD, given, validation="Ignore").problems == ()


def test_doubled_fields_are_named() -> None:
    body = b'{"spec":{"replicas":1,"replicas":2}}'
    result = decoding.decode(body, DEPLOYMENT)
    assert result.problems == ('duplicate field "spec.replicas"',)
    assert result.document["spec"]["replicas"] == 2


def test_wrong_types_are_explained_as_go_does() -> None:
    with pytest.raises(InvalidArgument) as refused:
        decoded(DEPLOYMENT, {"spec": {"replicas": "x"}})
    assert refused.value.message == (
        'Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal '
        "string into Go struct field DeploymentSpec.spec.replicas of type int32"
    )


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"kind": "Service"}, "unknown conversion"),
        ({"apiVersion": "v2"}, "does not match the expected API version"),
        ([], "json parse error"),
        ({"spec": {"nodeSelector": {"a": 1}}}, "cannot unmarshal number"),
        ({"spec": {"activeDeadlineSeconds": 1.5}}, "cannot unmarshal number 1.5"),
        ({"spec": {"overhead": {"cpu": "x"}}}, "quantities must match"),
        ({"metadata": {"deletionTimestamp": "x"}}, "parsing time"),
        ({"metadata": []}, "cannot unmarshal array"),
    ],
)
def test_what_can_not_be_decoded_is_refused(document: Any, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        decoded(POD, document)


def test_broken_json_and_base64_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="json parse error"):
        decoding.decode(b"{", POD)
    with pytest.raises(InvalidArgument, match="illegal base64 data at input byte 0"):
        decoded(GroupVersionKind("", "v1", "Secret"), {"data": {"a": "*"}})


def test_yaml_bodies() -> None:
    body = b"metadata: {name: a, name: b}\nspec:\n  containers: []\n  x: 2020-01-01\n"
    result = decoding.decode(body, POD, media="yaml")
    assert result.document["metadata"]["name"] == "b"
    assert result.problems == ('duplicate field "name"', 'unknown field "spec.x"')
    with pytest.raises(InvalidArgument, match="error converting YAML to JSON"):
        decoding.decode(b"a: [", POD, media="yaml")


def test_custom_kinds_are_checked_in_their_metadata_alone() -> None:
    kind = GroupVersionKind("example.com", "v1", "Thing")
    result = decoded(kind, {"metadata": {"name": "a", "foo": 1}, "spec": {"any": [None]}})
    assert result.problems == ('unknown field "metadata.foo"',)
    assert result.document["spec"] == {"any": [None]}


def test_schemas_of_definitions_are_recursive() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "array", "items": {"type": "string"}}},
        "additionalProperties": False,
    }
    version = {"name": "v1", "schema": {"openAPIV3Schema": schema}, "bogus": 1}
    result = decoded(CRD, {"spec": {"versions": [version]}})
    kept = result.document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert kept == schema
    assert result.problems == ('unknown field "spec.versions[0].bogus"',)


VALUES = st.sampled_from([None, "", "x", 0, 3, False, True, [], {}, {"a": "b"}, [{"name": "n"}]])
SPECS = st.dictionaries(
    st.sampled_from(
        [
            *("nodeName", "hostNetwork", "priority", "tolerations", "nodeSelector", "affinity"),
            *("volumes", "hostAliases", "securityContext", "enableServiceLinks", "nope"),
        ]
    ),
    VALUES,
)


@given(SPECS)
def test_the_fast_way_and_the_slow_way_agree(spec: dict[str, Any]) -> None:
    inspection = Inspection()
    try:
        slow = inspection.typed(pod(**spec), "core.v1.Pod")
    except InvalidArgument:
        with pytest.raises(InvalidArgument):
            decoded(POD, pod(**spec))
        return
    fast = decoded(POD, pod(**spec))
    assert fast.document == {"apiVersion": "v1", "kind": "Pod", **slow}
    assert len(fast.problems) == len(inspection.unknown)


def defaulted(kind: GroupVersionKind, document: Any) -> dict[str, Any]:
    found = decoded(kind, document).document
    apply_defaults(found, kind)
    again = json.loads(json.dumps(found))
    apply_defaults(again, kind)
    assert again == found, "defaulting twice changes nothing"
    return found


def test_a_pod_gets_its_defaults() -> None:
    given = pod(hostNetwork=True, volumes=[{"name": "v"}], serviceAccountName="x")
    container = given["spec"]["containers"][0]
    container["ports"] = [{"containerPort": 80}]
    container["livenessProbe"] = {"httpGet": {"port": 80}}
    container["resources"] = {"limits": {"cpu": "1"}}
    spec = defaulted(POD, given)["spec"]
    assert spec["restartPolicy"] == "Always"
    assert spec["enableServiceLinks"] is True
    assert spec["serviceAccount"] == "x"
    assert spec["volumes"] == [{"name": "v", "emptyDir": {}}]
    container = spec["containers"][0]
    assert container["imagePullPolicy"] == "Always"
    assert container["ports"] == [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]
    assert container["resources"]["requests"] == {"cpu": "1"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/", "port": 80, "scheme": "HTTP"}
    assert container["livenessProbe"]["failureThreshold"] == 3


@pytest.mark.parametrize(
    ("kind", "given", "path", "value"),
    [
        (DEPLOYMENT, {"spec": {"replicas": 0}}, "spec.replicas", 0),
        (DEPLOYMENT, {}, "spec.strategy.rollingUpdate.maxSurge", "25%"),
        (GroupVersionKind("", "v1", "Secret"), {}, "type", "Opaque"),
        (GroupVersionKind("", "v1", "Service"), {}, "spec.internalTrafficPolicy", "Cluster"),
        (GroupVersionKind("batch", "v1", "Job"), {}, "spec.completions", 1),
        (GroupVersionKind("batch", "v1", "CronJob"), {}, "spec.suspend", False),
        (GroupVersionKind("apps", "v1", "StatefulSet"), {}, "spec.replicas", 1),
        (
            GroupVersionKind("networking.k8s.io", "v1", "NetworkPolicy"),
            {"spec": {"egress": [{}]}},
            "spec.policyTypes",
            ["Ingress", "Egress"],
        ),
        (
            GroupVersionKind("storage.k8s.io", "v1", "StorageClass"),
            {},
            "volumeBindingMode",
            "Immediate",
        ),
    ],
)
def test_other_kinds_get_their_defaults(
    kind: GroupVersionKind, given: Any, path: str, value: Any
) -> None:
    found: Any = defaulted(kind, given)
    for step in path.split("."):
        found = found[step]
    assert found == value


def test_aliases_of_yaml_are_a_convenience() -> None:
    body = b"kind: Pod\nmetadata: {labels: &l {a: b}, annotations: *l}\n"
    assert decoding.parsed_yaml(body)[0]["metadata"]["annotations"] == {"a": "b"}
    lines = [f"b{n}: &b{n} [{','.join([f'*b{n - 1}'] * 9)}]" for n in range(1, 9)]
    bomb = "\n".join(["b0: &b0 [x]", *lines]).encode()
    with pytest.raises(InvalidArgument, match="excessive aliasing"):
        decoding.parsed_yaml(bomb)
    with pytest.raises(InvalidArgument, match="contains itself"):
        decoding.parsed_yaml(b"a: &a [*a]")
