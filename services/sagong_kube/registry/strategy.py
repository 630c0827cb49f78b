"""What the server itself sets in objects of each kind, and which parts of an update it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sagong.model.numbers import natural
from sagong_kube.registry.actor import Actor
from sagong_kube.registry.document import Document
from sagong_kube.registry.resource import Resource

__all__ = [
    "CREATE_ON_UPDATE",
    "ORPHANS_BY_DEFAULT",
    "RETURNS_DELETED",
    "count_generation",
    "has_generation",
    "merge_subresource",
    "prepare_create",
    "prepare_update",
]

# Storages whose objects count the generations of their spec.
_GENERATION = frozenset(
    (
        "apps/daemonsets",
        "apps/deployments",
        "apps/replicasets",
        "apps/statefulsets",
        "batch/cronjobs",
        "batch/jobs",
        "core/replicationcontrollers",
        "discovery.k8s.io/endpointslices",
        "networking.k8s.io/ingresses",
        "networking.k8s.io/ingressclasses",
        "networking.k8s.io/networkpolicies",
        "policy/poddisruptionbudgets",
        "storage.k8s.io/csidrivers",
        "apiextensions.k8s.io/customresourcedefinitions",
        "flowcontrol.apiserver.k8s.io/flowschemas",
        "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations",
        "admissionregistration.k8s.io/mutatingwebhookconfigurations",
        "admissionregistration.k8s.io/validatingwebhookconfigurations",
        "admissionregistration.k8s.io/validatingadmissionpolicies",
        "admissionregistration.k8s.io/validatingadmissionpolicybindings",
    )
)
# Kinds whose status endpoint also takes labels, annotations and finalizers.
_OPEN_METADATA = ("core/pods", "core/nodes", "core/namespaces", "core/services")
_SPECLESS = {"metadata", "status", "apiVersion", "kind"}

CREATE_ON_UPDATE = frozenset(
    (
        "core/events",
        "core/endpoints",
        "core/services",
        "core/limitranges",
        "coordination.k8s.io/leases",
        "rbac.authorization.k8s.io/roles",
        "rbac.authorization.k8s.io/rolebindings",
        "rbac.authorization.k8s.io/clusterroles",
        "rbac.authorization.k8s.io/clusterrolebindings",
    )
)
ORPHANS_BY_DEFAULT = frozenset(("core/replicationcontrollers", "batch/jobs"))
RETURNS_DELETED = frozenset(
    (
        "core/pods",
        "core/persistentvolumeclaims",
        "core/persistentvolumes",
        "core/podtemplates",
        "core/resourcequotas",
        "core/serviceaccounts",
        "core/services",
        "core/replicationcontrollers",
    )
)


def has_generation(resource: Resource) -> bool:
    """Whether metadata.generation counts changes of the spec."""
    return resource.custom or resource.storage in _GENERATION


def _spec(document: Document) -> Document:
    return {key: value for key, value in document.items() if key not in _SPECLESS}


# Preparation at creation


def prepare_create(resource: Resource, document: Document, actor: Actor) -> None:
    """Fill in what the server owns; drop what a client may not set."""
    metadata = document["metadata"]
    for field in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"):
        metadata.pop(field, None)
    if has_generation(resource):
        metadata["generation"] = 1
    else:
        metadata.pop("generation", None)
    if "status" in resource.subresources:
        document.pop("status", None)
    special = _CREATIONS.get(resource.storage)
    if special is not None:
        special(document, actor)


def _create_pod(pod: Document, actor: Actor) -> None:
    pod["status"] = {"phase": "Pending", "qosClass": qos_class(pod)}


def _create_namespace(namespace: Document, actor: Actor) -> None:
    spec = namespace.setdefault("spec", {})
    finalizers = spec.setdefault("finalizers", [])
    if "kubernetes" not in finalizers:
        finalizers.append("kubernetes")
    namespace["status"] = {"phase": "Active"}
    labels = namespace["metadata"].setdefault("labels", {})
    labels["kubernetes.io/metadata.name"] = namespace["metadata"]["name"]


def _create_service(service: Document, actor: Actor) -> None:
    service["status"] = {"loadBalancer": {}}


def _pending(document: Document, actor: Actor) -> None:
    document["status"] = {"phase": "Pending"}


def _create_empty_status(document: Document, actor: Actor) -> None:
    document["status"] = {}


def _create_budget(document: Document, actor: Actor) -> None:
    numbers = ("currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods")
    document["status"] = dict.fromkeys(numbers, 0)


def _create_scaled(document: Document, actor: Actor) -> None:
    document["status"] = {"replicas": 0}


def _create_daemonset(document: Document, actor: Actor) -> None:
    numbers = (
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
    )
    document["status"] = dict.fromkeys(numbers, 0)
    annotations = document["metadata"].setdefault("annotations", {})
    annotations["deprecated.daemonset.template.generation"] = "1"


def _create_statefulset(document: Document, actor: Actor) -> None:
    document["status"] = {"replicas": 0, "availableReplicas": 0}


def _create_autoscaler(document: Document, actor: Actor) -> None:
    document["status"] = {"desiredReplicas": 0, "currentMetrics": None}


def _create_job(job: Document, actor: Actor) -> None:
    job["status"] = {}
    spec = job["spec"]
    if spec.get("manualSelector"):
        return
    metadata = job["metadata"]
    labels = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
    for prefix in ("", "batch.kubernetes.io/"):
        labels.setdefault(f"{prefix}controller-uid", metadata["uid"])
        labels.setdefault(f"{prefix}job-name", metadata["name"])
    selector = spec.setdefault("selector", {}).setdefault("matchLabels", {})
    selector["batch.kubernetes.io/controller-uid"] = metadata["uid"]


def _create_signing_request(request: Document, actor: Actor) -> None:
    spec = request["spec"]
    spec["username"] = actor.username
    _set_or_drop(spec, "uid", actor.uid)
    _set_or_drop(spec, "groups", list(actor.groups))
    _set_or_drop(spec, "extra", {key: list(values) for key, values in actor.extra})
    request["status"] = {}


def _set_or_drop(document: Document, key: str, value: object) -> None:
    if value:
        document[key] = value
    else:
        document.pop(key, None)


def _create_crd(definition: Document, actor: Actor) -> None:
    versions = definition["spec"].get("versions") or []
    stored = [version["name"] for version in versions if version.get("storage")]
    empty = {"plural": "", "kind": ""}
    definition["status"] = {"conditions": [], "acceptedNames": empty, "storedVersions": stored}


def _secret_data(secret: Document, actor: Actor) -> None:
    import base64

    written = secret.pop("stringData", None)
    if written:
        data = secret.get("data") or {}
        encoded = {k: base64.b64encode(v.encode()).decode() for k, v in written.items()}
        secret["data"] = {**data, **encoded}


_CREATIONS: Mapping[str, Callable[[Document, Actor], None]] = {
    "apps/daemonsets": _create_daemonset,
    "apps/deployments": _create_empty_status,
    "apps/replicasets": _create_scaled,
    "apps/statefulsets": _create_statefulset,
    "apiextensions.k8s.io/customresourcedefinitions": _create_crd,
    "autoscaling/horizontalpodautoscalers": _create_autoscaler,
    "batch/cronjobs": _create_empty_status,
    "batch/jobs": _create_job,
    "certificates.k8s.io/certificatesigningrequests": _create_signing_request,
    "core/namespaces": _create_namespace,
    "core/persistentvolumeclaims": _pending,
    "core/persistentvolumes": _pending,
    "core/pods": _create_pod,
    "core/replicationcontrollers": _create_scaled,
    "core/resourcequotas": _create_empty_status,
    "core/secrets": _secret_data,
    "core/services": _create_service,
    "networking.k8s.io/ingresses": _create_service,
    "policy/poddisruptionbudgets": _create_budget,
}


def qos_class(pod: Document) -> str:
    """Guaranteed, Burstable or BestEffort, by the containers' cpu and memory."""
    spec = pod.get("spec", {})
    containers = (spec.get("containers") or []) + (spec.get("initContainers") or [])
    resources = [container.get("resources") or {} for container in containers]
    pairs = [(r.get("requests") or {}, r.get("limits") or {}) for r in resources]
    named = [set(requests) | set(limits) for requests, limits in pairs]
    if not any(names & {"cpu", "memory"} for names in named):
        return "BestEffort"
    return "Guaranteed" if all(_guaranteed(*pair) for pair in pairs) else "Burstable"


