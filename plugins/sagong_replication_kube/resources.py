"""The kinds that controllers know: resource, kind, scope, and how much of an object is kept."""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

__all__ = ["BY_KIND", "BY_RESOURCE", "Kept", "Kind", "custom"]


class Kept(Enum):
    """`WHOLE`: the bytes too; `POD`: a pod's typed part; `IDENTITY`: who it is and who owns it."""

    WHOLE = "whole"
    POD = "pod"
    IDENTITY = "identity"


class Kind(NamedTuple):
    """A followed kind. Without `needed` controllers begin also where it is not served."""

    resource: str
    kind: str
    namespaced: bool = True
    kept: Kept = Kept.IDENTITY
    needed: bool = False
    # Of a kind kept whole, only the objects of this name are.
    only: str = ""

    @property
    def api_version(self) -> str:
        """As objects write it."""
        return self.resource.rpartition("/")[0]

    @property
    def plural(self) -> str:
        """The last part of the resource."""
        return self.resource.rpartition("/")[2]


def custom(group: str, version: str, plural: str, kind: str, *, namespaced: bool) -> Kind:
    """A kind of a CustomResourceDefinition."""
    return Kind(f"{group}/{version}/{plural}", kind, namespaced)


def _whole(resource: str, kind: str, *, namespaced: bool = True, needed: bool = True) -> Kind:
    return Kind(resource, kind, namespaced, Kept.WHOLE, needed)


_WATCHED: Final = (
    _whole("v1/namespaces", "Namespace", namespaced=False),
    _whole("v1/nodes", "Node", namespaced=False),
    Kind("v1/pods", "Pod", True, Kept.POD, True),
    _whole("v1/services", "Service"),
    _whole("v1/endpoints", "Endpoints"),
    _whole("v1/replicationcontrollers", "ReplicationController"),
    _whole("v1/resourcequotas", "ResourceQuota", needed=False),
    _whole("v1/persistentvolumeclaims", "PersistentVolumeClaim", needed=False),
    _whole("v1/persistentvolumes", "PersistentVolume", namespaced=False, needed=False),
    _whole("storage.k8s.io/v1/storageclasses", "StorageClass", namespaced=False, needed=False),
    _whole("apps/v1/replicasets", "ReplicaSet"),
    _whole("apps/v1/deployments", "Deployment"),
    _whole("apps/v1/statefulsets", "StatefulSet"),
    _whole("apps/v1/daemonsets", "DaemonSet"),
    _whole("apps/v1/controllerrevisions", "ControllerRevision"),
    _whole("batch/v1/jobs", "Job"),
    _whole("batch/v1/cronjobs", "CronJob"),
    _whole("autoscaling/v2/horizontalpodautoscalers", "HorizontalPodAutoscaler", needed=False),
    _whole("policy/v1/poddisruptionbudgets", "PodDisruptionBudget", needed=False),
    _whole("discovery.k8s.io/v1/endpointslices", "EndpointSlice"),
    _whole("coordination.k8s.io/v1/leases", "Lease", needed=False),
    _whole("v1/serviceaccounts", "ServiceAccount"),
    Kind("v1/configmaps", "ConfigMap", True, Kept.WHOLE, True, "kube-root-ca.crt"),
)


def _plain(head: str, kinds: str, *, namespaced: bool = True) -> tuple[Kind, ...]:
    """Kinds that matter only as owners, as owned, and as contents of namespaces."""
    pairs = [said.split("=") for said in kinds.split()]
    return tuple(Kind(f"{head}/{plural}", kind, namespaced) for plural, kind in pairs)


_OTHERS: Final = (
    *_plain("v1", "secrets=Secret limitranges=LimitRange podtemplates=PodTemplate"),
    *_plain("networking.k8s.io/v1", "ingresses=Ingress networkpolicies=NetworkPolicy"),
    *_plain("networking.k8s.io/v1", "ingressclasses=IngressClass", namespaced=False),
    *_plain("rbac.authorization.k8s.io/v1", "roles=Role rolebindings=RoleBinding"),
    *_plain(
        "rbac.authorization.k8s.io/v1",
        "clusterroles=ClusterRole clusterrolebindings=ClusterRoleBinding",
        namespaced=False,
    ),
    *_plain("scheduling.k8s.io/v1", "priorityclasses=PriorityClass", namespaced=False),
    *_plain("storage.k8s.io/v1", "csistoragecapacities=CSIStorageCapacity"),
    *_plain(
        "storage.k8s.io/v1",
        "volumeattachments=VolumeAttachment csidrivers=CSIDriver csinodes=CSINode",
        namespaced=False,
    ),
    *_plain("node.k8s.io/v1", "runtimeclasses=RuntimeClass", namespaced=False),
    *_plain(
        "certificates.k8s.io/v1",
        "certificatesigningrequests=CertificateSigningRequest",
        namespaced=False,
    ),
    *_plain(
        "admissionregistration.k8s.io/v1",
        "mutatingwebhookconfigurations=MutatingWebhookConfiguration "
        "validatingwebhookconfigurations=ValidatingWebhookConfiguration "
        "validatingadmissionpolicies=ValidatingAdmissionPolicy "
        "validatingadmissionpolicybindings=ValidatingAdmissionPolicyBinding",
        namespaced=False,
    ),
    *_plain(
        "apiregistration.k8s.io/v1",
        "apiservices=APIService",
        namespaced=False,
    ),
    Kind(
        "apiextensions.k8s.io/v1/customresourcedefinitions",
        "CustomResourceDefinition",
        False,
        Kept.WHOLE,
    ),
)

KINDS: Final = (*_WATCHED, *_OTHERS)
BY_RESOURCE: Final = {kind.resource: kind for kind in KINDS}
BY_KIND: Final = {(kind.api_version, kind.kind): kind for kind in KINDS}
