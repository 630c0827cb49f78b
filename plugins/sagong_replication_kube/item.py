"""Items: objects as controllers keep them, as small as their work allows."""

from __future__ import annotations

import contextlib
from typing import Any, Final

import msgspec

from sagong.errors import InvalidArgument
from sagong.model.numbers import natural
from sagong.model.selectors import NOTHING, LabelSelector, from_labels, from_object
from sagong.model.times import parse_time
from sagong_replication_kube.resources import Kept, Kind

__all__ = ["Document", "Item", "Meta", "Owner", "PodSpec", "PodStatus", "moment"]

Document = dict[str, Any]
Key = tuple[str, str]


class _Part(msgspec.Struct, rename="camel", gc=False, frozen=True):
    """Base: names as JSON has them."""


class Owner(_Part, frozen=True):
    """An owner reference."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None
    block_owner_deletion: bool | None = None

    def document(self) -> Document:
        """As an object has it."""
        found: Document = msgspec.to_builtins(self)
        return {key: value for key, value in found.items() if value is not None}


class Meta(_Part, frozen=True):
    """Metadata."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    finalizers: tuple[str, ...] | None = None
    owner_references: tuple[Owner, ...] | None = None

    @property
    def controller(self) -> Owner | None:
        """The owner that controls it."""
        for owner in self.owner_references or ():
            if owner.controller:
                return owner
        return None


class _IdentityMeta(_Part, frozen=True):
    """Metadata without what only its own controller would read."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    finalizers: tuple[str, ...] | None = None
    owner_references: tuple[Owner, ...] | None = None


class ContainerPort(_Part, frozen=True):
    """A port that may be meant by its name."""

    name: str = ""
    container_port: int = 0
    protocol: str = "TCP"


class Resources(_Part, frozen=True):
    """Requests and limits."""

    requests: dict[str, str | int | float] | None = None
    limits: dict[str, str | int | float] | None = None


class Container(_Part, frozen=True):
    """A container."""

    name: str = ""
    image: str = ""
    ports: tuple[ContainerPort, ...] | None = None
    resources: Resources | None = None
    restart_policy: str | None = None


class Toleration(_Part, frozen=True):
    """A toleration."""

    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None


class _Requirement(_Part, frozen=True):
    key: str = ""
    operator: str = ""
    values: tuple[str, ...] | None = None


class _Term(_Part, frozen=True):
    match_fields: tuple[_Requirement, ...] | None = None


class _Terms(_Part, frozen=True):
    node_selector_terms: tuple[_Term, ...] | None = None


class _NodeAffinity(_Part, frozen=True):
    required: _Terms | None = msgspec.field(
        default=None, name="requiredDuringSchedulingIgnoredDuringExecution"
    )


class _Affinity(_Part, frozen=True):
    node_affinity: _NodeAffinity | None = None


class _ClaimSource(_Part, frozen=True):
    claim_name: str = ""


class _Volume(_Part, frozen=True):
    name: str = ""
    claim: _ClaimSource | None = msgspec.field(default=None, name="persistentVolumeClaim")
    ephemeral: dict[str, msgspec.Raw] | None = None


class PodSpec(_Part, frozen=True):
    """What controllers read of a pod's spec."""

    affinity: _Affinity | None = None

    node_name: str = ""
    hostname: str = ""
    subdomain: str = ""
    host_network: bool = False
    restart_policy: str = "Always"
    priority_class_name: str = ""
    active_deadline_seconds: int | None = None
    containers: tuple[Container, ...] | None = None
    init_containers: tuple[Container, ...] | None = None
    tolerations: tuple[Toleration, ...] | None = None
    overhead: dict[str, str | int | float] | None = None
    volumes: tuple[_Volume, ...] | None = None

    def claims(self, pod: str) -> tuple[str, ...]:
        """Names of the claims that the pod's volumes use."""
        return tuple(
            volume.claim.claim_name if volume.claim is not None else f"{pod}-{volume.name}"
            for volume in self.volumes or ()
            if volume.claim is not None or volume.ephemeral is not None
        )

    @property
    def pinned(self) -> str:
        """The only node that the pod may have (as daemons' pods do); "" if it may have others."""
        affinity = self.affinity.node_affinity if self.affinity is not None else None
        required = affinity.required if affinity is not None else None
        for term in (required.node_selector_terms if required is not None else None) or ():
            for rule in term.match_fields or ():
                if rule.key == "metadata.name" and rule.operator == "In" and rule.values:
                    return rule.values[0]
        return ""


