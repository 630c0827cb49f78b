"""Defaults that depend on other fields of the same type, as functions on documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sagong.errors import InvalidArgument
from sagong.model import references

__all__ = ["RULES"]

Document = dict[str, Any]

_RBAC: Final = "rbac.authorization.k8s.io"
_QUARTER: Final = "25%"
_NEVER_ENDING: Final = 2**31 - 1


def _container(container: Document) -> None:
    if container.get("imagePullPolicy"):
        return
    container["imagePullPolicy"] = _pull_policy(container.get("image", ""))


def _pull_policy(image: str) -> str:
    try:
        reference = references.parse_exact(image)
    except InvalidArgument:
        return "IfNotPresent"
    return "Always" if reference.tag == references.DEFAULT_TAG else "IfNotPresent"


def _pod(pod: Document) -> None:
    spec = pod.get("spec")
    if spec is None:
        return
    for part in ("containers", "initContainers"):
        for container in spec.get(part) or ():
            _request_limits(container)
    spec.setdefault("enableServiceLinks", True)
    if spec.get("hostNetwork"):
        for part in ("containers", "initContainers"):
            _host_ports(spec.get(part) or ())


def _request_limits(container: Document) -> None:
    resources = container.get("resources") or {}
    limits = resources.get("limits")
    if limits:
        requests = resources.setdefault("requests", {})
        for name, amount in limits.items():
            requests.setdefault(name, amount)


def _host_ports(containers: Any) -> None:
    for container in containers:
        for port in container.get("ports") or ():
            if not port.get("hostPort"):
                port["hostPort"] = port.get("containerPort", 0)


def _pod_spec(spec: Document) -> None:
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account


def _volume(volume: Document) -> None:
    if not any(key != "name" for key in volume):
        volume["emptyDir"] = {}


def _replication_controller(controller: Document) -> None:
    spec = controller.get("spec") or {}
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if labels:
        if not spec.get("selector"):
            spec["selector"] = dict(labels)
        metadata = controller.setdefault("metadata", {})
        if not metadata.get("labels"):
            metadata["labels"] = dict(labels)


def _service(service: Document) -> None:
    spec = service.setdefault("spec", {})
    if not spec.get("sessionAffinity"):
        spec["sessionAffinity"] = "None"
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    elif spec["sessionAffinity"] == "ClientIP":
        config = spec.setdefault("sessionAffinityConfig", {})
        config.setdefault("clientIP", {}).setdefault("timeoutSeconds", 10800)
    kind = spec["type"] = spec.get("type") or "ClusterIP"
    for port in spec.get("ports") or ():
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port", 0)
    _traffic(spec, kind)
    for ingress in ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ():
        if ingress.get("ip"):
            ingress.setdefault("ipMode", "VIP")


def _traffic(spec: Document, kind: str) -> None:
    external = kind in ("NodePort", "LoadBalancer") or (
        kind == "ClusterIP" and bool(spec.get("externalIPs"))
    )
    if external and not spec.get("externalTrafficPolicy"):
        spec["externalTrafficPolicy"] = "Cluster"
    if kind in ("ClusterIP", "NodePort", "LoadBalancer"):
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if kind == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)


def _namespace(namespace: Document) -> None:
    metadata = namespace.setdefault("metadata", {})
    name = metadata.get("name")
    if name:
        metadata.setdefault("labels", {})["kubernetes.io/metadata.name"] = name


def _node_status(status: Document) -> None:
    if "allocatable" not in status and status.get("capacity"):
        status["allocatable"] = dict(status["capacity"])


def _limit_range_item(item: Document) -> None:
    if item.get("type") != "Container":
        return
    for source, target in (
        ("max", "default"),
        ("default", "defaultRequest"),
        ("min", "defaultRequest"),
    ):
        for name, amount in (item.get(source) or {}).items():
            item.setdefault(target, {}).setdefault(name, amount)


def _deployment_strategy(strategy: Document) -> None:
    if strategy.get("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", _QUARTER)
        rolling.setdefault("maxSurge", _QUARTER)


def _daemon_set_strategy(strategy: Document) -> None:
    if strategy.get("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", 1)
        rolling.setdefault("maxSurge", 0)


def _stateful_set_strategy(strategy: Document) -> None:
    if strategy.get("type", "RollingUpdate") == "RollingUpdate":
        strategy.setdefault("rollingUpdate", {}).setdefault("partition", 0)


def _job(job: Document) -> None:
    spec = job.setdefault("spec", {})
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = spec["parallelism"] = 1
    spec.setdefault("parallelism", 1)
    forever = "backoffLimitPerIndex" in spec
    spec.setdefault("backoffLimit", _NEVER_ENDING if forever else 6)
    metadata = job.setdefault("metadata", {})
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if labels and not metadata.get("labels"):
        metadata["labels"] = dict(labels)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    failed_only = "podFailurePolicy" in spec
    spec.setdefault("podReplacementPolicy", "Failed" if failed_only else "TerminatingOrFailed")
    spec.setdefault("manualSelector", False)


_CPU: Final = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
}
_FAST: Final = {"type": "Percent", "value": 100, "periodSeconds": 15}
_FEW: Final = {"type": "Pods", "value": 4, "periodSeconds": 15}


def _autoscaler(spec: Document) -> None:
    if not spec.get("metrics"):
        spec["metrics"] = [{**_CPU}]
    behavior = spec.get("behavior")
    if behavior is None:
        return
    up = behavior.setdefault("scaleUp", {})
    up.setdefault("stabilizationWindowSeconds", 0)
    up.setdefault("selectPolicy", "Max")
    up.setdefault("policies", [dict(_FEW), dict(_FAST)])
    down = behavior.setdefault("scaleDown", {})
    down.setdefault("selectPolicy", "Max")
    down.setdefault("policies", [dict(_FAST)])


def _network_policy(spec: Document) -> None:
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def _subject(subject: Document) -> None:
    if not subject.get("apiGroup") and subject.get("kind") in ("User", "Group"):
        subject["apiGroup"] = _RBAC


def _definition(spec: Document) -> None:
    names = spec.setdefault("names", {})
    kind = names.get("kind", "")
    if not names.get("singular"):
        names["singular"] = kind.lower()
    if not names.get("listKind") and kind:
        names["listKind"] = f"{kind}List"


def _limit_response(response: Document) -> None:
    if response.get("type") == "Queue":
        response.setdefault("queuing", {})


RULES: Final[Mapping[str, Callable[[Document], None]]] = {
    "core.v1.Pod": _pod,
    "core.v1.PodSpec": _pod_spec,
    "core.v1.Container": _container,
    "core.v1.EphemeralContainer": _container,
    "core.v1.Volume": _volume,
    "core.v1.ReplicationController": _replication_controller,
    "core.v1.Service": _service,
    "core.v1.Namespace": _namespace,
    "core.v1.NodeStatus": _node_status,
    "core.v1.LimitRangeItem": _limit_range_item,
    "apps.v1.DeploymentStrategy": _deployment_strategy,
    "apps.v1.DaemonSetUpdateStrategy": _daemon_set_strategy,
    "apps.v1.StatefulSetUpdateStrategy": _stateful_set_strategy,
    "batch.v1.Job": _job,
    "autoscaling.v2.HorizontalPodAutoscalerSpec": _autoscaler,
    "networking.v1.NetworkPolicySpec": _network_policy,
    "rbac.v1.Subject": _subject,
    "apiextensions.v1.CustomResourceDefinitionSpec": _definition,
    "flowcontrol.v1.LimitResponse": _limit_response,
}