def _guaranteed(requests: Mapping[str, Any], limits: Mapping[str, Any]) -> bool:
    return all(
        name in limits and str(requests.get(name, limits[name])) == str(limits[name])
        for name in ("cpu", "memory")
    )


# Updates


def prepare_update(resource: Resource, new: Document, old: Document, subresource: str) -> Document:
    """The object an update makes of `old`: the server's own fields and other parts stay."""
    new = merge_subresource(resource, new, old, subresource)
    keep, metadata = old["metadata"], new["metadata"]
    for field in (
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generateName",
        "generation",
    ):
        if field in keep:
            metadata[field] = keep[field]
        else:
            metadata.pop(field, None)
    metadata.pop("selfLink", None)
    if resource.storage == "core/secrets":
        _secret_data(new, Actor(""))
    elif resource.storage == "core/namespaces" and subresource != "finalize":
        new["spec"] = old.get("spec", {})
        metadata.setdefault("labels", {})["kubernetes.io/metadata.name"] = metadata["name"]
    if has_generation(resource):
        count_generation(new, old)
    if resource.storage == "apps/daemonsets":
        _count_template(new, old)
    return new


def count_generation(new: Document, old: Document) -> None:
    """One more generation if anything but metadata and status changed."""
    before = int(old["metadata"].get("generation", 0))
    new["metadata"]["generation"] = before + 1 if _spec(new) != _spec(old) else before


