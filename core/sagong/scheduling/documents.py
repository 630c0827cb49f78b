"""What scheduling reads of API objects: small lenient Structs, everything else is skipped."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from sagong.errors import InvalidArgument

__all__ = [
    "AffinityDocument",
    "BudgetDocument",
    "ClaimDocument",
    "ClassDocument",
    "ContainerDocument",
    "LabelSelectorDocument",
    "MetaDocument",
    "NamespaceDocument",
    "NodeDocument",
    "NodeTermDocument",
    "PodDocument",
    "PodSpecDocument",
    "PodTermDocument",
    "SpreadDocument",
    "TolerationDocument",
    "VolumeDocument",
    "read",
]

Amounts = dict[str, str | int | float]


class _Document(msgspec.Struct, rename="camel", gc=False, omit_defaults=True):
    """Base: names as JSON has them."""


class OwnerDocument(_Document):
    """An owner reference."""

    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class MetaDocument(_Document):
    """Metadata."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    owner_references: tuple[OwnerDocument, ...] | None = None


class RequirementDocument(_Document):
    """A requirement of a label selector or a node selector."""

    key: str = ""
    operator: str = ""
    values: tuple[str, ...] | None = None


class LabelSelectorDocument(_Document):
    """A label selector."""

    match_labels: dict[str, str] | None = None
    match_expressions: tuple[RequirementDocument, ...] | None = None


class NodeTermDocument(_Document):
    """A term of a node selector."""

    match_expressions: tuple[RequirementDocument, ...] | None = None
    match_fields: tuple[RequirementDocument, ...] | None = None


class NodeSelectorDocument(_Document):
    """Terms of which one must match."""

    node_selector_terms: tuple[NodeTermDocument, ...] | None = None


class PreferredNodeDocument(_Document):
    """A term with a weight."""

    weight: int = 0
    preference: NodeTermDocument = msgspec.field(default_factory=NodeTermDocument)


class NodeAffinityDocument(_Document):
    """Which nodes a pod needs and likes."""

    required: NodeSelectorDocument | None = msgspec.field(
        default=None, name="requiredDuringSchedulingIgnoredDuringExecution"
    )
    preferred: tuple[PreferredNodeDocument, ...] | None = msgspec.field(
        default=None, name="preferredDuringSchedulingIgnoredDuringExecution"
    )


class PodTermDocument(_Document):
    """Pods to be near to or far from."""

    topology_key: str = ""
    label_selector: LabelSelectorDocument | None = None
    namespaces: tuple[str, ...] | None = None
    namespace_selector: LabelSelectorDocument | None = None
    match_label_keys: tuple[str, ...] | None = None
    mismatch_label_keys: tuple[str, ...] | None = None


class PreferredPodDocument(_Document):
    """A term with a weight."""

    weight: int = 0
    pod_affinity_term: PodTermDocument = msgspec.field(default_factory=PodTermDocument)


class PodAffinityDocument(_Document):
    """Terms that must hold, and preferred ones."""

    required: tuple[PodTermDocument, ...] | None = msgspec.field(
        default=None, name="requiredDuringSchedulingIgnoredDuringExecution"
    )
    preferred: tuple[PreferredPodDocument, ...] | None = msgspec.field(
        default=None, name="preferredDuringSchedulingIgnoredDuringExecution"
    )


class AffinityDocument(_Document):
    """A pod's affinity."""

    node_affinity: NodeAffinityDocument | None = None
    pod_affinity: PodAffinityDocument | None = None
    pod_anti_affinity: PodAffinityDocument | None = None


class TolerationDocument(_Document):
    """A toleration."""

    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""


class SpreadDocument(_Document):
    """A topology spread constraint."""

    max_skew: int = 1
    topology_key: str = ""
    when_unsatisfiable: str = "DoNotSchedule"
    label_selector: LabelSelectorDocument | None = None
    min_domains: int | None = None
    match_label_keys: tuple[str, ...] | None = None
    node_affinity_policy: str | None = None
    node_taints_policy: str | None = None


class PortDocument(_Document):
    """A container's port."""

    host_port: int = 0
    protocol: str = ""
    host_ip: str = msgspec.field(default="", name="hostIP")


class ResourcesDocument(_Document):
    """Requests; limits don't matter here."""

    requests: Amounts | None = None


class ContainerDocument(_Document):
    """A container."""

    image: str = ""
    resources: ResourcesDocument | None = None
    ports: tuple[PortDocument, ...] | None = None
    restart_policy: str | None = None


class ClaimSourceDocument(_Document):
    """A volume's claim."""

    claim_name: str = ""


class VolumeSourceDocument(_Document):
    """A pod's volume, as far as it is a claim."""

    name: str = ""
    persistent_volume_claim: ClaimSourceDocument | None = None
    ephemeral: dict[str, msgspec.Raw] | None = None


class GateDocument(_Document):
    """A scheduling gate."""

    name: str = ""


