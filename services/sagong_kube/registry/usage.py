"""What objects count for in resource quotas, by the names that quotas use."""

from __future__ import annotations

from collections.abc import Mapping

from sagong.model.quantity import nano
from sagong_kube.registry.document import Document
from sagong_kube.registry.strategy import qos_class

__all__ = ["Usage", "in_scope", "storages_of", "usage_of"]

# Amounts are in nano-units, as quantities are kept.
Usage = dict[str, int]
_ONE = 10**9

_COUNTED = {
    "core/pods": "pods",
    "core/services": "services",
    "core/replicationcontrollers": "replicationcontrollers",
    "core/secrets": "secrets",
    "core/configmaps": "configmaps",
    "core/persistentvolumeclaims": "persistentvolumeclaims",
    "core/resourcequotas": "resourcequotas",
}
_PLAIN = ("cpu", "memory", "ephemeral-storage")
_CLASS = ".storageclass.storage.k8s.io/"


def usage_of(storage: str, document: Document) -> Usage:
    """Everything that an object counts for."""
    group, plural = storage.split("/")
    if storage == "core/pods" and _is_over(document):
        return {}
    usage: Usage = {f"count/{plural}" if group == "core" else f"count/{plural}.{group}": _ONE}
    if storage in _COUNTED:
        usage[_COUNTED[storage]] = _ONE
    if storage == "core/pods":
        _add_pod(usage, document)
    elif storage == "core/persistentvolumeclaims":
        _add_claim(usage, document)
    elif storage == "core/services":
        _add_service(usage, document)
    return usage


def _is_over(pod: Document) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _add_pod(usage: Usage, pod: Document) -> None:
    spec = pod["spec"]
    for part in ("requests", "limits"):
        plain = _sum(spec.get("containers") or (), part)
        first = [_sum((c,), part) for c in spec.get("initContainers") or ()]
        for amounts in first:
            for name, value in amounts.items():
                plain[name] = max(plain.get(name, 0), value)
        for name, value in plain.items():
            usage[f"{part}.{name}"] = value
            if part == "requests" and (name in _PLAIN or name.startswith("hugepages-")):
                usage[name] = value


def _sum(containers: object, part: str) -> Usage:
    total: Usage = {}
    for container in containers:  # type: ignore[attr-defined]
        for name, value in ((container.get("resources") or {}).get(part) or {}).items():
            total[name] = total.get(name, 0) + nano(value)
    return total


def _add_claim(usage: Usage, claim: Document) -> None:
    spec = claim["spec"]
    asked = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    storage = nano(asked) if asked is not None else 0
    usage["requests.storage"] = storage
    name = spec.get("storageClassName")
    if name:
        usage[f"{name}{_CLASS}requests.storage"] = storage
        usage[f"{name}{_CLASS}persistentvolumeclaims"] = _ONE


def _add_service(usage: Usage, service: Document) -> None:
    spec = service["spec"]
    kind = spec.get("type") or "ClusterIP"
    usage["services.loadbalancers"] = _ONE * (kind == "LoadBalancer")
    opens = kind == "NodePort" or (
        kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts", True)
    )
    usage["services.nodeports"] = _ONE * (len(spec.get("ports") or ()) if opens else 0)


def storages_of(name: str) -> str | None:
    """The storage whose objects a quota's name counts; None for names nobody knows."""
    if name.startswith("count/"):
        plural, _, group = name[len("count/") :].partition(".")
        return f"{group or 'core'}/{plural}"
    for storage, counted in _COUNTED.items():
        if name == counted:
            return storage
    if name.startswith("services."):
        return "core/services"
    if name == "requests.storage" or _CLASS in name:
        return "core/persistentvolumeclaims"
    if name in _PLAIN or name.startswith(("requests.", "limits.", "hugepages-")):
        return "core/pods"
    return None


def in_scope(quota: Mapping[str, Document], storage: str, document: Document) -> bool:
    """Whether a quota with scopes counts the object; scopes concern pods only."""
    spec = quota["spec"]
    terms = [{"scopeName": scope, "operator": "Exists"} for scope in spec.get("scopes") or ()]
    terms += (spec.get("scopeSelector") or {}).get("matchExpressions") or []
    if not terms:
        return True
    return storage == "core/pods" and all(_holds(term, document) for term in terms)


def _holds(term: Document, pod: Document) -> bool:
    spec = pod["spec"]
    match term["scopeName"]:
        case "Terminating":
            return spec.get("activeDeadlineSeconds") is not None
        case "NotTerminating":
            return spec.get("activeDeadlineSeconds") is None
        case "BestEffort":
            return qos_class(pod) == "BestEffort"
        case "NotBestEffort":
            return qos_class(pod) != "BestEffort"
        case "PriorityClass":
            return _class_holds(term, spec.get("priorityClassName") or "")
        case "CrossNamespacePodAffinity":
            return _crosses_namespaces(spec)
    return False


def _class_holds(term: Document, name: str) -> bool:
    values = term.get("values") or ()
    match term.get("operator", "Exists"):
        case "In":
            return name in values
        case "NotIn":
            return name not in values
        case "DoesNotExist":
            return not name
    return bool(name)


def _crosses_namespaces(spec: Document) -> bool:
    affinity = spec.get("affinity") or {}
    terms: list[Document] = []
    for part in ("podAffinity", "podAntiAffinity"):
        found = affinity.get(part) or {}
        terms += found.get("requiredDuringSchedulingIgnoredDuringExecution") or []
        for weighted in found.get("preferredDuringSchedulingIgnoredDuringExecution") or ():
            terms.append(weighted.get("podAffinityTerm") or {})
    return any(t.get("namespaces") or t.get("namespaceSelector") is not None for t in terms)