class Condition(_Part, frozen=True):
    """A condition."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None


class Terminated(_Part, frozen=True):
    """How a container ended."""

    exit_code: int = 0
    reason: str = ""
    finished_at: str | None = None


class ContainerState(_Part, frozen=True):
    """The state of a container."""

    terminated: Terminated | None = None


class ContainerStatus(_Part, frozen=True):
    """The status of a container."""

    name: str = ""
    container_id: str = msgspec.field(default="", name="containerID")
    ready: bool = False
    restart_count: int = 0
    state: ContainerState | None = None


class PodIP(_Part, frozen=True):
    """An address."""

    ip: str = ""


class PodStatus(_Part, frozen=True):
    """What controllers read of a pod's status."""

    phase: str = ""
    reason: str = ""
    start_time: str | None = None
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: tuple[PodIP, ...] | None = msgspec.field(default=None, name="podIPs")
    conditions: tuple[Condition, ...] | None = None
    container_statuses: tuple[ContainerStatus, ...] | None = None
    init_container_statuses: tuple[ContainerStatus, ...] | None = None

    def condition(self, type_: str) -> Condition | None:
        """A condition by its type."""
        for condition in self.conditions or ():
            if condition.type == type_:
                return condition
        return None


class _Whole(_Part, frozen=True):
    metadata: Meta


class _Identity(_Part, frozen=True):
    metadata: _IdentityMeta


class _Pod(_Part, frozen=True):
    metadata: Meta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


_WHOLE: Final = msgspec.json.Decoder(_Whole)
_IDENTITY: Final = msgspec.json.Decoder(_Identity)
_POD: Final = msgspec.json.Decoder(_Pod)
_NO_SPEC: Final = PodSpec()
_NO_STATUS: Final = PodStatus()


class Item:
    """An object. `raw` is empty unless its kind is kept whole; `spec`, `status` are pods'."""

    __slots__ = ("_selector", "kind", "meta", "raw", "revision", "spec", "status")

    def __init__(self, kind: Kind, body: bytes) -> None:
        self.kind = kind
        self.raw = b""
        self._selector: LabelSelector | None = None
        self.spec, self.status = _NO_SPEC, _NO_STATUS
        try:
            self.meta = self._read(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidArgument(f"{kind.kind} is not readable: {error}") from None
        if not self.meta.name:
            raise InvalidArgument(f"{kind.kind} has no metadata.name")
        self.revision = natural(self.meta.resource_version) or 0

    def _read(self, body: bytes) -> Meta:
        if self.kind.kept is Kept.POD:
            pod = _POD.decode(body)
            self.spec, self.status = _lean(pod.spec), pod.status
            return pod.metadata
        if self.kind.kept is Kept.WHOLE:
            meta = _WHOLE.decode(body).metadata
            if self.kind.only in ("", meta.name):
                self.raw = body
                return meta
        found = _IDENTITY.decode(body).metadata
        return Meta(
            name=found.name,
            namespace=found.namespace,
            uid=found.uid,
            resource_version=found.resource_version,
            creation_timestamp=found.creation_timestamp,
            deletion_timestamp=found.deletion_timestamp,
            deletion_grace_period_seconds=found.deletion_grace_period_seconds,
            finalizers=found.finalizers,
            owner_references=found.owner_references,
        )

    @property
    def resource(self) -> str:
        """Its resource."""
        return self.kind.resource

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return (self.meta.namespace, self.meta.name)

    @property
    def uid(self) -> str:
        """Its uid."""
        return self.meta.uid

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return self.meta.labels or {}

    @property
    def annotations(self) -> dict[str, str]:
        """Its annotations."""
        return self.meta.annotations or {}

    @property
    def deleting(self) -> bool:
        """Whether its deletion was asked for."""
        return self.meta.deletion_timestamp is not None

    @property
    def gone(self) -> bool:
        """Whether this is the last form of an object that exists no more."""
        meta = self.meta
        return (
            self.deleting
            and not meta.finalizers
            and meta.deletion_grace_period_seconds == 0
            and self.resource != "v1/namespaces"
        )

    @property
    def created(self) -> float:
        """When it was made."""
        return moment(self.meta.creation_timestamp)

    @property
    def selector(self) -> LabelSelector:
        """What its spec selects, in whichever form its kind has."""
        if self._selector is None:
            spec = self.document().get("spec") or {}
            said = spec.get("selector")
            if self.kind.kind in ("Service", "ReplicationController"):
                self._selector = from_labels(said) if said else NOTHING
            elif self.kind.kind == "PodDisruptionBudget":
                self._selector = from_object({} if said is None else said)
            else:
                self._selector = from_object(said)
        return self._selector

    def document(self) -> Document:
        """A fresh copy of the whole object."""
        found: Document = msgspec.json.decode(self.raw)
        return found

    def owned_by(self, uid: str) -> bool:
        """Whether the object with this uid controls it."""
        controller = self.meta.controller
        return controller is not None and controller.uid == uid


def _lean(spec: PodSpec) -> PodSpec:
    """Without volumes that nobody here asks about; what is raw gets bytes of its own."""
    volumes = tuple(
        _Volume(v.name, v.claim, v.ephemeral and {k: raw.copy() for k, raw in v.ephemeral.items()})
        for v in spec.volumes or ()
        if v.claim is not None or v.ephemeral is not None
    )
    return msgspec.structs.replace(spec, volumes=volumes or None)


def moment(text: str | None) -> float:
    """Seconds since the epoch; 0.0 for none."""
    if text:
        with contextlib.suppress(InvalidArgument):
            return parse_time(text)
    return 0.0
