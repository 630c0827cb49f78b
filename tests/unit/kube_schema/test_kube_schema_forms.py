"""Other forms: protobuf bodies, tables, JSON paths, OpenAPI documents."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagong.errors import InvalidArgument
from sagong.model.objects import GroupVersionKind
from sagong.model.times import parse_time
from sagong_kube.convert import jsonpath, openapi, protobuf, table
from sagong_kube.schema import decoding, resources

POD = GroupVersionKind("", "v1", "Pod")
DEPLOYMENT = GroupVersionKind("apps", "v1", "Deployment")
NOW = parse_time("2024-01-01T00:10:00Z")


# A writer of protobuf by hand: what typed Go clients send, zero values included.


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def body(api_version: str, kind: str, raw: bytes) -> bytes:
    head = field(1, api_version) + field(2, kind)
    return protobuf.MAGIC + field(1, head) + field(2, raw) + field(3, "") + field(4, "")


META = (
    field(1, "web")
    + field(2, "")
    + field(3, "ns")
    + field(7, 0)
    + field(8, b"")
    + field(11, field(1, "app") + field(2, "x"))
)
PORT = field(1, "") + field(2, 0) + field(3, 80) + field(4, "TCP") + field(5, "")
LIMITS = field(1, field(1, "cpu") + field(2, field(1, "500m")))
HTTP = field(1, "/h") + field(2, field(1, 0) + field(2, 8080) + field(3, ""))
PROBE = field(1, field(2, HTTP)) + field(2, 0)
CONTAINER = (
    *(field(1, "c"), field(2, "nginx"), field(5, ""), field(6, PORT), field(8, LIMITS)),
    *(field(10, PROBE), field(16, 0)),
)
VOLUME = field(1, "v") + field(2, field(2, b""))
POD_SPEC = field(1, VOLUME) + field(2, b"".join(CONTAINER)) + field(4, 0)


def test_a_pod_in_protobuf_is_what_json_would_have_given() -> None:
    kind, document = protobuf.decode(body("v1", "Pod", field(1, META) + field(2, POD_SPEC)))
    assert kind == POD
    assert decoding.conform(document, kind).document == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "ns", "labels": {"app": "x"}},
        "spec": {
            "volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [
                {
                    "name": "c",
                    "image": "nginx",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "resources": {"limits": {"cpu": "500m"}},
                    "livenessProbe": {"httpGet": {"path": "/h", "port": 8080}},
                }
            ],
            "terminationGracePeriodSeconds": 0,
        },
        "status": {},
    }


def test_pointers_keep_their_zeros_and_negative_numbers_their_sign() -> None:
    raw = field(1, META) + field(2, field(1, 0) + field(9, -1))
    kind, document = protobuf.decode(body("apps/v1", "Deployment", raw))
    spec = decoding.conform(document, kind).document["spec"]
    assert spec["replicas"] == 0
    assert spec["progressDeadlineSeconds"] == -1


def test_times_bytes_and_embedded_documents() -> None:
    options = field(1, 30) + field(2, field(1, "uid-1")) + field(4, "Foreground")
    kind, document = protobuf.decode(body("v1", "DeleteOptions", options))
    assert kind.kind == "DeleteOptions"
    assert document["gracePeriodSeconds"] == 30
    assert document["preconditions"] == {"uid": "uid-1"}
    secret = field(2, field(1, "k") + field(2, b"\x00\xff"))
    assert protobuf.decode(body("v1", "Secret", secret))[1]["data"] == {"k": "AP8="}
    stamp = field(1, 60)
    meta = field(1, field(9, stamp))
    assert protobuf.decode(body("v1", "ConfigMap", meta))[1]["metadata"] == {
        "deletionTimestamp": "1970-01-01T00:01:00Z"
    }
    revision = field(2, field(1, b'{"a":1}'))
    document = protobuf.decode(body("apps/v1", "ControllerRevision", revision))[1]
    assert document["data"] == {"a": 1}


def test_lists_inside_maps() -> None:
    extra = field(5, field(1, "scopes") + field(2, field(1, "a") + field(1, "b")))
    raw = field(2, extra)
    _, document = protobuf.decode(body("authorization.k8s.io/v1", "SubjectAccessReview", raw))
    assert document["spec"]["extra"] == {"scopes": ["a", "b"]}


@given(st.binary(max_size=60))
def test_bytes_that_are_no_message_are_refused(noise: bytes) -> None:
    for raw in (noise, protobuf.MAGIC + noise, body("v1", "Pod", noise)):
        try:
            protobuf.decode(raw)
        except InvalidArgument:
            continue


def test_what_is_not_protobuf_says_so() -> None:
    with pytest.raises(InvalidArgument, match="does not appear to be a protobuf message"):
        protobuf.decode(b"{}")
    with pytest.raises(InvalidArgument, match='no kind "Nope" is registered'):
        protobuf.decode(body("v1", "Nope", b""))


# Tables


def pod(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "creationTimestamp": "2024-01-01T00:00:00Z"},
        "spec": {"containers": [{"name": "a"}, {"name": "b"}], "nodeName": "n"},
        "status": {"phase": "Running", **status},
    }


def state(name: str, ready: bool = True, **fields: Any) -> dict[str, Any]:
    return {"name": name, "ready": ready, "state": {"running": {}}, **fields}


@pytest.mark.parametrize(
    ("document", "cells"),
    [
        (pod(containerStatuses=[state("a"), state("b")]), ["2/2", "Running", "0"]),
        (
            pod(
                containerStatuses=[
                    state("a"),
                    state(
                        "b",
                        False,
                        restartCount=3,
                        state={"waiting": {"reason": "CrashLoopBackOff"}},
                        lastState={"terminated": {"finishedAt": "2024-01-01T00:05:00Z"}},
                    ),
                ]
            ),
            ["1/2", "CrashLoopBackOff", "3 (5m ago)"],
        ),
        (
            pod(
                phase="Pending",
                initContainerStatuses=[state("i", state={"terminated": {"exitCode": 3}})],
            ),
            ["0/2", "Init:ExitCode:3", "0"],
        ),
        (
            pod(
                containerStatuses=[
                    state("a", state={"terminated": {"reason": "Completed"}}),
                    state("b"),
                ]
            ),
            ["1/2", "NotReady", "0"],
        ),
        (
            pod(
                phase="Pending",
                conditions=[
                    {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}
                ],
            ),
            ["0/2", "SchedulingGated", "0"],
        ),
        (pod(phase="Failed", reason="Evicted"), ["0/2", "Evicted", "0"]),
    ],
)
def test_pods_are_shown_as_kubectl_shows_them(document: Any, cells: list[str]) -> None:
    found = table.cells(POD, document, NOW)
    assert found[1:4] == cells
    assert found[4] == "10m"
    assert found[6] == "n"


def test_a_pod_that_goes_is_terminating() -> None:
    document = pod(containerStatuses=[state("a"), state("b")])
    document["metadata"]["deletionTimestamp"] = "2024-01-01T00:09:00Z"
    assert table.cells(POD, document, NOW)[2] == "Terminating"


def test_sidecars_count_as_containers() -> None:
    document = pod(
        containerStatuses=[state("a"), state("b")],
        initContainerStatuses=[state("s", started=True, restartCount=1)],
    )
    document["spec"]["initContainers"] = [{"name": "s", "restartPolicy": "Always"}]
    assert table.cells(POD, document, NOW)[1:4] == ["3/3", "Running", "1"]


def test_wide_columns_have_a_priority() -> None:
    wide = [c["name"] for c in table.columns(POD) if c["priority"]]
    assert wide == ["IP", "Node", "Nominated Node", "Readiness Gates"]
    assert table.columns(POD)[0]["format"] == "name"


@pytest.mark.parametrize(
    ("kind", "document", "cells"),
    [
        (
            GroupVersionKind("", "v1", "Service"),
            {
                "spec": {
                    "type": "NodePort",
                    "clusterIP": "10.0.0.1",
                    "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}],
                    "selector": {"a": "b"},
                }
            },
            ["x", "NodePort", "10.0.0.1", "<none>", "80:30080/TCP", "10m", "a=b"],
        ),
        (
            DEPLOYMENT,
            {
                "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}},
                "status": {"readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1},
            },
            ["x", "1/3", 2, 1, "10m", "", "", "a=b"],
        ),
        (
            GroupVersionKind("", "v1", "Node"),
            {
                "spec": {"unschedulable": True},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            },
            ["x", "Ready,SchedulingDisabled", "<none>", "10m", "", "<none>", "<none>"]
            + ["<unknown>"] * 3,
        ),
        (
            GroupVersionKind("batch", "v1", "Job"),
            {"spec": {"completions": 2}, "status": {"succeeded": 1}},
            ["x", "Running", "1/2", "", "10m", "", "", "<none>"],
        ),
    ],
)
def test_other_rows(kind: GroupVersionKind, document: dict[str, Any], cells: list[Any]) -> None:
    document["metadata"] = {"name": "x", "creationTimestamp": "2024-01-01T00:00:00Z"}
    assert table.cells(kind, document, NOW) == cells


def test_custom_columns_follow_their_paths() -> None:
    columns: list[dict[str, Any]] = [
        {"name": "Ready", "type": "string", "jsonPath": '.status.c[?(@.type=="Ready")].status'},
        {"name": "Count", "type": "integer", "jsonPath": ".spec.count", "priority": 1},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]
    document = {
        "metadata": {"name": "x", "creationTimestamp": "2024-01-01T00:00:00Z"},
        "spec": {"count": 3},
        "status": {"c": [{"type": "Other"}, {"type": "Ready", "status": "True"}]},
    }
    kind = GroupVersionKind("example.com", "v1", "Thing")
    assert [c["name"] for c in table.columns(kind, columns)] == ["Name", "Ready", "Count", "Age"]
    assert table.cells(kind, document, NOW, columns) == ["x", "True", 3, "10m"]
    assert table.cells(kind, document, NOW, []) == ["x", "10m"]


def test_json_paths() -> None:
    document = {"a": [{"b": 1}, {"b": 2}], "x.y": 3}
    assert jsonpath.find(document, ".a[*].b") == [1, 2]
    assert jsonpath.find(document, "{.a[-1].b}") == [2]
    assert jsonpath.find(document, "$['x.y']") == [3]
    assert jsonpath.find(document, r".x\.y") == [3]
    assert jsonpath.find(document, ".nope.b") == []
    with pytest.raises(InvalidArgument, match="is not understood"):
        jsonpath.find(document, ".a[")


# OpenAPI


def test_a_group_has_paths_and_the_definitions_they_use() -> None:
    document = json.loads(openapi.v3("apps", "v1"))
    path = document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]
    patch = path["patch"]
    assert patch["x-kubernetes-group-version-kind"]["kind"] == "Deployment"
    assert {"fieldValidation", "dryRun"} <= {each["name"] for each in patch["parameters"]}
    assert "application/apply-patch+yaml" in patch["requestBody"]["content"]
    schemas = document["components"]["schemas"]
    spec = schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]
    assert spec["x-kubernetes-patch-merge-key"] == "name"
    assert spec["x-kubernetes-list-map-keys"] == ["name"]
    assert "io.k8s.api.core.v1.Node" not in schemas
    text = json.dumps(document)
    assert "#/definitions/" not in text
    for name in schemas:
        assert f"#/components/schemas/{name}" in text


def test_the_whole_document_has_everything() -> None:
    document = json.loads(openapi.v2())
    assert document["swagger"] == "2.0"
    ids = [
        operation["operationId"]
        for path in document["paths"].values()
        for method, operation in path.items()
        if method != "parameters"
    ]
    assert len(ids) == len(set(ids))
    assert "listCoreV1PodForAllNamespaces" in ids
    assert "deleteAppsV1CollectionNamespacedDeployment" in ids


def test_custom_kinds_are_described_too() -> None:
    kind = GroupVersionKind("example.com", "v1", "Thing")
    resource = resources.ResourceSpec(kind=kind, plural="things", singular="thing", namespaced=True)
    schema = {"type": "object", "properties": {"spec": {"type": "object", "nullable": True}}}
    custom = (openapi.CustomKind(resource, schema),)
    third = json.loads(openapi.v3("example.com", "v1", custom))
    assert "com.example.v1.Thing" in third["components"]["schemas"]
    assert "com.example.v1.ThingList" in third["components"]["schemas"]
    assert "/apis/example.com/v1/namespaces/{namespace}/things" in third["paths"]
    second = json.loads(openapi.v2(custom))
    assert "nullable" not in second["definitions"]["com.example.v1.Thing"]["properties"]["spec"]