class PodSpecDocument(_Document):
    """A pod's spec."""

    containers: tuple[ContainerDocument, ...] | None = None
    init_containers: tuple[ContainerDocument, ...] | None = None
    overhead: Amounts | None = None
    resources: ResourcesDocument | None = None
    node_selector: dict[str, str] | None = None
    affinity: AffinityDocument | None = None
    tolerations: tuple[TolerationDocument, ...] | None = None
    topology_spread_constraints: tuple[SpreadDocument, ...] | None = None
    volumes: tuple[VolumeSourceDocument, ...] | None = None
    node_name: str = ""
    scheduler_name: str = ""
    priority: int | None = None
    preemption_policy: str | None = None
    scheduling_gates: tuple[GateDocument, ...] | None = None


class PodConditionDocument(_Document):
    """A condition."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class PodStatusDocument(_Document):
    """A pod's status."""

    phase: str = ""
    start_time: str | None = None
    nominated_node_name: str = ""
    conditions: tuple[PodConditionDocument, ...] | None = None


class PodDocument(_Document):
    """A pod."""

    metadata: MetaDocument
    spec: PodSpecDocument = msgspec.field(default_factory=PodSpecDocument)
    status: PodStatusDocument | None = None


class TaintDocument(_Document):
    """A taint."""

    key: str = ""
    value: str = ""
    effect: str = ""


class NodeSpecDocument(_Document):
    """A node's spec."""

    unschedulable: bool | None = None
    taints: tuple[TaintDocument, ...] | None = None


class ImageDocument(_Document):
    """An image that a node has."""

    names: tuple[str, ...] | None = None
    size_bytes: int = 0


class NodeStatusDocument(_Document):
    """A node's status."""

    allocatable: Amounts | None = None
    capacity: Amounts | None = None
    images: tuple[ImageDocument, ...] | None = None


class NodeDocument(_Document):
    """A node."""

    metadata: MetaDocument
    spec: NodeSpecDocument | None = None
    status: NodeStatusDocument | None = None


class NamespaceDocument(_Document):
    """A namespace: its labels matter to namespace selectors."""

    metadata: MetaDocument


class ClaimSpecDocument(_Document):
    """What a claim wants."""

    storage_class_name: str | None = None
    volume_name: str = ""
    access_modes: tuple[str, ...] | None = None
    volume_mode: str | None = None
    selector: LabelSelectorDocument | None = None
    resources: ResourcesDocument | None = None


class PhaseDocument(_Document):
    """A status of which only the phase matters."""

    phase: str = ""


class ClaimDocument(_Document):
    """A PersistentVolumeClaim."""

    metadata: MetaDocument
    spec: ClaimSpecDocument = msgspec.field(default_factory=ClaimSpecDocument)
    status: PhaseDocument | None = None


class VolumeAffinityDocument(_Document):
    """Where a volume can be reached."""

    required: NodeSelectorDocument | None = None


class ClaimRefDocument(_Document):
    """Whose a volume is."""

    namespace: str = ""
    name: str = ""
    uid: str = ""


class VolumeSpecDocument(_Document):
    """What a volume offers."""

    storage_class_name: str = ""
    access_modes: tuple[str, ...] | None = None
    volume_mode: str | None = None
    capacity: Amounts | None = None
    claim_ref: ClaimRefDocument | None = None
    node_affinity: VolumeAffinityDocument | None = None


class VolumeDocument(_Document):
    """A PersistentVolume."""

    metadata: MetaDocument
    spec: VolumeSpecDocument = msgspec.field(default_factory=VolumeSpecDocument)
    status: PhaseDocument | None = None


class ClassDocument(_Document):
    """A StorageClass."""

    metadata: MetaDocument
    provisioner: str = ""
    volume_binding_mode: str | None = None


class BudgetStatusDocument(_Document):
    """How many pods may go."""

    disruptions_allowed: int = 0


class BudgetSpecDocument(_Document):
    """Whom a budget protects."""

    selector: LabelSelectorDocument | None = None


class BudgetDocument(_Document):
    """A PodDisruptionBudget."""

    metadata: MetaDocument
    spec: BudgetSpecDocument = msgspec.field(default_factory=BudgetSpecDocument)
    status: BudgetStatusDocument | None = None


D = TypeVar("D", bound=_Document)
_DECODERS: dict[type, msgspec.json.Decoder[object]] = {
    kind: msgspec.json.Decoder(kind)
    for kind in (
        PodDocument,
        NodeDocument,
        NamespaceDocument,
        ClaimDocument,
        VolumeDocument,
        ClassDocument,
        BudgetDocument,
    )
}


def read(body: bytes, kind: type[D], what: str) -> D:
    """Decode an object; InvalidArgument says which (`what`) is broken, and where."""
    try:
        document = _DECODERS[kind].decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{what} is not readable: {error}") from None
    if not document.metadata.name:  # type: ignore[attr-defined]
        raise InvalidArgument(f"{what} has no metadata.name")
    return document  # type: ignore[return-value]
