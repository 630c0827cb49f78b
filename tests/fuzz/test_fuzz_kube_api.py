"""Whatever is asked of the Kubernetes API, it is answered or refused: no 500, and no silence."""

from __future__ import annotations

import asyncio
import json
import string
from typing import Any
from urllib.parse import quote

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sagong_kube.schema.resources import RESOURCES, ResourceSpec
from tests.conformance.fake_state import FakeState
from tests.unit.kube.kube_lab import Lab, Reply, lab

# These wait for something to happen; what they are asked with is read by others' readers.
_WAITING = ("attach", "exec", "portforward", "proxy", "log")
_METHODS = ("GET", "GET", "POST", "POST", "PUT", "PUT", "PATCH", "PATCH", "PATCH", "DELETE")
_MEDIA = (
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
_ODD = (
    "",
    "0",
    "-1",
    "true",
    "²",
    "1e999",
    "9" * 30,
    "a\r\nb",
    "\x00",
    "中",
    "a=b",
    "!a",
    "x" * 300,
)
_WORDS = st.one_of(st.sampled_from(_ODD), st.text(string.printable, max_size=12))
_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), _WORDS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(_WORDS, inner, max_size=3)
    ),
    max_leaves=6,
)
_QUERIES = (
    "labelSelector", "fieldSelector", "limit", "continue", "resourceVersion", "timeoutSeconds",
    "resourceVersionMatch", "fieldManager", "fieldValidation", "force", "dryRun", "pretty",
    "propagationPolicy", "gracePeriodSeconds", "orphanDependents", "includeObject",
)  # fmt: skip
_METADATA = (
    "name", "generateName", "namespace", "labels", "annotations", "finalizers", "ownerReferences",
    "resourceVersion", "uid", "creationTimestamp", "deletionTimestamp", "managedFields",
)  # fmt: skip
_ANNOTATIONS = (
    "kubectl.kubernetes.io/last-applied-configuration",
    "autoscaling.alpha.kubernetes.io/metrics",
    "autoscaling.alpha.kubernetes.io/behavior",
    "deployment.kubernetes.io/revision",
    "scheduler.alpha.kubernetes.io/node-selector",
)
_FIELDS = (
    "spec", "status", "data", "stringData", "type", "subsets", "rules", "roleRef", "subjects",
    "template", "provisioner", "secrets", "endpoints", "ports", "addressType", "value", "webhooks",
    "deleteOptions", "target", "aggregationRule", "involvedObject", "regarding", "immutable",
)  # fmt: skip
_OF_SPEC = (
    "containers", "initContainers", "ephemeralContainers", "volumes", "replicas", "selector",
    "template", "ports", "type", "clusterIP", "externalName", "nodeName", "tolerations", "affinity",
    "topologySpreadConstraints", "resources", "accessModes", "storageClassName", "hard", "scopes",
    "limits", "rules", "ingress", "egress", "podSelector", "schedule", "jobTemplate", "completions",
    "minAvailable", "maxUnavailable", "scaleTargetRef", "metrics", "behavior", "strategy",
    "updateStrategy", "volumeClaimTemplates", "tls", "capacity", "claimRef", "versions", "names",
    "audiences", "expirationSeconds", "boundObjectRef", "resourceAttributes", "taints", "podCIDRs",
    "securityContext", "finalizers", "request", "usages", "signerName", "extra", "groups", "user",
)  # fmt: skip
_OF_CONTAINER = (
    "name", "image", "ports", "env", "envFrom", "resources", "volumeMounts", "livenessProbe",
    "lifecycle", "securityContext", "command", "args", "workingDir", "restartPolicy",
)  # fmt: skip


def _some(names: tuple[str, ...], values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(st.sampled_from(names), values, max_size=3)


_CONTAINERS = st.lists(
    st.builds(lambda more: {"name": "c", "image": "busybox"} | more, _some(_OF_CONTAINER, _VALUES)),
    max_size=2,
)
_SPECS = st.one_of(
    _VALUES,
    _some(_OF_SPEC, _VALUES),
    st.builds(
        lambda containers, more: {"containers": containers} | more,
        _CONTAINERS,
        _some(_OF_SPEC, _VALUES),
    ),
    st.builds(
        lambda spec, more: (
            {
                "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": spec},
            }
            | more
        ),
        _some(_OF_SPEC, _VALUES),
        _some(_OF_SPEC, _VALUES),
    ),
)
_METADATAS = st.one_of(
    _VALUES,
    st.builds(lambda more: {"name": "box"} | more, _some(_METADATA, _VALUES)),
    st.builds(
        lambda annotations: {"name": "box", "annotations": annotations},
        _some(_ANNOTATIONS, st.one_of(st.builds(json.dumps, _VALUES), _WORDS)),
    ),
)
_OPERATIONS = st.lists(
    st.fixed_dictionaries(
        {"op": st.sampled_from(("add", "remove", "replace", "move", "copy", "test", "", "x"))},
        optional={
            "path": st.sampled_from(
                ("", "/", "/spec", "/metadata", "/metadata/labels/a", "/spec/containers/0", "/a/-")
            ),
            "from": st.sampled_from(("", "/spec", "/metadata/name", "/spec/containers/²")),
            "value": _VALUES,
        },
    ),
    max_size=3,
)
_DOCUMENTS = st.builds(
    lambda metadata, spec, more: {"metadata": metadata, "spec": spec} | more,
    _METADATAS,
    _SPECS,
    _some(_FIELDS, _VALUES),
)
_NAMES = st.sampled_from(["box", "box", "nobody", "default", "", "%00", "..", "a" * 300, "²"])


