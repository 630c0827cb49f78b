"""Requests that were answered with 500, or with silence: each is the client's mistake, and told so."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.conformance.fake_state import FakeState
from tests.unit.kube.kube_lab import lab

MAPS = "/api/v1/namespaces/default/configmaps"
APPS = "/apis/apps/v1/namespaces/default"
AUTOSCALERS = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"
MERGE, PATCH = "application/merge-patch+json", "application/json-patch+json"
SCALE = f"{APPS}/deployments/d/scale"
TEMPLATE = {
    "metadata": {"labels": {"a": "b"}},
    "spec": {"containers": [{"name": "c", "image": "x"}]},
}
DEPLOYMENT = {
    "metadata": {"name": "d"},
    "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE},
}
SHARED = b"".join(
    b"    b%d: &b%d [%s]\n" % (n, n, b",".join([b"*b%d" % (n - 1)] * 9)) for n in range(1, 9)
)
BOMB = b"metadata: {name: r}\nrevision: 1\ndata:\n    b0: &b0 [x]\n" + SHARED


@pytest.mark.parametrize(
    ("method", "path", "body", "media", "status"),
    [
        ("GET", f"{MAPS}/m?resourceVersion=%C2%B2", None, "", 200),
        ("GET", f"{MAPS}?resourceVersion=%C2%B2", None, "", 400),
        ("GET", f"{MAPS}?resourceVersion={'9' * 5000}", None, "", 400),
        ("PATCH", SCALE, b"5", MERGE, 400),
        ("PATCH", SCALE, b"{", PATCH, 400),
        ("PATCH", SCALE, b'{"spec":5}', MERGE, 400),
        ("PATCH", SCALE, b'{"metadata":"x"}', MERGE, 400),
        ("PATCH", SCALE, b'{"spec":{"replicas":true}}', MERGE, 400),
        ("PATCH", SCALE, b'[{"op":"replace","path":"","value":5}]', PATCH, 400),
        ("PATCH", f"{SCALE}?fieldManager=x", b"a: [", "application/apply-patch+yaml", 400),
        ("PUT", SCALE, b'{"spec":"x"}', "application/json", 400),
        ("DELETE", f"{MAPS}/m", b'{"preconditions":5}', "application/json", 400),
        ("DELETE", f"{MAPS}/m", b'{"gracePeriodSeconds":"x"}', "application/json", 400),
        ("PATCH", f"{MAPS}/m", b'[{"op":[],"path":"/a"}]', PATCH, 422),
        ("PATCH", f"{MAPS}/m", b'{"data":' * 500 + b"1" + b"}" * 500, MERGE, 400),
        ("POST", f"{APPS}/controllerrevisions", BOMB, "application/yaml", 400),
    ],
)
async def test_a_mistake_is_the_clients(
    method: str, path: str, body: bytes | None, media: str, status: int
) -> None:
    async with lab(FakeState()) as at:
        await at.ask("POST", MAPS, {"metadata": {"name": "m"}}, status=201)
        await at.ask("POST", f"{APPS}/deployments", DEPLOYMENT, status=201)
        headers = {"Content_Type": media} if media else {}
        await at.ask(method, path, body, status=status, **headers)


@pytest.mark.parametrize("said", ["5", "[5]", "{}", '[{"resource":5}]', "null", '"x"', "["])
async def test_annotations_that_carry_nothing_are_left_aside(said: str) -> None:
    names = ("metrics", "behavior", "conditions", "current-metrics")
    annotations = {f"autoscaling.alpha.kubernetes.io/{name}": said for name in names}
    spec = {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"}}
    async with lab(FakeState()) as at:
        made = {"metadata": {"name": "h", "annotations": annotations}, "spec": spec}
        await at.ask("POST", AUTOSCALERS, made, status=201)


async def test_a_daemon_sets_annotation_may_be_no_number() -> None:
    path = f"{APPS}/daemonsets"
    annotations = {"deprecated.daemonset.template.generation": "x"}
    made: dict[str, Any] = {**DEPLOYMENT, "metadata": {"name": "d", "annotations": annotations}}
    async with lab(FakeState()) as at:
        await at.ask("POST", path, made, status=201)
        patch = {"spec": {"minReadySeconds": 3}}
        await at.ask("PATCH", f"{path}/d", patch, status=200, Content_Type=MERGE)


async def test_warnings_are_headers_whatever_they_say() -> None:
    async with lab(FakeState()) as at:
        odd = {"metadata": {"name": "m"}, 'a\r\nX-Evil: "1"': 1, "中": 2}
        found = await at.ask("POST", f"{MAPS}?fieldValidation=Warn", odd, status=201)
        warnings = found.headers.getall("Warning")
        assert warnings[0] == r'299 - "unknown field \"a  X-Evil: \"1\"\""'
        assert "中" in warnings[1]
        many = {"metadata": {"name": "n"}, **{f"f{n}{'x' * 1000}": n for n in range(500)}}
        found = await at.ask("POST", f"{MAPS}?fieldValidation=Warn", many, status=201)
        assert 10 < len(found.headers.getall("Warning")) < 20


async def test_copies_of_copies_end_at_the_size_of_a_body() -> None:
    doubling = [{"op": "copy", "from": "/data", "path": f"/data/x{n}"} for n in range(40)]
    async with lab(FakeState()) as at:
        await at.ask("POST", MAPS, {"metadata": {"name": "m"}, "data": {"a": "1"}}, status=201)
        body = json.dumps(doubling).encode()
        refused = await at.ask("PATCH", f"{MAPS}/m", body, status=413, Content_Type=PATCH)
        assert "accumulated size increase of copy" in refused.json["message"]
