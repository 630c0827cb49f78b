"""Validation: what is refused, where, and in which words."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from sagong.model.objects import GroupVersionKind
from sagong_kube.schema import decoding, validation
from sagong_kube.schema.defaults import apply_defaults

POD = GroupVersionKind("", "v1", "Pod")
SERVICE = GroupVersionKind("", "v1", "Service")
DEPLOYMENT = GroupVersionKind("apps", "v1", "Deployment")


def made(kind: GroupVersionKind, document: dict[str, Any], namespace: str = "default") -> Any:
    found = decoding.decode(json.dumps(document).encode(), kind).document
    apply_defaults(found, kind)
    found["metadata"].setdefault("name", "a")
    if namespace:
        found["metadata"]["namespace"] = namespace
    return found


def wrong(kind: GroupVersionKind, document: dict[str, Any], **options: Any) -> list[str]:
    return [str(error) for error in validation.validate(made(kind, document), kind, **options)]


def pod(**spec: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "a", "image": "i"}], **spec}}


def container(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "a", "image": "i", **fields}]}}


def test_a_right_pod_passes() -> None:
    assert wrong(POD, pod()) == []


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (pod(containers=[]), "spec.containers: Required value"),
        (container(image=""), "spec.containers[0].image: Required value"),
        (
            pod(restartPolicy="x"),
            'spec.restartPolicy: Unsupported value: "x": supported values: "Always", '
            '"OnFailure", "Never"',
        ),
        (
            container(ports=[{"containerPort": 99999}]),
            "spec.containers[0].ports[0].containerPort: Invalid value: 99999: must be between 1 "
            "and 65535, inclusive",
        ),
        (
            container(volumeMounts=[{"name": "v", "mountPath": "/v"}]),
            'spec.containers[0].volumeMounts[0].name: Not found: "v"',
        ),
        (
            container(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
            'spec.containers[0].resources.requests: Invalid value: "2": must be less than or '
            "equal to cpu limit of 1",
        ),
        (
            container(livenessProbe={}),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            pod(tolerations=[{"value": "x"}]),
            'spec.tolerations[0].operator: Invalid value: "": operator must be Exists when `key` '
            'is empty, which means "match all values and all keys"',
        ),
        (
            pod(volumes=[{"name": "v", "secret": {"secretName": ""}}]),
            "spec.volumes[0].secret.secretName: Required value",
        ),
        (
            pod(volumes=[{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]),
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (pod(ephemeralContainers=[]), ""),
    ],
)
def test_wrong_pods_are_refused(document: dict[str, Any], said: str) -> None:
    found = wrong(POD, document)
    assert found == ([said] if said else [])


def test_names_are_checked_everywhere() -> None:
    (said,) = wrong(POD, {"metadata": {"name": "A"}, **pod()})
    assert said.startswith('metadata.name: Invalid value: "A": a lowercase RFC 1123 subdomain')
    found = wrong(POD, {"metadata": {"labels": {"a": "b c"}}, **pod()})
    assert found[0].startswith('metadata.labels: Invalid value: "b c": a valid label must be')
    document = made(POD, pod())
    del document["metadata"]["name"]
    (error,) = validation.validate(document, POD)
    assert error.path == "metadata.name"
    assert error.reason == "FieldValueRequired"
    assert error.message == "Required value: name or generateName is required"


def test_scope_is_checked() -> None:
    node = GroupVersionKind("", "v1", "Node")
    document = made(node, {}, "x")
    (error,) = validation.validate(document, node)
    assert str(error) == "metadata.namespace: Forbidden: not allowed on this type"


def test_a_pods_spec_is_fixed_but_for_its_images() -> None:
    old = made(POD, pod())
    new = copy.deepcopy(old)
    new["spec"]["containers"][0]["image"] = "other"
    new["spec"]["tolerations"] = [{"key": "a", "operator": "Exists"}]
    assert validation.validate(new, POD, old) == []
    new["spec"]["containers"][0]["command"] = ["x"]
    (error,) = validation.validate(new, POD, old)
    assert error.path == "spec"
    assert (
        "pod updates may not change fields other than `spec.containers[*].image`" in error.message
    )
    new["spec"]["containers"].append({"name": "b", "image": "i"})
    paths = [each.path for each in validation.validate(new, POD, old)]
    assert "spec.containers" in paths


def test_metadata_may_not_change_its_identity() -> None:
    old = made(POD, pod())
    old["metadata"]["uid"] = "1"
    new = copy.deepcopy(old)
    new["metadata"]["uid"] = "2"
    (error,) = validation.validate(new, POD, old)
    assert str(error) == 'metadata.uid: Invalid value: "2": field is immutable'


def test_ended_containers_stay_ended() -> None:
    old = made(POD, pod(restartPolicy="Never"))
    old["status"] = {"containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 1}}}]}
    new = copy.deepcopy(old)
    new["status"]["containerStatuses"][0]["state"] = {"running": {}}
    (error,) = validation.validate(new, POD, old, "status")
    assert error.message == "Forbidden: may not be transitioned to non-terminated state"


def deployment(selector: dict[str, str], labels: dict[str, str]) -> dict[str, Any]:
    template = {"metadata": {"labels": labels}, **pod()}
    return {"spec": {"selector": {"matchLabels": selector}, "template": template}}


def test_a_deployment_selects_its_template() -> None:
    assert wrong(DEPLOYMENT, deployment({"a": "b"}, {"a": "b", "c": "d"})) == []
    assert wrong(DEPLOYMENT, deployment({"a": "b"}, {"a": "x"})) == [
        'spec.template.metadata.labels: Invalid value: map[string]string{"a":"x"}: `selector` '
        "does not match template `labels`"
    ]


def test_a_deployments_selector_stays() -> None:
    old = made(DEPLOYMENT, deployment({"a": "b"}, {"a": "b"}))
    new = made(DEPLOYMENT, deployment({"c": "d"}, {"c": "d"}))
    (error,) = validation.validate(new, DEPLOYMENT, old)
    assert str(error) == (
        'spec.selector: Invalid value: v1.LabelSelector{MatchLabels:map[string]string{"c":"d"}, '
        "MatchExpressions:[]v1.LabelSelectorRequirement(nil)}: field is immutable"
    )


def test_services_are_checked() -> None:
    assert wrong(SERVICE, {"spec": {"ports": [{"port": 80}]}}) == []
    assert wrong(SERVICE, {"spec": {}}) == ["spec.ports: Required value"]
    assert wrong(SERVICE, {"spec": {"ports": [{"port": 80}, {"port": 81}]}}) == [
        "spec.ports[0].name: Required value",
        "spec.ports[1].name: Required value",
    ]
    assert wrong(SERVICE, {"spec": {"type": "x", "ports": [{"port": 80}]}}) == [
        'spec.type: Unsupported value: "x": supported values: "ClusterIP", "ExternalName", '
        '"LoadBalancer", "NodePort"'
    ]


def test_a_services_address_stays() -> None:
    old = made(SERVICE, {"spec": {"ports": [{"port": 80}], "clusterIP": "10.0.0.1"}})
    new = copy.deepcopy(old)
    new["spec"]["clusterIP"] = "10.0.0.2"
    (error,) = validation.validate(new, SERVICE, old)
    assert str(error) == ('spec.clusterIPs[0]: Invalid value: "10.0.0.2": may not change once set')


CASES: list[tuple[GroupVersionKind, dict[str, Any], str]] = [
    (GroupVersionKind("", "v1", "ConfigMap"), {"data": {"a b": "x"}}, "data[a b]: Invalid value"),
    (
        GroupVersionKind("", "v1", "ConfigMap"),
        {"data": {"a": "x" * 1048577}},
        "Too long: may not be more than 1048576 bytes",
    ),
    (
        GroupVersionKind("", "v1", "Secret"),
        {"type": "kubernetes.io/tls"},
        "data[tls.crt]: Required value",
    ),
    (
        GroupVersionKind("batch", "v1", "CronJob"),
        {"spec": {"schedule": "* * * *"}},
        'spec.schedule: Invalid value: "* * * *": expected exactly 5 fields, found 4: [* * * *]',
    ),
    (
        GroupVersionKind("batch", "v1", "CronJob"),
        {"spec": {"schedule": "61 * * * *"}},
        "end of range (61) above maximum (59): 61",
    ),
    (
        GroupVersionKind("rbac.authorization.k8s.io", "v1", "Role"),
        {"rules": [{"verbs": ["get"]}]},
        "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
    ),
    (
        GroupVersionKind("rbac.authorization.k8s.io", "v1", "RoleBinding"),
        {"roleRef": {"kind": "Role", "name": "x"}, "subjects": [{"kind": "X", "name": "y"}]},
        'subjects[0].kind: Unsupported value: "X"',
    ),
    (
        GroupVersionKind("networking.k8s.io", "v1", "NetworkPolicy"),
        {"spec": {"ingress": [{"from": [{}]}]}},
        "spec.ingress[0].from[0]: Required value: must specify a peer",
    ),
    (
        GroupVersionKind("networking.k8s.io", "v1", "Ingress"),
        {"spec": {}},
        "either `defaultBackend` or `rules` must be specified",
    ),
    (
        GroupVersionKind("autoscaling", "v2", "HorizontalPodAutoscaler"),
        {"spec": {"maxReplicas": 0, "scaleTargetRef": {"kind": "Deployment", "name": "a"}}},
        "spec.maxReplicas: Invalid value: 0: must be greater than 0",
    ),
    (
        GroupVersionKind("policy", "v1", "PodDisruptionBudget"),
        {"spec": {"minAvailable": 1, "maxUnavailable": 1}},
        "minAvailable and maxUnavailable cannot be both set",
    ),
    (
        GroupVersionKind("", "v1", "PersistentVolumeClaim"),
        {"spec": {"resources": {"requests": {"storage": "1Gi"}}}},
        "spec.accessModes: Required value: at least 1 access mode is required",
    ),
    (
        GroupVersionKind("coordination.k8s.io", "v1", "Lease"),
        {"spec": {"leaseDurationSeconds": 0}},
        "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
    ),
    (
        GroupVersionKind("apps", "v1", "StatefulSet"),
        {"spec": {"template": pod()}},
        "spec.selector: Required value",
    ),
    (
        GroupVersionKind("", "v1", "LimitRange"),
        {"spec": {"limits": [{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]}},
        "min value 2 is greater than max value 1",
    ),
]


@pytest.mark.parametrize(("kind", "document", "said"), CASES)
def test_other_kinds_are_checked(
    kind: GroupVersionKind, document: dict[str, Any], said: str
) -> None:
    assert any(said in each for each in wrong(kind, document)), wrong(kind, document)


def test_a_stateful_set_mounts_what_its_claim_templates_give() -> None:
    kind = GroupVersionKind("apps", "v1", "StatefulSet")

    def found(mounted: str) -> list[str]:
        template = container(volumeMounts=[{"name": mounted, "mountPath": "/d"}])
        template["metadata"] = {"labels": {"a": "b"}}
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
        claims = [{"metadata": {"name": "data"}, "spec": claim}]
        spec = {"serviceName": "a", "selector": {"matchLabels": {"a": "b"}}, "template": template}
        return wrong(kind, {"spec": {**spec, "volumeClaimTemplates": claims}})

    assert found("data") == []
    where = "spec.template.spec.containers[0].volumeMounts[0].name"
    assert found("other") == [f'{where}: Not found: "other"']


def test_an_immutable_config_map_stays() -> None:
    kind = GroupVersionKind("", "v1", "ConfigMap")
    old = made(kind, {"immutable": True, "data": {"a": "1"}})
    new = made(kind, {"immutable": True, "data": {"a": "2"}})
    (error,) = validation.validate(new, kind, old)
    assert str(error) == "data: Forbidden: field is immutable when `immutable` is set"
