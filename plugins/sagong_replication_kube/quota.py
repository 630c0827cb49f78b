"""ResourceQuotas: what a namespace uses of what it may, counted anew.

Source: https://kubernetes.io/docs/concepts/policy/resource-quotas/
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sagong.model.quantity import NANO, Quantity, nano, parse
from sagong_replication_kube.item import Container, Document, Item
from sagong_replication_kube.pods import PODS
from sagong_replication_kube.work import Work

__all__ = ["reconcile"]

_COUNTED: Final = {
    "pods": PODS,
    "services": "v1/services",
    "secrets": "v1/secrets",
    "configmaps": "v1/configmaps",
    "replicationcontrollers": "v1/replicationcontrollers",
    "resourcequotas": "v1/resourcequotas",
    "persistentvolumeclaims": "v1/persistentvolumeclaims",
}
_PLAIN: Final = ("cpu", "memory", "ephemeral-storage")
_CLASS: Final = ".storageclass.storage.k8s.io/"
CLAIMS: Final = "v1/persistentvolumeclaims"
SERVICES: Final = "v1/services"


def reconcile(work: Work, item: Item) -> None:
    """Tell what is used, in the units in which the limits are written."""
    document = item.document()
    if item.deleting:
        return
    hard: dict[str, str] = {k: str(v) for k, v in (document["spec"].get("hard") or {}).items()}
    pods = [pod for pod in _pods(work, item) if _in_scope(document["spec"], pod)]
    used = {}
    for name, limit in hard.items():
        amount = _used(work, item.meta.namespace, name, pods)
        if amount is not None:
            used[name] = str(Quantity(amount, parse(limit).format))
    work.status(item, {"hard": hard, "used": used})


def _pods(work: Work, item: Item) -> Iterable[Item]:
    for pod in work.world.within(PODS, item.meta.namespace):
        if pod.status.phase not in ("Succeeded", "Failed"):
            yield pod


def _used(work: Work, namespace: str, name: str, pods: list[Item]) -> int | None:
    """In nano-units; None for names that nobody knows."""
    if name == "pods" or name == "count/pods":
        return len(pods) * NANO
    if name in _COUNTED:
        return _number(work, _COUNTED[name], namespace)
    if name.startswith("count/"):
        plural, _, group = name.removeprefix("count/").partition(".")
        return _number(work, _resource(work, plural, group), namespace)
    if name in ("services.loadbalancers", "services.nodeports"):
        return sum(_service(s, name) for s in work.world.within(SERVICES, namespace)) * NANO
    if name == "requests.storage" or _CLASS in name:
        return sum(_claim(c, name) for c in work.world.within(CLAIMS, namespace))
    part, _, resource = name.partition(".")
    if name in _PLAIN or name.startswith("hugepages-"):
        part, resource = "requests", name
    if part in ("requests", "limits"):
        return sum(_pod(pod, part, resource) for pod in pods)
    return None


def _number(work: Work, resource: str, namespace: str) -> int:
    return sum(1 for _ in work.world.within(resource, namespace)) * NANO


def _resource(work: Work, plural: str, group: str) -> str:
    """The followed resource of a plural in any version of its group."""
    for resource in work.world.resources():
        head, _, last = resource.rpartition("/")
        if last == plural and head.rpartition("/")[0] == group:
            return resource
    return ""


def _service(service: Item, name: str) -> int:
    spec = service.document()["spec"]
    kind = spec.get("type") or "ClusterIP"
    if name == "services.loadbalancers":
        return int(kind == "LoadBalancer")
    opens = kind == "NodePort" or (
        kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts", True)
    )
    return len(spec.get("ports") or ()) if opens else 0


def _claim(claim: Item, name: str) -> int:
    spec = claim.document()["spec"]
    class_, found, what = name.partition(_CLASS)
    if found and spec.get("storageClassName") != class_:
        return 0
    if found and what == "persistentvolumeclaims":
        return NANO
    asked = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    return nano(asked) if asked is not None else 0


def _pod(pod: Item, part: str, resource: str) -> int:
    """A pod's own, as scheduling counts it: containers together, inits by their highest."""
    spec = pod.spec
    inits = spec.init_containers or ()
    sidecars = [c for c in inits if c.restart_policy == "Always"]
    total = sum(_container(c, part, resource) for c in (*(spec.containers or ()), *sidecars))
    beside, highest = 0, 0
    for init in inits:
        amount = _container(init, part, resource) + beside
        beside = amount if init.restart_policy == "Always" else beside
        highest = max(highest, amount)
    overhead = (spec.overhead or {}).get(resource, 0)
    return max(total, highest) + nano(overhead)


def _container(container: Container, part: str, resource: str) -> int:
    said = container.resources
    amounts = (said.requests if part == "requests" else said.limits) if said is not None else None
    return nano((amounts or {}).get(resource, 0))


def _in_scope(spec: Document, pod: Item) -> bool:
    terms = [{"scopeName": scope, "operator": "Exists"} for scope in spec.get("scopes") or ()]
    terms += (spec.get("scopeSelector") or {}).get("matchExpressions") or []
    return all(_holds(term, pod) for term in terms)


def _holds(term: Document, pod: Item) -> bool:
    spec = pod.spec
    if term["scopeName"] in ("Terminating", "NotTerminating"):
        ends = spec.active_deadline_seconds is not None
        return ends is (term["scopeName"] == "Terminating")
    if term["scopeName"] in ("BestEffort", "NotBestEffort"):
        return _best_effort(pod) is (term["scopeName"] == "BestEffort")
    if term["scopeName"] == "PriorityClass":
        return _class_holds(term, spec.priority_class_name)
    return True


def _best_effort(pod: Item) -> bool:
    containers = (*(pod.spec.containers or ()), *(pod.spec.init_containers or ()))
    return not any(
        c.resources is not None and (c.resources.requests or c.resources.limits) for c in containers
    )


def _class_holds(term: Document, name: str) -> bool:
    values = term.get("values") or ()
    match term.get("operator"):
        case "In":
            return name in values
        case "NotIn":
            return name not in values
        case "Exists":
            return bool(name)
    return not name
