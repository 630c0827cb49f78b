"""The default cluster roles and bindings (https://kubernetes.io/docs/reference/access-authn-authz/rbac/)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["documents"]

Document = dict[str, Any]
_GROUP = "rbac.authorization.k8s.io"
_READ = ("get", "list", "watch")
_WRITE = ("create", "delete", "deletecollection", "patch", "update")
_AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"


def _rule(groups: str, resources: str, verbs: Sequence[str], names: Sequence[str] = ()) -> Document:
    rule: Document = {
        "apiGroups": ["" if g == "core" else g for g in groups.split()],
        "resources": resources.split(),
        "verbs": list(verbs),
    }
    return {**rule, "resourceNames": list(names)} if names else rule


def _paths(*paths: str) -> Document:
    return {"nonResourceURLs": list(paths), "verbs": ["get"]}


_VIEWED = (
    _rule(
        "core",
        "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods "
        "replicationcontrollers replicationcontrollers/scale serviceaccounts services "
        "services/status",
        _READ,
    ),
    _rule(
        "core",
        "bindings events limitranges namespaces/status pods/log pods/status "
        "replicationcontrollers/status resourcequotas resourcequotas/status namespaces",
        _READ,
    ),
    _rule("discovery.k8s.io", "endpointslices", _READ),
    _rule(
        "apps",
        "controllerrevisions daemonsets daemonsets/status deployments deployments/scale "
        "deployments/status replicasets replicasets/scale replicasets/status statefulsets "
        "statefulsets/scale statefulsets/status",
        _READ,
    ),
    _rule("autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status", _READ),
    _rule("batch", "cronjobs cronjobs/status jobs jobs/status", _READ),
    _rule("policy", "poddisruptionbudgets poddisruptionbudgets/status", _READ),
    _rule("networking.k8s.io", "ingresses ingresses/status networkpolicies", _READ),
)
_METRICS = _rule("metrics.k8s.io", "pods nodes", _READ)
_EDITED = (
    _rule(
        "core",
        "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy",
        _READ,
    ),
    _rule("core", "serviceaccounts", ("impersonate",)),
    _rule("core", "pods pods/attach pods/exec pods/portforward pods/proxy", _WRITE),
    _rule("core", "pods/eviction", ("create",)),
    _rule(
        "core",
        "configmaps events persistentvolumeclaims replicationcontrollers "
        "replicationcontrollers/scale secrets serviceaccounts services services/proxy",
        _WRITE,
    ),
    _rule("core", "serviceaccounts/token", ("create",)),
    _rule(
        "apps",
        "daemonsets deployments deployments/rollback deployments/scale replicasets "
        "replicasets/scale statefulsets statefulsets/scale",
        _WRITE,
    ),
    _rule("autoscaling", "horizontalpodautoscalers", _WRITE),
    _rule("batch", "cronjobs jobs", _WRITE),
    _rule("policy", "poddisruptionbudgets", _WRITE),
    _rule("networking.k8s.io", "ingresses networkpolicies", _WRITE),
    _rule("coordination.k8s.io", "leases", (*_WRITE, *_READ)),
)
_ADMINISTERED = (
    _rule("authorization.k8s.io", "localsubjectaccessreviews", ("create",)),
    _rule(_GROUP, "rolebindings roles", (*_WRITE, *_READ)),
)
_EVENTS = _rule("core events.k8s.io", "events", ("create", "patch", "update"))
_REVIEWS = (
    _rule("authentication.k8s.io", "tokenreviews", ("create",)),
    _rule("authorization.k8s.io", "subjectaccessreviews", ("create",)),
)

# name: rules
_ROLES: dict[str, tuple[Document, ...]] = {
    "cluster-admin": (
        _rule("*", "*", ("*",)),
        {"nonResourceURLs": ["*"], "verbs": ["*"]},
    ),
    "admin": (*_ADMINISTERED, *_EDITED, *_VIEWED, _METRICS),
    "edit": (*_EDITED, *_VIEWED, _METRICS),
    "view": (*_VIEWED, _METRICS),
    "system:aggregate-to-admin": _ADMINISTERED,
    "system:aggregate-to-edit": _EDITED,
    "system:aggregate-to-view": _VIEWED,
    "system:aggregated-metrics-reader": (_METRICS,),
    "system:discovery": (
        _paths(
            "/api",
            "/api/*",
            "/apis",
            "/apis/*",
            "/healthz",
            "/livez",
            "/openapi",
            "/openapi/*",
            "/readyz",
            "/version",
            "/version/",
        ),
    ),
    "system:public-info-viewer": (
        _paths("/healthz", "/livez", "/readyz", "/version", "/version/"),
    ),
    "system:basic-user": (
        _rule(
            "authorization.k8s.io",
            "selfsubjectaccessreviews selfsubjectrulesreviews",
            ("create",),
        ),
        _rule("authentication.k8s.io", "selfsubjectreviews", ("create",)),
    ),
    "system:monitoring": (
        _paths(
            "/healthz",
            "/healthz/*",
            "/livez",
            "/livez/*",
            "/metrics",
            "/metrics/slis",
            "/readyz",
            "/readyz/*",
        ),
    ),
    "system:auth-delegator": _REVIEWS,
    "system:service-account-issuer-discovery": (
        _paths(
            "/.well-known/openid-configuration",
            "/.well-known/openid-configuration/",
            "/openid/v1/jwks",
            "/openid/v1/jwks/",
        ),
    ),
    "system:node": (
        *_REVIEWS,
        _rule("core", "services", _READ),
        _rule("core", "nodes", ("create", *_READ)),
        _rule("core", "nodes/status", ("patch", "update")),
        _rule("core", "nodes", ("patch", "update")),
        _EVENTS,
        _rule("core", "pods", _READ),
        _rule("core", "pods", ("create", "delete")),
        _rule("core", "pods/status", ("patch", "update")),
        _rule("core", "pods/eviction", ("create",)),
        _rule("core", "configmaps secrets", _READ),
        _rule("core", "persistentvolumeclaims persistentvolumes", ("get",)),
        _rule("core", "endpoints", ("get",)),
        _rule("discovery.k8s.io", "endpointslices", _READ),
        _rule("networking.k8s.io", "networkpolicies", _READ),
        _rule("core", "namespaces", _READ),
        _rule("certificates.k8s.io", "certificatesigningrequests", ("create", *_READ)),
        _rule("core", "persistentvolumeclaims/status", ("get", "patch", "update")),
        _rule("storage.k8s.io", "volumeattachments csidrivers", _READ),
        _rule("storage.k8s.io", "csinodes", (*_WRITE[:2], "get", "patch", "update")),
        _rule("core", "serviceaccounts/token", ("create",)),
        _rule("core", "serviceaccounts", ("get",)),
        _rule("coordination.k8s.io", "leases", ("create", "delete", "get", "patch", "update")),
        _rule("node.k8s.io", "runtimeclasses", _READ),
    ),
    "system:node-proxier": (
        _rule("core", "endpoints services", ("list", "watch")),
        _rule("core", "nodes", _READ),
        _EVENTS,
        _rule("discovery.k8s.io", "endpointslices", ("list", "watch")),
    ),
    "system:node-bootstrapper": (
        _rule("certificates.k8s.io", "certificatesigningrequests", ("create", *_READ)),
    ),
    "system:node-problem-detector": (
        _rule("core", "nodes", ("get",)),
        _rule("core", "nodes/status", ("patch",)),
        _EVENTS,
    ),
    "system:kubelet-api-admin": (
        _rule("core", "nodes", (*_READ, "proxy")),
        _rule("core", "nodes/log nodes/metrics nodes/proxy nodes/stats", ("*",)),
    ),
    "system:kube-dns": (_rule("core", "endpoints services", ("list", "watch")),),
    "system:coredns": (
        _rule("core", "endpoints services pods namespaces", ("list", "watch")),
        _rule("discovery.k8s.io", "endpointslices", ("list", "watch")),
    ),
    "system:kube-scheduler": (
        _EVENTS,
        _rule("coordination.k8s.io", "leases", ("create", "get", "list", "update", "watch")),
        _rule("core", "nodes", _READ),
        _rule("core", "pods", ("delete", *_READ)),
        _rule("core", "bindings pods/binding", ("create",)),
        _rule("core", "pods/status", ("patch", "update")),
        _rule("core", "replicationcontrollers services namespaces", _READ),
        _rule("apps", "replicasets statefulsets", _READ),
        _rule("policy", "poddisruptionbudgets", _READ),
        _rule("core", "persistentvolumeclaims persistentvolumes", (*_READ, "patch", "update")),
        *_REVIEWS,
        _rule("storage.k8s.io", "csinodes csidrivers csistoragecapacities storageclasses", _READ),
    ),
    "system:kube-controller-manager": (
        _EVENTS,
        _rule("coordination.k8s.io", "leases", ("create", "get", "list", "update", "watch")),
        _rule("core", "secrets serviceaccounts", ("create", "delete", "get", "update")),
        _rule("core", "namespaces configmaps", ("get",)),
        *_REVIEWS,
        _rule("*", "*", ("list", "watch")),
        _rule("core", "serviceaccounts/token", ("create",)),
    ),
    "system:persistent-volume-provisioner": (
        _rule("core", "persistentvolumes", ("create", "delete", *_READ)),
        _rule("core", "persistentvolumeclaims", (*_READ, "update")),
        _rule("storage.k8s.io", "storageclasses", _READ),
        _rule("core", "events", ("watch",)),
        _EVENTS,
    ),
    "system:volume-scheduler": (
        _rule("core", "persistentvolumes persistentvolumeclaims", (*_READ, "patch", "update")),
        _rule("storage.k8s.io", "storageclasses", _READ),
    ),
    "system:certificates.k8s.io:certificatesigningrequests:nodeclient": (
        _rule("certificates.k8s.io", "certificatesigningrequests/nodeclient", ("create",)),
    ),
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient": (
        _rule("certificates.k8s.io", "certificatesigningrequests/selfnodeclient", ("create",)),
    ),
    "system:certificates.k8s.io:kube-apiserver-client-approver": (
        _rule(
            "certificates.k8s.io", "signers", ("approve",), ("kubernetes.io/kube-apiserver-client",)
        ),
    ),
    "system:certificates.k8s.io:kubelet-serving-approver": (
        _rule("certificates.k8s.io", "signers", ("approve",), ("kubernetes.io/kubelet-serving",)),
    ),
    "system:certificates.k8s.io:legacy-unknown-approver": (
        _rule("certificates.k8s.io", "signers", ("approve",), ("kubernetes.io/legacy-unknown",)),
    ),
}

_ROLE_LABELS = {
    "admin": {},
    "edit": {f"{_AGGREGATE}admin": "true"},
    "view": {f"{_AGGREGATE}edit": "true"},
    "system:aggregate-to-admin": {f"{_AGGREGATE}admin": "true"},
    "system:aggregate-to-edit": {f"{_AGGREGATE}edit": "true"},
    "system:aggregate-to-view": {f"{_AGGREGATE}view": "true"},
    "system:aggregated-metrics-reader": {f"{_AGGREGATE}view": "true"},
}
_AGGREGATING = ("admin", "edit", "view")

# role: subjects (G group, U user, S namespace/service account)
_BINDINGS: dict[str, tuple[str, ...]] = {
    "cluster-admin": ("G system:masters",),
    "system:basic-user": ("G system:authenticated",),
    "system:discovery": ("G system:authenticated",),
    "system:public-info-viewer": ("G system:authenticated", "G system:unauthenticated"),
    "system:monitoring": ("G system:monitoring",),
    "system:service-account-issuer-discovery": ("G system:serviceaccounts",),
    "system:node": ("G system:nodes",),
    "system:node-proxier": ("U system:kube-proxy", "G system:nodes"),
    "system:kube-dns": ("S kube-system/kube-dns",),
    "system:coredns": ("S kube-system/coredns",),
    "system:kube-scheduler": ("U system:kube-scheduler",),
    "system:kube-controller-manager": ("U system:kube-controller-manager",),
    "system:volume-scheduler": ("U system:kube-scheduler",),
    "system:node-bootstrapper": ("G system:bootstrappers",),
    "system:certificates.k8s.io:certificatesigningrequests:nodeclient": ("G system:bootstrappers",),
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient": ("G system:nodes",),
}


def documents() -> Iterator[Document]:
    """All default roles and bindings."""
    for name, rules in _ROLES.items():
        yield _role(name, rules)
    for role, subjects in _BINDINGS.items():
        yield _binding(role, subjects)


def _metadata(name: str) -> Document:
    return {
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    }


def _role(name: str, rules: Sequence[Document]) -> Document:
    metadata = _metadata(name)
    metadata["labels"] |= _ROLE_LABELS.get(name, {})
    role: Document = {
        "apiVersion": f"{_GROUP}/v1",
        "kind": "ClusterRole",
        "metadata": metadata,
        "rules": list(rules),
    }
    if name in _AGGREGATING:
        selector = {"matchLabels": {f"{_AGGREGATE}{name}": "true"}}
        role["aggregationRule"] = {"clusterRoleSelectors": [selector]}
    return role


def _binding(role: str, subjects: Sequence[str]) -> Document:
    return {
        "apiVersion": f"{_GROUP}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": _metadata(role),
        "roleRef": {"apiGroup": _GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [_subject(subject) for subject in subjects],
    }


def _subject(text: str) -> Document:
    kind, _, name = text.partition(" ")
    if kind == "S":
        namespace, _, account = name.partition("/")
        return {"kind": "ServiceAccount", "namespace": namespace, "name": account}
    return {"apiGroup": _GROUP, "kind": {"G": "Group", "U": "User"}[kind], "name": name}
