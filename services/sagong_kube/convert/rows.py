"""Which row each kind has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sagong_kube.convert import network_rows, object_rows, workload_rows
from sagong_kube.convert.cells import Row, counted, plain
from sagong_kube.convert.pod_row import pod_row

__all__ = ["ROWS"]

_WEBHOOKS: Final = counted("webhooks")

ROWS: Final[Mapping[tuple[str, str], Row]] = {
    ("", "Pod"): pod_row,
    ("", "PodTemplate"): object_rows.pod_template,
    ("", "ReplicationController"): workload_rows.replication_controller,
    ("", "Service"): network_rows.service,
    ("", "Endpoints"): network_rows.endpoints,
    ("", "Node"): object_rows.node,
    ("", "Event"): object_rows.event,
    ("events.k8s.io", "Event"): object_rows.event,
    ("", "Namespace"): plain("status.phase"),
    ("", "Secret"): object_rows.secret,
    ("", "ServiceAccount"): counted("secrets"),
    ("", "ConfigMap"): object_rows.config_map,
    ("", "ResourceQuota"): object_rows.quota,
    ("", "ComponentStatus"): object_rows.component_status,
    ("", "PersistentVolume"): object_rows.volume,
    ("", "PersistentVolumeClaim"): object_rows.claim,
    ("apps", "Deployment"): workload_rows.deployment,
    ("apps", "ReplicaSet"): workload_rows.replica_set,
    ("apps", "StatefulSet"): workload_rows.stateful_set,
    ("apps", "DaemonSet"): workload_rows.daemon_set,
    ("apps", "ControllerRevision"): workload_rows.controller_revision,
    ("batch", "Job"): workload_rows.job,
    ("batch", "CronJob"): workload_rows.cron_job,
    ("autoscaling", "HorizontalPodAutoscaler"): workload_rows.autoscaler,
    ("autoscaling", "Scale"): plain("spec.replicas", "status.replicas"),
    ("policy", "PodDisruptionBudget"): workload_rows.budget,
    ("networking.k8s.io", "Ingress"): network_rows.ingress,
    ("networking.k8s.io", "IngressClass"): network_rows.ingress_class,
    ("networking.k8s.io", "NetworkPolicy"): network_rows.network_policy,
    ("rbac.authorization.k8s.io", "Role"): object_rows.role,
    ("rbac.authorization.k8s.io", "ClusterRole"): object_rows.role,
    ("rbac.authorization.k8s.io", "RoleBinding"): object_rows.binding,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): object_rows.binding,
    ("certificates.k8s.io", "CertificateSigningRequest"): object_rows.signing_request,
    ("coordination.k8s.io", "Lease"): plain("spec.holderIdentity"),
    ("storage.k8s.io", "StorageClass"): object_rows.storage_class,
    ("storage.k8s.io", "VolumeAttachment"): plain(
        "spec.attacher", "spec.source.persistentVolumeName", "spec.nodeName", "status.attached"
    ),
    ("storage.k8s.io", "CSINode"): counted("spec.drivers"),
    ("storage.k8s.io", "CSIDriver"): object_rows.csi_driver,
    ("storage.k8s.io", "CSIStorageCapacity"): object_rows.storage_capacity,
    ("scheduling.k8s.io", "PriorityClass"): object_rows.priority_class,
    ("node.k8s.io", "RuntimeClass"): plain("handler"),
    ("discovery.k8s.io", "EndpointSlice"): network_rows.endpoint_slice,
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): _WEBHOOKS,
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): _WEBHOOKS,
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"): object_rows.admission_policy,
    (
        "admissionregistration.k8s.io",
        "ValidatingAdmissionPolicyBinding",
    ): object_rows.admission_binding,
    ("flowcontrol.apiserver.k8s.io", "FlowSchema"): object_rows.flow_schema,
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"): object_rows.priority_level,
    ("metrics.k8s.io", "NodeMetrics"): object_rows.metrics,
    ("metrics.k8s.io", "PodMetrics"): object_rows.metrics,
    ("apiregistration.k8s.io", "APIService"): object_rows.api_service,
}
