"""Validation: everything that is wrong with an object about to be created or updated.

Documents are those of `decoding` with the defaults filled in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sagong.model.objects import GroupVersionKind
from sagong_kube.schema import resources
from sagong_kube.schema.rules import core_objects, pods, policies, services, workloads
from sagong_kube.schema.rules.findings import FieldError, Findings
from sagong_kube.schema.rules.metadata import check_metadata, check_metadata_update, name_check

__all__ = ["FieldError", "validate", "validate_metadata"]

Document = dict[str, Any]
Check = Callable[[Findings, Document, Document | None], None]

CHECKS: Final[Mapping[tuple[str, str], Check]] = {
    ("", "Pod"): pods.check_pod,
    ("", "PodTemplate"): core_objects.check_pod_template,
    ("", "Binding"): core_objects.check_binding,
    ("", "ReplicationController"): workloads.check_replication_controller,
    ("", "Service"): services.check_service,
    ("", "Endpoints"): services.check_endpoints,
    ("", "Node"): core_objects.check_node,
    ("", "Namespace"): core_objects.check_namespace,
    ("", "ConfigMap"): core_objects.check_config_map,
    ("", "Secret"): core_objects.check_secret,
    ("", "ServiceAccount"): core_objects.check_service_account,
    ("", "PersistentVolume"): core_objects.check_volume,
    ("", "PersistentVolumeClaim"): core_objects.check_claim,
    ("", "ResourceQuota"): core_objects.check_quota,
    ("", "LimitRange"): core_objects.check_limit_range,
    ("", "Event"): core_objects.check_event,
    ("apps", "Deployment"): workloads.check_deployment,
    ("apps", "ReplicaSet"): workloads.check_replica_set,
    ("apps", "DaemonSet"): workloads.check_daemon_set,
    ("apps", "StatefulSet"): workloads.check_stateful_set,
    ("apps", "ControllerRevision"): workloads.check_revision,
    ("batch", "Job"): workloads.check_job,
    ("batch", "CronJob"): workloads.check_cron_job,
    ("autoscaling", "HorizontalPodAutoscaler"): workloads.check_autoscaler,
    ("autoscaling", "Scale"): workloads.check_scale,
    ("policy", "PodDisruptionBudget"): workloads.check_budget,
    ("networking.k8s.io", "Ingress"): services.check_ingress,
    ("networking.k8s.io", "IngressClass"): services.check_ingress_class,
    ("networking.k8s.io", "NetworkPolicy"): services.check_network_policy,
    ("discovery.k8s.io", "EndpointSlice"): services.check_endpoint_slice,
    ("rbac.authorization.k8s.io", "Role"): policies.check_role,
    ("rbac.authorization.k8s.io", "ClusterRole"): policies.check_cluster_role,
    ("rbac.authorization.k8s.io", "RoleBinding"): policies.check_binding,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): policies.check_binding,
    ("storage.k8s.io", "StorageClass"): policies.check_storage_class,
    ("storage.k8s.io", "CSIDriver"): policies.check_csi_driver,
    ("storage.k8s.io", "CSINode"): policies.check_csi_node,
    ("coordination.k8s.io", "Lease"): core_objects.check_lease,
    ("scheduling.k8s.io", "PriorityClass"): core_objects.check_priority_class,
    ("node.k8s.io", "RuntimeClass"): policies.check_runtime_class,
    ("certificates.k8s.io", "CertificateSigningRequest"): policies.check_signing_request,
    ("apiregistration.k8s.io", "APIService"): policies.check_api_service,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): policies.check_definition,
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): policies.check_webhooks,
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): policies.check_webhooks,
    ("flowcontrol.apiserver.k8s.io", "FlowSchema"): policies.check_flow_schema,
}
# Subresources of a kind that are validated as the whole object is.
_WHOLE: Final = frozenset(("", "scale", "finalize", "approval", "ephemeralcontainers", "resize"))


def validate(
    document: Document,
    kind: GroupVersionKind,
    old: Document | None = None,
    subresource: str = "",
    *,
    namespaced: bool | None = None,
) -> list[FieldError]:
    """What is wrong with an object, nothing if it is right.

    `old` is the stored object that it replaces; `namespaced` must be given for custom kinds.
    """
    found = Findings()
    metadata = document.get("metadata") or {}
    if namespaced is None:
        resource = resources.of_kind(kind)
        namespaced = resource is None or resource.namespaced
    if old is not None:
        check_metadata_update(found, metadata, old.get("metadata") or {})
    if old is None or subresource == "":
        check_metadata(found, metadata, namespaced=namespaced, check=name_check(kind.kind))
    check = CHECKS.get((kind.group, kind.kind))
    if check is not None and subresource in _WHOLE:
        check(found, document, old)
    if kind.kind == "Pod" and not kind.group and old is not None:
        pods.check_pod_update(found, document, old, subresource)
    return _distinct(found.errors)


def validate_metadata(
    metadata: Document, old: Document | None = None, *, namespaced: bool
) -> list[FieldError]:
    """What is wrong with the metadata of a custom object."""
    found = Findings()
    if old is not None:
        check_metadata_update(found, metadata, old)
    check_metadata(found, metadata, namespaced=namespaced, check=name_check(""))
    return found.errors


def _distinct(errors: list[FieldError]) -> list[FieldError]:
    """Without repetitions: an update's checks and those of the whole may find the same."""
    return list(dict.fromkeys(errors))
