"""Names, references, times, and the generated Structs."""

from __future__ import annotations

import random

import msgspec
import pytest

from sagong.errors import InvalidArgument
from sagong.model import names, objects, references, times
from sagong.model.k8s import apps_v1, core_v1
from sagong.model.k8s.meta_v1 import ObjectMeta


def test_labels_of_dns_are_checked() -> None:
    assert names.check_dns_label("a-1") == []
    assert names.check_dns_label("a.b") == ["must not contain dots"]
    (said,) = names.check_dns_label("A_b")
    assert said == (
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
        "and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', "
        "regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
    )
    assert names.check_dns_label("a" * 64) == ["must be no more than 63 characters"]


def test_qualified_names_are_checked() -> None:
    assert names.check_qualified_name("example.com/My_name.1") == []
    assert names.check_qualified_name("/x") == ["prefix part must be non-empty"]
    assert "name part must be non-empty" in names.check_qualified_name("a/")
    assert names.check_qualified_name("a/b/c")[0].startswith("a qualified name must consist of")


def test_keys_ports_and_variables_are_checked() -> None:
    assert names.config_key("a.b_c-D") == []
    assert names.config_key("..a") == ["must not start with '..'"]
    assert names.check_port_name("http-1") == []
    assert names.check_port_name("1") == ["must contain at least one letter (a-z)"]
    assert names.check_relaxed_env_name("a b!") == []
    assert names.check_relaxed_env_name("a=b") != []
    assert names.check_port(0) == ["must be between 1 and 65535, inclusive"]


def test_generated_names_fit() -> None:
    name = names.generated_name("x" * 80, random.Random(1))
    assert len(name) == 63
    assert names.check_dns_label(names.masked("web-")) == []


@pytest.mark.parametrize(
    ("text", "familiar", "canonical"),
    [
        ("nginx", "nginx", "docker.io/library/nginx"),
        ("nginx:1.25", "nginx:1.25", "docker.io/library/nginx:1.25"),
        ("library/nginx", "nginx", "docker.io/library/nginx"),
        ("me/app", "me/app", "docker.io/me/app"),
        ("index.docker.io/nginx", "nginx", "docker.io/library/nginx"),
        ("ghcr.io/a/b:x", "ghcr.io/a/b:x", "ghcr.io/a/b:x"),
        ("localhost/a", "localhost/a", "localhost/a"),
        ("localhost:5000/a:1", "localhost:5000/a:1", "localhost:5000/a:1"),
        ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
        (f"a@sha256:{'0' * 64}", f"a@sha256:{'0' * 64}", f"docker.io/library/a@sha256:{'0' * 64}"),
    ],
)
def test_image_references(text: str, familiar: str, canonical: str) -> None:
    reference = references.parse(text)
    assert (reference.familiar, reference.canonical) == (familiar, canonical)
    assert references.parse(reference.canonical) == reference


def test_default_tag_and_target() -> None:
    assert references.parse_exact("nginx").familiar == "nginx:latest"
    assert references.parse("nginx").target == "latest"
    assert references.parse("nginx").with_tag("2").familiar == "nginx:2"


@pytest.mark.parametrize(
    "text", ["", "Nginx", "a//b", "a:", "a:b:c", "a@sha256:12", "-a", "a/", "a" * 300, "f" * 64]
)
def test_broken_references_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        references.parse(text)


def test_times() -> None:
    assert times.parse_time("1970-01-01T00:01:00Z") == 60
    for text, nanos in (("09:56:39.123456789", 123456789), ("10:56:39.1", 10**8), ("09:56:39", 0)):
        zone = "+01:00" if text.startswith("10") else "Z"
        written = f"2026-12-01T{text}{zone}"
        assert times.parse_nanos(written) == 1796118999 * 10**9 + nanos
    assert times.normalized("2024-01-01T01:00:00.9+01:00") == "2024-01-01T00:00:00Z"
    assert times.time_text(0) == "1970-01-01T00:00:00Z"
    assert times.micro_time(1.5) == "1970-01-01T00:00:01.500000Z"
    with pytest.raises(InvalidArgument, match='parsing time "x"'):
        times.parse_time("x")
    assert times.normalized("9999-12-31T23:59:59Z") == "9999-12-31T23:59:59Z"
    assert times.normalized_micro("9999-12-31T23:59:59.9999999Z").startswith("9999-12-31T23:59:59.")
    for none in ("2024-02-30T00:00:00Z", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+01:00"):
        with pytest.raises(InvalidArgument):
            times.parse_time(none)


def test_durations() -> None:
    assert times.duration("1h30m") == 5400
    assert times.duration("-1.5s") == -1.5
    for text in ("1h30m0s", "1.5s", "20ms", "0s", "2m0.5s"):
        assert times.duration_text(times.duration(text)) == text
    with pytest.raises(InvalidArgument, match='invalid duration "1"'):
        times.duration("1")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (125, "2m5s"),
        (600, "10m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 60, "3h1m"),
        (9 * 3600, "9h"),
        (50 * 3600, "2d2h"),
        (9 * 86400, "9d"),
        (800 * 86400, "2y70d"),
        (3000 * 86400, "8y"),
        (-5, "<invalid>"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    assert times.age(seconds) == text


def test_written_names_of_kinds() -> None:
    assert str(objects.parse_resource("apps/v1/deployments")) == "apps/v1/deployments"
    assert objects.parse_resource("v1/pods").qualified == "pods"
    assert objects.parse_resource("apps/v1/deployments").qualified == "deployments.apps"
    assert objects.GroupVersionKind("apps", "v1", "Deployment").api_version == "apps/v1"


def test_structs_use_wire_names_and_say_what_they_are() -> None:
    service = core_v1.Service(
        metadata=ObjectMeta(name="a"), spec=core_v1.ServiceSpec(cluster_ip="10.0.0.1")
    )
    assert msgspec.json.decode(msgspec.json.encode(service)) == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "a"},
        "spec": {"clusterIP": "10.0.0.1"},
        "status": {"loadBalancer": {}},
    }


def test_structs_ignore_what_they_do_not_know() -> None:
    body = b'{"kind":"Deployment","spec":{"replicas":0,"novelty":{"a":1}},"later":1}'
    deployment = msgspec.json.decode(body, type=apps_v1.Deployment)
    assert deployment.spec.replicas == 0
    assert deployment.spec.template.spec is None or deployment.spec.template.spec.containers == []
