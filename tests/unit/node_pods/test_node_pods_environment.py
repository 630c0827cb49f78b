"""Variables, references, resources: what containers are told."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.node_pods.test_node_pods_decision import pod

from sagong.contracts.image import Image, ImageConfig
from sagong.errors import FailedPrecondition, InvalidArgument
from sagong.model.k8s.core_v1 import ConfigMap, Container, Secret, Service
from sagong_node.pods.boxing import resolv_conf, sandbox_spec
from sagong_node.pods.building import Site, container_spec
from sagong_node.pods.environment import environment, expand, field_value, service_variables
from sagong_node.pods.naming import Origin
from sagong_node.pods.resources import amount, limits_of, oom_score, qos_class
from sagong_node.pods.settings import PodSettings


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("$(A)", "1"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(B)", "$(B)"),
        ("$(A", "$(A"),
        ("x$y$(A)z", "x$y1z"),
        ("$", "$"),
    ],
)
def test_expansion(text: str, said: str) -> None:
    assert expand(text, {"A": "1"}) == said


def made(**fields: Any) -> Container:
    return msgspec.convert({"name": "main", "image": "x", **fields}, Container)


def test_a_later_variable_may_refer_to_earlier_ones_and_to_maps() -> None:
    config = ConfigMap(data={"K": "map", "not a name!": "x"})
    env = [{"name": "B", "value": "$(pre_K) $(C)"}, {"name": "C", "value": "$(B)"}]
    container = made(env=env, envFrom=[{"prefix": "pre_", "configMapRef": {"name": "c"}}])
    found = environment(pod(), container, lookup=lambda resource, name: config)
    assert found == {"pre_K": "map", "B": "map $(C)", "C": "map $(C)"}


def test_missing_references_are_told_unless_optional() -> None:
    reference = {"name": "none", "key": "k"}
    for field, said in (
        ("configMapKeyRef", 'configmap "none" not found'),
        ("secretKeyRef", 'secret "none" not found'),
    ):
        strict = made(env=[{"name": "A", "valueFrom": {field: reference}}])
        with pytest.raises(FailedPrecondition, match=said):
            environment(pod(), strict, lookup=lambda resource, name: None)
        lax = made(env=[{"name": "A", "valueFrom": {field: {**reference, "optional": True}}}])
        assert environment(pod(), lax, lookup=lambda resource, name: None) == {}
    secret = Secret(data={"other": base64.b64encode(b"x").decode()})
    strict = made(env=[{"name": "A", "valueFrom": {"secretKeyRef": reference}}])
    with pytest.raises(FailedPrecondition, match="couldn't find key k in Secret"):
        environment(pod(), strict, lookup=lambda resource, name: secret)


def test_field_references() -> None:
    known = pod(metadata={"labels": {"a": 'x"y', "b": "2"}, "annotations": {"n/m": "3"}})
    assert field_value(known, "metadata.labels['b']") == "2"
    assert field_value(known, "metadata.labels['none']") == ""
    assert field_value(known, "metadata.annotations['n/m']") == "3"
    assert field_value(known, "metadata.labels") == 'a="x\\"y"\nb="2"'
    assert field_value(known, "status.podIP", address="10.0.0.9") == "10.0.0.9"
    assert field_value(known, "spec.serviceAccountName") == "default"
    with pytest.raises(InvalidArgument, match=r"unsupported fieldPath: spec\.nothing"):
        field_value(known, "spec.nothing")


def service(name: str, namespace: str = "default", **spec: Any) -> Service:
    whole = {"metadata": {"name": name, "namespace": namespace}, "spec": spec}
    return msgspec.convert(whole, Service)


def test_service_variables() -> None:
    ports = [{"name": "web-ui", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]
    services = [
        service("my-app", clusterIP="10.96.0.5", ports=ports),
        service("none", clusterIP="None", ports=ports),
        service("far", "other", clusterIP="10.96.0.6", ports=ports),
        service("kubernetes", clusterIP="10.96.0.1", ports=[{"name": "https", "port": 443}]),
    ]
    found = service_variables(services, "default", linked=True)
    assert found["MY_APP_SERVICE_HOST"] == "10.96.0.5"
    assert found["MY_APP_SERVICE_PORT"] == "80"
    assert found["MY_APP_SERVICE_PORT_WEB_UI"] == "80"
    assert found["MY_APP_PORT"] == "tcp://10.96.0.5:80"
    assert found["MY_APP_PORT_53_UDP_ADDR"] == "10.96.0.5"
    assert found["MY_APP_PORT_53_UDP_PROTO"] == "udp"
    assert not any(name.startswith(("NONE", "FAR")) for name in found)
    unlinked = service_variables(services, "default", linked=False)
    assert {name.partition("_")[0] for name in unlinked} == {"KUBERNETES"}


def test_resource_references_fall_back_to_the_node() -> None:
    container = made(resources={"requests": {"cpu": "250m"}, "limits": {"memory": "64Mi"}})
    capacity = {"cpu": 4 * 10**9}
    assert amount([container], "requests.cpu", "main", "1m", capacity) == "250"
    assert amount([container], "requests.cpu", "main", None, capacity) == "1"
    assert amount([container], "limits.memory", "main", "1Mi", capacity) == "64"
    assert amount([container], "requests.memory", "main", "1Mi", capacity) == "64"
    assert amount([container], "limits.cpu", "main", None, capacity) == "4"
    with pytest.raises(ValueError, match="container other not found"):
        amount([container], "limits.cpu", "other", None, capacity)


@pytest.mark.parametrize(
    ("resources", "quality", "score"),
    [
        ({}, "BestEffort", 1000),
        ({"requests": {"memory": "1Gi"}}, "Burstable", 750),
        ({"requests": {"cpu": "1"}}, "Burstable", 999),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed", -997),
        (
            {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
            "Burstable",
            750,
        ),
    ],
)
def test_quality_of_service(resources: dict[str, Any], quality: str, score: int) -> None:
    known = pod(containers=[{"name": "main", "image": "x", "resources": resources}])
    assert qos_class(known) == quality
    assert oom_score(known, known.spec.containers[0], 4 << 30) == score


def test_limits() -> None:
    container = made(
        resources={"requests": {"cpu": "250m"}, "limits": {"cpu": "1500m", "memory": "1Gi"}}
    )
    limits = limits_of(container)
    assert (limits.cpu_shares, limits.cpu_quota, limits.cpu_period) == (256, 150000, 100000)
    assert (limits.memory, limits.memory_swap) == (1 << 30, 1 << 30)
    bare = limits_of(made())
    assert (bare.cpu_shares, bare.cpu_quota, bare.memory) == (2, None, None)


SETTINGS = PodSettings(name="n1", cluster_dns=("10.96.0.10",))
MACHINE = "nameserver 192.168.1.1\nsearch home.lan\noptions timeout:2\n"


def test_resolvers() -> None:
    assert resolv_conf(pod(), SETTINGS, MACHINE) == (
        "search default.svc.cluster.local svc.cluster.local cluster.local home.lan\n"
        "nameserver 10.96.0.10\noptions ndots:5\n"
    )
    as_machine = "search home.lan\nnameserver 192.168.1.1\noptions timeout:2\n"
    assert resolv_conf(pod(dnsPolicy="Default"), SETTINGS, MACHINE) == as_machine
    assert resolv_conf(pod(hostNetwork=True), SETTINGS, MACHINE) == as_machine
    config = {
        "nameservers": ["1.1.1.1"],
        "searches": ["a.b"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
    }
    only = resolv_conf(pod(dnsPolicy="None", dnsConfig=config), SETTINGS, MACHINE)
    assert only == "search a.b\nnameserver 1.1.1.1\noptions ndots:2 edns0\n"
    both = resolv_conf(pod(dnsConfig=config), SETTINGS, MACHINE)
    assert "nameserver 10.96.0.10\nnameserver 1.1.1.1\noptions ndots:2 edns0\n" in both


def test_a_sandbox_carries_what_the_pod_asks_for() -> None:
    known = pod(
        shareProcessNamespace=True,
        hostAliases=[{"ip": "1.2.3.4", "hostnames": ["a", "b"]}],
        securityContext={"sysctls": [{"name": "net.core.somaxconn", "value": "9"}]},
        metadata={"annotations": {"kubernetes.io/egress-bandwidth": "10M"}},
    )
    settings = msgspec.structs.replace(SETTINGS, cgroup_parent="/kubepods")
    spec = sandbox_spec(known, settings, network="net", generation=0)
    assert (spec.owner, spec.explicit, spec.group, spec.share_pid) == ("kube", True, "u1", True)
    assert spec.hosts == (("1.2.3.4", "a b"),)
    assert spec.cgroup_parent == "/kubepods/besteffort/podu1"
    assert spec.network.sysctls == (("net.core.somaxconn", "9"),)
    assert spec.network.egress_bps == 10_000_000
    assert spec.network.attachments[0].network == "net"


def built(context: dict[str, Any], whole: dict[str, Any] | None = None, user: str = "") -> Any:
    known = pod(securityContext=whole or {})
    image = Image(id="i", config=ImageConfig(user=user))
    site = Site(
        sandbox="s",
        image=image,
        env={"A": "1"},
        mounts=(),
        resolv_conf="",
        log=Path("/l"),
        log_size=1,
        log_files=1,
        termination=Path("/t"),
        seccomp="default",
        memory=1 << 30,
    )
    origin = Origin("default", "web", "u1", "main")
    return container_spec(known, made(securityContext=context, args=["$(A)"]), origin, site)


def test_rights_of_containers() -> None:
    spec = built(
        {
            "runAsUser": 7,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
            "procMount": "Unmasked",
        },
        {"runAsGroup": 8, "fsGroup": 9, "supplementalGroups": [10]},
    )
    assert (spec.command.user, spec.command.groups) == ("7:8", ("10", "9"))
    assert spec.readonly_root and spec.no_new_privileges
    assert (spec.add_capabilities, spec.drop_capabilities) == (("NET_ADMIN",), ("ALL",))
    assert spec.masked_paths == () and spec.ipc_mode == "group"
    assert spec.command.cmd == ("1",) and spec.command.entrypoint is None
    assert built({}, {"runAsGroup": 8}, user="app").command.user == "app:8"
    assert built({}, user="app").command.user == ""
    assert built({"privileged": True, "allowPrivilegeEscalation": True}).privileged


@pytest.mark.parametrize(
    ("context", "user", "refused"),
    [
        ({"runAsUser": 0}, "", "runAsUser breaks non-root policy"),
        ({}, "app", "non-numeric user"),
        ({}, "0", "image will run as root"),
        ({}, "", "image will run as root"),
        ({}, "12:0", ""),
        ({"runAsUser": 5}, "", ""),
    ],
)
def test_non_root_is_checked(context: dict[str, Any], user: str, refused: str) -> None:
    whole = {"runAsNonRoot": True}
    if not refused:
        built(context, whole, user)
        return
    with pytest.raises(FailedPrecondition, match=refused):
        built(context, whole, user)