def _count_template(new: Document, old: Document) -> None:
    name = "deprecated.daemonset.template.generation"
    count = natural((old["metadata"].get("annotations") or {}).get(name, "")) or 1
    changed = new["spec"].get("template") != old["spec"].get("template")
    annotations = new["metadata"].setdefault("annotations", {})
    annotations[name] = str(count + 1 if changed else count)


def merge_subresource(
    resource: Resource, new: Document, old: Document, subresource: str
) -> Document:
    """Of `new` only what the subresource covers, the rest from `old`."""
    match subresource:
        case "binding":
            return new
        case "status":
            merged = {**old, "metadata": _status_metadata(resource, new, old)}
            merged = _replaced(merged, "status", new)
            if resource.storage == "core/pods":
                # Nodes of before 1.32 send none; it never changes anyway.
                merged["status"] = {**_quality(old), **(merged.get("status") or {})}
            return merged
        case "approval":
            merged = {**old, "metadata": dict(old["metadata"])}
            status = dict(old.get("status") or {})
            status["conditions"] = (new.get("status") or {}).get("conditions") or []
            return {**merged, "status": status}
        case "ephemeralcontainers":
            spec = dict(old["spec"])
            containers = new.get("spec", {}).get("ephemeralContainers")
            _set_or_drop(spec, "ephemeralContainers", containers)
            return {**old, "metadata": dict(old["metadata"]), "spec": spec}
        case "resize":
            return {**old, "metadata": dict(old["metadata"]), "spec": _resized(new, old)}
        case "finalize":
            merged = {**old, "metadata": dict(old["metadata"])}
            return _replaced(merged, "spec", new)
    if "status" in resource.subresources:
        return _replaced(new, "status", old)
    return new


def _quality(pod: Document) -> Document:
    found = (pod.get("status") or {}).get("qosClass")
    return {"qosClass": found} if found else {}


def _replaced(document: Document, part: str, source: Document) -> Document:
    rest = {key: value for key, value in document.items() if key != part}
    return {**rest, part: source[part]} if part in source else rest


def _status_metadata(resource: Resource, new: Document, old: Document) -> Document:
    metadata = dict(old["metadata"])
    if resource.custom:
        return metadata
    for field in ("labels", "annotations", "finalizers"):
        if (
            resource.storage in ("core/pods", "core/nodes", "core/namespaces", "core/services")
            or field == "annotations"
        ):
            _set_or_drop(metadata, field, new["metadata"].get(field))
    return metadata


def _resized(new: Document, old: Document) -> Document:
    asked = {c["name"]: c for c in new.get("spec", {}).get("containers") or ()}
    containers = []
    for container in old["spec"]["containers"]:
        wanted = asked.get(container["name"], container)
        merged = dict(container)
        for field in ("resources", "resizePolicy"):
            if field in wanted:
                merged[field] = wanted[field]
        containers.append(merged)
    return {**old["spec"], "containers": containers}
