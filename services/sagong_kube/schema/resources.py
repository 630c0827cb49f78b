"""The table of served resources, baseline 1.32: names, scope, verbs, subresources, storage."""

from __future__ import annotations

import functools
from typing import Final

import msgspec

from sagong.model.objects import GroupVersionKind

__all__ = ["RESOURCES", "ResourceSpec", "SubresourceSpec", "find", "of_kind"]

ALL_VERBS: Final = (
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
)
_NO_COLLECTION: Final = tuple(verb for verb in ALL_VERBS if verb != "deletecollection")
_PARTIAL: Final = ("get", "patch", "update")
_CONNECT: Final = ("create", "delete", "get", "patch", "update")
_NAMED: Final = ("metadata.name", "metadata.namespace")


class SubresourceSpec(msgspec.Struct, frozen=True):
    """A subresource: the kind that it takes and gives, and its verbs."""

    name: str
    kind: GroupVersionKind
    verbs: tuple[str, ...]


class ResourceSpec(msgspec.Struct, frozen=True):
    """A resource in one version.

    `storage` names where objects are kept (`core/pods`), `stored` the version that they are kept
    in; `virtual` ones are answered, never kept. `fields`: what field selectors may name.
    `generation`: metadata.generation counts changes of all but metadata and status.
    """

    kind: GroupVersionKind
    plural: str
    singular: str
    namespaced: bool
    verbs: tuple[str, ...] = ALL_VERBS
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[SubresourceSpec, ...] = ()
    storage: str = ""
    stored: GroupVersionKind = GroupVersionKind("", "", "")
    virtual: bool = False
    fields: tuple[str, ...] = _NAMED
    generation: bool = False

    @property
    def list_kind(self) -> str:
        """The kind of its lists."""
        return f"{self.kind.kind}List"

    @property
    def prefix(self) -> str:
        """The store's prefix of its objects."""
        return f"/registry/{self.storage}/"

    def subresource(self, name: str) -> SubresourceSpec | None:
        """One subresource by its name."""
        return next((each for each in self.subresources if each.name == name), None)


# A line a resource: plural Kind scope (N, C) and marks: short names by `~`, categories by `@`,
# subresources by `/` (with a kind of their own `=group/version.Kind` and verbs by `:` when they
# aren't get, patch, update), `verbs:`, `virtual`, `gen` for counted generations.
_SCALE = "/scale=autoscaling/v1.Scale"
_TABLE: Final = {
    "v1": f"""
bindings Binding N verbs:create virtual
componentstatuses ComponentStatus C ~cs verbs:get,list virtual
configmaps ConfigMap N ~cm
endpoints Endpoints N ~ep singular:endpoints
events Event N ~ev
limitranges LimitRange N ~limits
namespaces Namespace C ~ns verbs:some /finalize:update /status
nodes Node C ~no /proxy=v1.NodeProxyOptions:connect /status
persistentvolumeclaims PersistentVolumeClaim N ~pvc /status
persistentvolumes PersistentVolume C ~pv /status
pods Pod N ~po @all /attach=v1.PodAttachOptions:stream /binding=v1.Binding:create \
/ephemeralcontainers /eviction=policy/v1.Eviction:create /exec=v1.PodExecOptions:stream /log:get \
/portforward=v1.PodPortForwardOptions:stream /proxy=v1.PodProxyOptions:connect /resize /status
podtemplates PodTemplate N
replicationcontrollers ReplicationController N ~rc @all gen {_SCALE} /status
resourcequotas ResourceQuota N ~quota /status
secrets Secret N
serviceaccounts ServiceAccount N ~sa /token=authentication.k8s.io/v1.TokenRequest:create
services Service N ~svc @all /proxy=v1.ServiceProxyOptions:connect /status
""",
    "apiregistration.k8s.io/v1": """
apiservices APIService C @api-extensions /status
""",
    "apps/v1": f"""
controllerrevisions ControllerRevision N
daemonsets DaemonSet N ~ds @all gen /status
deployments Deployment N ~deploy @all gen {_SCALE} /status
replicasets ReplicaSet N ~rs @all gen {_SCALE} /status
statefulsets StatefulSet N ~sts @all gen {_SCALE} /status
""",
    "events.k8s.io/v1": """
events Event N ~ev
""",
    "authentication.k8s.io/v1": """
selfsubjectreviews SelfSubjectReview C verbs:create virtual
tokenreviews TokenReview C verbs:create virtual
""",
    "authorization.k8s.io/v1": """
localsubjectaccessreviews LocalSubjectAccessReview N verbs:create virtual
selfsubjectaccessreviews SelfSubjectAccessReview C verbs:create virtual
selfsubjectrulesreviews SelfSubjectRulesReview C verbs:create virtual
subjectaccessreviews SubjectAccessReview C verbs:create virtual
""",
    "autoscaling/v2": """
horizontalpodautoscalers HorizontalPodAutoscaler N ~hpa @all /status
""",
    "autoscaling/v1": """
horizontalpodautoscalers HorizontalPodAutoscaler N ~hpa @all /status
""",
    "batch/v1": """
cronjobs CronJob N ~cj @all gen /status
jobs Job N @all gen /status
""",
    "certificates.k8s.io/v1": """
certificatesigningrequests CertificateSigningRequest C ~csr /approval /status
""",
    "networking.k8s.io/v1": """
ingressclasses IngressClass C gen
ingresses Ingress N ~ing gen /status
networkpolicies NetworkPolicy N ~netpol gen
""",
    "policy/v1": """
poddisruptionbudgets PodDisruptionBudget N ~pdb gen /status
""",
    "rbac.authorization.k8s.io/v1": """
clusterrolebindings ClusterRoleBinding C
clusterroles ClusterRole C
rolebindings RoleBinding N
roles Role N
""",
    "storage.k8s.io/v1": """
csidrivers CSIDriver C gen
csinodes CSINode C
csistoragecapacities CSIStorageCapacity N
storageclasses StorageClass C ~sc
volumeattachments VolumeAttachment C /status
""",
    "admissionregistration.k8s.io/v1": """
mutatingwebhookconfigurations MutatingWebhookConfiguration C @api-extensions gen
validatingadmissionpolicies ValidatingAdmissionPolicy C @api-extensions gen /status
validatingadmissionpolicybindings ValidatingAdmissionPolicyBinding C @api-extensions gen
validatingwebhookconfigurations ValidatingWebhookConfiguration C @api-extensions gen
""",
    "apiextensions.k8s.io/v1": """
customresourcedefinitions CustomResourceDefinition C ~crd ~crds @api-extensions gen /status
""",
    "scheduling.k8s.io/v1": """
priorityclasses PriorityClass C ~pc gen
""",
    "coordination.k8s.io/v1": """
leases Lease N
""",
    "node.k8s.io/v1": """
runtimeclasses RuntimeClass C
""",
    "discovery.k8s.io/v1": """
endpointslices EndpointSlice N gen
""",
    "flowcontrol.apiserver.k8s.io/v1": """
flowschemas FlowSchema C gen /status
prioritylevelconfigurations PriorityLevelConfiguration C gen /status
""",
    "metrics.k8s.io/v1beta1": """
nodes NodeMetrics C singular: verbs:get,list virtual
pods PodMetrics N singular: verbs:get,list virtual
""",
}

