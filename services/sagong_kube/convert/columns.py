"""The columns in which kinds are shown, as kubectl prints them: names, types, which are wide.

A word of the table is a column's name with `_` for spaces; `#` marks an integer, `+` a column that
only `-o wide` shows, `:format` its format.
"""

from __future__ import annotations

from typing import Any, Final

from sagong.model.objects import GroupVersionKind

__all__ = ["COLUMNS", "DEFAULT", "definitions"]

_WORKLOAD: Final = "Containers+ Images+ Selector+"
_SCALED: Final = f"Name:name Desired# Current# Ready# Age {_WORKLOAD}"
_BINDING: Final = "Name:name Role Age Users+ Groups+ ServiceAccounts+"
_WEBHOOKS: Final = "Name:name Webhooks# Age"
DEFAULT: Final = "Name:name Created_At:date"

COLUMNS: Final[dict[tuple[str, str], str]] = {
    ("", "Pod"): "Name:name Ready Status Restarts Age IP+ Node+ Nominated_Node+ Readiness_Gates+",
    ("", "PodTemplate"): "Name:name Containers Images Pod_Labels",
    ("", "ReplicationController"): _SCALED,
    ("", "Service"): "Name:name Type Cluster-IP External-IP Port(s) Age Selector+",
    ("", "Endpoints"): "Name:name Endpoints Age",
    ("", "Node"): (
        "Name:name Status Roles Age Version Internal-IP+ External-IP+ OS-Image+ Kernel-Version+ "
        "Container-Runtime+"
    ),
    ("", "Event"): (
        "Last_Seen Type Reason Object Subobject+ Source+ Message First_Seen+ Count#+ Name:name+"
    ),
    ("", "Namespace"): "Name:name Status Age",
    ("", "Secret"): "Name:name Type Data# Age",
    ("", "ServiceAccount"): "Name:name Secrets# Age",
    ("", "ConfigMap"): "Name:name Data# Age",
    ("", "ResourceQuota"): "Name:name Request Limit Age",
    ("", "ComponentStatus"): "Name:name Status Message Error",
    ("", "PersistentVolume"): (
        "Name:name Capacity Access_Modes Reclaim_Policy Status Claim StorageClass "
        "VolumeAttributesClass Reason Age VolumeMode+"
    ),
    ("", "PersistentVolumeClaim"): (
        "Name:name Status Volume Capacity Access_Modes StorageClass VolumeAttributesClass Age "
        "VolumeMode+"
    ),
    ("apps", "Deployment"): f"Name:name Ready Up-to-date# Available# Age {_WORKLOAD}",
    ("apps", "ReplicaSet"): _SCALED,
    ("apps", "StatefulSet"): "Name:name Ready Age Containers+ Images+",
    ("apps", "DaemonSet"): (
        f"Name:name Desired# Current# Ready# Up-to-date# Available# Node_Selector Age {_WORKLOAD}"
    ),
    ("apps", "ControllerRevision"): "Name:name Controller Revision# Age",
    ("batch", "Job"): f"Name:name Status Completions Duration Age {_WORKLOAD}",
    ("batch", "CronJob"): (
        f"Name:name Schedule Timezone Suspend Active# Last_Schedule Age {_WORKLOAD}"
    ),
    ("autoscaling", "HorizontalPodAutoscaler"): (
        "Name:name Reference Targets MinPods MaxPods# Replicas# Age"
    ),
    ("autoscaling", "Scale"): "Name:name Desired# Available# Age",
    ("policy", "PodDisruptionBudget"): (
        "Name:name Min_Available Max_Unavailable Allowed_Disruptions# Age"
    ),
    ("networking.k8s.io", "Ingress"): "Name:name Class Hosts Address Ports Age",
    ("networking.k8s.io", "IngressClass"): "Name:name Controller Parameters Age",
    ("networking.k8s.io", "NetworkPolicy"): "Name:name Pod-Selector Age",
    ("rbac.authorization.k8s.io", "Role"): DEFAULT,
    ("rbac.authorization.k8s.io", "ClusterRole"): DEFAULT,
    ("rbac.authorization.k8s.io", "RoleBinding"): _BINDING,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): _BINDING,
    ("certificates.k8s.io", "CertificateSigningRequest"): (
        "Name:name Age SignerName Requestor RequestedDuration Condition"
    ),
    ("coordination.k8s.io", "Lease"): "Name:name Holder Age",
    ("storage.k8s.io", "StorageClass"): (
        "Name:name Provisioner ReclaimPolicy VolumeBindingMode AllowVolumeExpansion Age"
    ),
    ("storage.k8s.io", "VolumeAttachment"): "Name:name Attacher PV Node Attached Age",
    ("storage.k8s.io", "CSINode"): "Name:name Drivers# Age",
    ("storage.k8s.io", "CSIDriver"): (
        "Name:name AttachRequired PodInfoOnMount StorageCapacity TokenRequests "
        "RequiresRepublish Modes Age"
    ),
    ("storage.k8s.io", "CSIStorageCapacity"): "Name:name StorageClassName Capacity",
    ("scheduling.k8s.io", "PriorityClass"): "Name:name Value Global-Default Age PreemptionPolicy",
    ("node.k8s.io", "RuntimeClass"): "Name:name Handler Age",
    ("discovery.k8s.io", "EndpointSlice"): "Name:name AddressType Ports Endpoints Age",
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): _WEBHOOKS,
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): _WEBHOOKS,
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"): (
        "Name:name Validations# ParamKind Age"
    ),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"): (
        "Name:name PolicyName ParamRef Age"
    ),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema"): (
        "Name:name PriorityLevel MatchingPrecedence# DistinguisherMethod Age MissingPL"
    ),
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"): (
        "Name:name Type NominalConcurrencyShares Queues HandSize QueueLengthLimit Age"
    ),
    ("apiregistration.k8s.io", "APIService"): "Name:name Service Available Age",
    ("metrics.k8s.io", "NodeMetrics"): "Name:name CPU Memory Window",
    ("metrics.k8s.io", "PodMetrics"): "Name:name CPU Memory Window",
}
COLUMNS["events.k8s.io", "Event"] = COLUMNS["", "Event"]


def definitions(kind: GroupVersionKind) -> list[dict[str, Any]]:
    """A kind's columnDefinitions."""
    words = COLUMNS.get((kind.group, kind.kind), DEFAULT).split()
    return [_definition(word) for word in words]


def _definition(word: str) -> dict[str, Any]:
    wide = word.endswith("+")
    word = word.removesuffix("+")
    whole = word.endswith("#")
    name, _, layout = word.removesuffix("#").partition(":")
    return {
        "name": name.replace("_", " "),
        "type": "integer" if whole else "string",
        "format": layout if layout != "date" else "",
        "description": _DESCRIPTIONS.get(name, ""),
        "priority": 1 if wide else 0,
    }


_DESCRIPTIONS: Final = {
    "Name": "Name is unique within a namespace.",
    "Age": "The time since the object was created.",
    "Created_At": "The time at which the object was created.",
    "Ready": "How much of it is ready.",
    "Status": "The present status.",
    "Restarts": "How often its containers were restarted, and when last.",
    "Containers": "Names of each container in the template.",
    "Images": "Images referenced by each container in the template.",
    "Selector": "The labels that it selects.",
}