def _path(resource: ResourceSpec, namespace: str, name: str, part: str) -> str:
    at = resource.kind.api_version
    root = f"/apis/{at}" if resource.kind.group else f"/api/{at}"
    within = f"/namespaces/{namespace}" if resource.namespaced else ""
    below = f"/{name}" if name else ""
    return f"{root}{within}/{resource.plural}{below}{f'/{part}' if part else ''}"


def _body(document: Any, resource: ResourceSpec) -> bytes:
    if isinstance(document, bytes):
        return document
    if isinstance(document, dict):
        kind = resource.kind
        document = {"apiVersion": kind.api_version, "kind": kind.kind} | document
    return json.dumps(document).encode("utf-8", "surrogatepass")


async def _ask(at: Lab, method: str, path: str, body: bytes | None, media: str) -> Reply:
    async with asyncio.timeout(60):
        return await at.ask(method, path, body, Content_Type=media)


def _hold(runner: asyncio.Runner, at: Lab) -> None:
    @settings(
        max_examples=1500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(
        st.sampled_from(_TARGETS),
        st.sampled_from(_METHODS),
        _NAMES,
        st.sampled_from(["default", "default", "nowhere", "%00", "²"]),
        _some(_QUERIES, _WORDS),
        st.one_of(_DOCUMENTS, _DOCUMENTS, _OPERATIONS, _VALUES, st.binary(max_size=60)),
        st.sampled_from(_MEDIA),
    )
    def hold(
        target: tuple[ResourceSpec, str],
        method: str,
        name: str,
        namespace: str,
        query: dict[str, str],
        document: Any,
        media: str,
    ) -> None:
        resource, part = target
        asked = "&".join(f"{key}={quote(value, safe='')}" for key, value in query.items())
        name = "" if method == "POST" and not part else name
        path = f"{_path(resource, quote(namespace, safe='%'), quote(name, safe='%'), part)}?{asked}"
        body = None if method == "GET" else _body(document, resource)
        reply = runner.run(_ask(at, method, path, body, media))
        assert reply.status < 600 and reply.status != 500, (method, path, media, body, reply.body)

    hold()


_POD = {"containers": [{"name": "c", "image": "busybox"}]}
_TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": _POD}
_SET = {"selector": {"matchLabels": {"a": "b"}}, "template": _TEMPLATE}
_TARGET = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "box"}
_CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
_RULES = [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]
_ROLE = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "box"}
# One of each kind that has much to say, so that what comes has something to change.
_PRESENT: dict[str, dict[str, Any]] = {
    "configmaps": {"data": {"a": "1"}},
    "secrets": {"data": {"a": "eA=="}},
    "pods": {"spec": _POD},
    "services": {"spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}},
    "deployments": {"spec": _SET},
    "daemonsets": {"spec": _SET},
    "replicasets": {"spec": _SET},
    "statefulsets": {"spec": {**_SET, "serviceName": "box"}},
    "jobs": {"spec": {"template": {"spec": {**_POD, "restartPolicy": "Never"}}}},
    "horizontalpodautoscalers": {"spec": {"maxReplicas": 2, "scaleTargetRef": _TARGET}},
    "persistentvolumeclaims": {"spec": _CLAIM},
    "resourcequotas": {"spec": {"hard": {"pods": "50"}}},
    "poddisruptionbudgets": {"spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}},
    "networkpolicies": {"spec": {"podSelector": {}}},
    "clusterroles": {"rules": _RULES},
    "rolebindings": {"roleRef": _ROLE},
    "storageclasses": {"provisioner": "x"},
    "nodes": {"spec": {"podCIDR": "10.0.0.0/24"}},
}


_TARGETS = [
    (resource, part)
    for resource in RESOURCES
    for part in ("", "", *(s.name for s in resource.subresources if s.name not in _WAITING))
    for _ in range(4 if resource.plural in _PRESENT else 1)
]


async def _filled(at: Lab) -> None:
    for resource in RESOURCES:
        if (more := _PRESENT.get(resource.plural)) and not resource.virtual:
            body = {"metadata": {"name": "box"}} | more
            made = await at.ask("POST", _path(resource, "default", "", ""), body)
            assert made.status in (201, 409), (resource.plural, made.body)


def test_no_request_breaks_the_api() -> None:
    with asyncio.Runner() as runner:
        opened = lab(FakeState())
        at = runner.run(opened.__aenter__())
        try:
            runner.run(_filled(at))
            _hold(runner, at)
        finally:
            runner.run(opened.__aexit__(None, None, None))