# What field selectors may name beside name and namespace; upstream's table of each kind.
_EVENT_FIELDS = (
    *(f"involvedObject.{name}" for name in ["kind", "namespace", "name", "uid", "apiVersion"]),
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
)
_FIELDS: Final = {
    "core/pods": (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    ),
    "core/nodes": ("spec.unschedulable",),
    "core/namespaces": ("status.phase",),
    "core/secrets": ("type",),
    "core/services": ("spec.clusterIP", "spec.type"),
    "core/replicationcontrollers": ("status.replicas",),
    "core/events": _EVENT_FIELDS,
    "batch/jobs": ("status.successful",),
    "certificates.k8s.io/certificatesigningrequests": ("spec.signerName",),
}
# Resources that several versions or groups share: where, and in which version they are kept.
_STORED: Final = {
    ("events.k8s.io", "events"): ("core/events", GroupVersionKind("", "v1", "Event")),
    ("autoscaling", "horizontalpodautoscalers"): (
        "autoscaling/horizontalpodautoscalers",
        GroupVersionKind("autoscaling", "v2", "HorizontalPodAutoscaler"),
    ),
}


def _verbs(said: str) -> tuple[str, ...]:
    special = {"some": _NO_COLLECTION, "connect": _CONNECT, "stream": ("create", "get")}
    return special.get(said) or tuple(said.split(","))


def _subresource(word: str, owner: GroupVersionKind) -> SubresourceSpec:
    rest, _, verbs = word[1:].partition(":")
    name, _, kind = rest.partition("=")
    if not kind:
        return SubresourceSpec(name, owner, _verbs(verbs) if verbs else _PARTIAL)
    at, _, title = kind.rpartition(".")
    group, _, version = at.rpartition("/")
    found = GroupVersionKind(group, version, title)
    return SubresourceSpec(name, found, _verbs(verbs) if verbs else _PARTIAL)


def _option(words: list[str], prefix: str) -> str | None:
    return next((w[len(prefix) :] for w in words if w.startswith(prefix)), None)


def _resource(api_version: str, line: str) -> ResourceSpec:
    plural, title, scope, *words = line.split()
    group, _, version = api_version.rpartition("/")
    kind = GroupVersionKind(group, version, title)
    verbs = _option(words, "verbs:")
    singular = _option(words, "singular:")
    virtual = "virtual" in words
    own = (f"{group or 'core'}/{plural}", kind)
    storage, stored = ("", kind) if virtual else _STORED.get((group, plural), own)
    return ResourceSpec(
        kind=kind,
        plural=plural,
        singular=title.lower() if singular is None else singular,
        namespaced=scope == "N",
        verbs=_verbs(verbs) if verbs else ALL_VERBS,
        short_names=tuple(word[1:] for word in words if word[0] == "~"),
        categories=tuple(word[1:] for word in words if word[0] == "@"),
        subresources=tuple(_subresource(word, kind) for word in words if word[0] == "/"),
        storage=storage,
        stored=stored,
        virtual=virtual,
        fields=_fields(storage, namespaced=scope == "N"),
        generation="gen" in words,
    )


def _fields(storage: str, *, namespaced: bool) -> tuple[str, ...]:
    named = _NAMED if namespaced else _NAMED[:1]
    return named + _FIELDS.get(storage, ())


RESOURCES: Final[tuple[ResourceSpec, ...]] = tuple(
    _resource(at, line) for at, text in _TABLE.items() for line in text.strip().splitlines()
)


@functools.cache
def _by_path() -> dict[tuple[str, str, str], ResourceSpec]:
    return {(r.kind.group, r.kind.version, r.plural): r for r in RESOURCES}


@functools.cache
def _by_kind() -> dict[GroupVersionKind, ResourceSpec]:
    return {r.kind: r for r in reversed(RESOURCES)}


def find(group: str, version: str, plural: str) -> ResourceSpec | None:
    """The resource at a path."""
    return _by_path().get((group, version, plural))


def of_kind(kind: GroupVersionKind) -> ResourceSpec | None:
    """The resource whose objects are of a kind."""
    return _by_kind().get(kind)
