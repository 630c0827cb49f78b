"""The rows of machines, storage, rights and all other kinds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sagong.model import quantity, times
from sagong_kube.convert.cells import (
    NONE,
    UNKNOWN,
    UNSET,
    age_of,
    containers_of,
    elapsed,
    labels_text,
    name_of,
    spec_of,
    status_of,
    text_of,
)

Document = dict[str, Any]

_ROLE: Final = "node-role.kubernetes.io/"
_MODES: Final = (
    ("ReadWriteOnce", "RWO"),
    ("ReadOnlyMany", "ROX"),
    ("ReadWriteMany", "RWX"),
    ("ReadWriteOncePod", "RWOP"),
)


def node(document: Document, now: float) -> list[Any]:
    """A Node."""
    spec, status = spec_of(document), status_of(document)
    ready = next((c for c in status.get("conditions") or () if c.get("type") == "Ready"), None)
    said = "Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"
    if spec.get("unschedulable"):
        said += ",SchedulingDisabled"
    info = status.get("nodeInfo") or {}
    addresses = status.get("addresses") or ()
    return [
        name_of(document),
        said,
        _roles(document["metadata"].get("labels") or {}),
        age_of(document, now),
        info.get("kubeletVersion", ""),
        _address(addresses, "InternalIP"),
        _address(addresses, "ExternalIP"),
        info.get("osImage") or UNKNOWN,
        info.get("kernelVersion") or UNKNOWN,
        info.get("containerRuntimeVersion") or UNKNOWN,
    ]


def _roles(labels: Mapping[str, str]) -> str:
    found = {key.removeprefix(_ROLE) for key in labels if key.startswith(_ROLE)}
    if labels.get("kubernetes.io/role"):
        found.add(labels["kubernetes.io/role"])
    return ",".join(sorted(found - {""})) or NONE


def _address(addresses: Iterable[Document], kind: str) -> str:
    return next((a["address"] for a in addresses if a.get("type") == kind), NONE)


def event(document: Document, now: float) -> list[Any]:
    """An Event of either group."""
    source = document.get("source") or document.get("deprecatedSource") or {}
    about = document.get("involvedObject") or document.get("regarding") or {}
    series = document.get("series") or {}
    first = document.get("firstTimestamp") or document.get("deprecatedFirstTimestamp")
    last = document.get("lastTimestamp") or document.get("deprecatedLastTimestamp")
    moment = document.get("eventTime")
    count = series.get("count") or document.get("count") or document.get("deprecatedCount") or 0
    component = source.get("component") or document.get("reportingComponent") or ""
    host = source.get("host") or document.get("reportingInstance") or ""
    kind = about.get("kind", "").lower()
    return [
        elapsed(series.get("lastObservedTime") or last or moment, now),
        document.get("type", ""),
        document.get("reason", ""),
        f"{kind}/{about['name']}" if about.get("name") else kind,
        about.get("fieldPath", ""),
        ", ".join(filter(None, (component, host))),
        (document.get("message") or document.get("note") or "").strip(),
        elapsed(first or moment, now),
        count or 1,
        name_of(document),
    ]


def _modes(listed: Iterable[str] | None) -> str:
    found = set(listed or ())
    return ",".join(short for mode, short in _MODES if mode in found)


def _phase(document: Document) -> str:
    if document["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return str(status_of(document).get("phase", ""))


def volume(document: Document, now: float) -> list[Any]:
    """A PersistentVolume."""
    spec, claim = spec_of(document), spec_of(document).get("claimRef")
    return [
        name_of(document),
        (spec.get("capacity") or {}).get("storage", ""),
        _modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy", ""),
        _phase(document),
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName") or UNSET,
        status_of(document).get("reason", ""),
        age_of(document, now),
        spec.get("volumeMode") or UNSET,
    ]


def claim(document: Document, now: float) -> list[Any]:
    """A PersistentVolumeClaim."""
    spec, status = spec_of(document), status_of(document)
    bound = bool(spec.get("volumeName"))
    return [
        name_of(document),
        _phase(document),
        spec.get("volumeName", ""),
        (status.get("capacity") or {}).get("storage", "") if bound else "",
        _modes(status.get("accessModes")) if bound else "",
        spec.get("storageClassName") or "",
        spec.get("volumeAttributesClassName") or UNSET,
        age_of(document, now),
        spec.get("volumeMode") or UNSET,
    ]


def storage_class(document: Document, now: float) -> list[Any]:
    """A StorageClass; the default one says so."""
    annotations = document["metadata"].get("annotations") or {}
    chosen = annotations.get("storageclass.kubernetes.io/is-default-class") == "true"
    return [
        name_of(document) + (" (default)" if chosen else ""),
        document.get("provisioner", ""),
        document.get("reclaimPolicy") or "Delete",
        document.get("volumeBindingMode") or "Immediate",
        str(bool(document.get("allowVolumeExpansion"))).lower(),
        age_of(document, now),
    ]


def config_map(document: Document, now: float) -> list[Any]:
    """A ConfigMap."""
    size = len(document.get("data") or ()) + len(document.get("binaryData") or ())
    return [name_of(document), size, age_of(document, now)]


def secret(document: Document, now: float) -> list[Any]:
    """A Secret."""
    size = len(document.get("data") or ())
    return [name_of(document), document.get("type", ""), size, age_of(document, now)]


def quota(document: Document, now: float) -> list[Any]:
    """A ResourceQuota: used of hard, limits apart."""
    status = status_of(document)
    hard, used = status.get("hard") or {}, status.get("used") or {}
    pairs = {name: f"{name}: {used.get(name, '0')}/{hard[name]}" for name in sorted(hard)}
    limits = [said for name, said in pairs.items() if name.startswith("limits.")]
    others = [said for name, said in pairs.items() if not name.startswith("limits.")]
    return [name_of(document), ", ".join(others), ", ".join(limits), age_of(document, now)]


def role(document: Document, now: float) -> list[Any]:
    """A kind shown by its name and the time of its creation."""
    return [name_of(document), document["metadata"].get("creationTimestamp")]


def binding(document: Document, now: float) -> list[Any]:
    """A RoleBinding or ClusterRoleBinding."""
    target, subjects = document.get("roleRef") or {}, document.get("subjects") or ()
    people: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in subjects:
        namespace = subject.get("namespace")
        name = subject.get("name", "")
        said = (
            f"{namespace}/{name}" if namespace and subject.get("kind") == "ServiceAccount" else name
        )
        people.setdefault(subject.get("kind", ""), []).append(said)
    return [
        name_of(document),
        f"{target.get('kind', '')}/{target.get('name', '')}",
        age_of(document, now),
        *(", ".join(people[kind]) for kind in ("User", "Group", "ServiceAccount")),
    ]


def signing_request(document: Document, now: float) -> list[Any]:
    """A CertificateSigningRequest."""
    spec, status = spec_of(document), status_of(document)
    kinds = {condition.get("type") for condition in status.get("conditions") or ()}
    said = "Denied" if "Denied" in kinds else "Approved" if "Approved" in kinds else "Pending"
    if "Failed" in kinds:
        said += ",Failed"
    if status.get("certificate"):
        said += ",Issued"
    seconds = spec.get("expirationSeconds")
    return [
        name_of(document),
        age_of(document, now),
        spec.get("signerName") or NONE,
        spec.get("username", ""),
        NONE if seconds is None else times.age(seconds),
        said,
    ]


def csi_driver(document: Document, now: float) -> list[Any]:
    """A CSIDriver."""
    spec = spec_of(document)
    audiences = [each.get("audience", "") for each in spec.get("tokenRequests") or ()]
    return [
        name_of(document),
        text_of(spec.get("attachRequired", True)),
        text_of(spec.get("podInfoOnMount", False)),
        text_of(spec.get("storageCapacity", False)),
        ",".join(audiences) or UNSET,
        text_of(spec.get("requiresRepublish", False)),
        ",".join(spec.get("volumeLifecycleModes") or ()) or NONE,
        age_of(document, now),
    ]


def priority_class(document: Document, now: float) -> list[Any]:
    """A PriorityClass."""
    return [
        name_of(document),
        document.get("value", 0),
        text_of(bool(document.get("globalDefault"))),
        age_of(document, now),
        document.get("preemptionPolicy") or "PreemptLowerPriority",
    ]


def storage_capacity(document: Document, now: float) -> list[Any]:
    """A CSIStorageCapacity."""
    capacity = document.get("capacity")
    shown = UNSET if capacity is None else str(capacity)
    return [name_of(document), document.get("storageClassName", ""), shown]


def admission_policy(document: Document, now: float) -> list[Any]:
    """A ValidatingAdmissionPolicy."""
    spec = spec_of(document)
    found = spec.get("paramKind")
    shown = f"{found['apiVersion']}/{found['kind']}" if found else UNSET
    return [name_of(document), len(spec.get("validations") or ()), shown, age_of(document, now)]


def admission_binding(document: Document, now: float) -> list[Any]:
    """A ValidatingAdmissionPolicyBinding."""
    spec = spec_of(document)
    found = spec.get("paramRef")
    shown = UNSET
    if found:
        namespace = found.get("namespace")
        name = found.get("name") or "*"
        shown = f"{namespace}/{name}" if namespace else name
    return [name_of(document), spec.get("policyName", ""), shown, age_of(document, now)]


def flow_schema(document: Document, now: float) -> list[Any]:
    """A FlowSchema."""
    spec = spec_of(document)
    conditions = status_of(document).get("conditions") or ()
    dangling = next((c.get("status") for c in conditions if c.get("type") == "Dangling"), "?")
    return [
        name_of(document),
        (spec.get("priorityLevelConfiguration") or {}).get("name", ""),
        spec.get("matchingPrecedence", 0),
        (spec.get("distinguisherMethod") or {}).get("type") or NONE,
        age_of(document, now),
        dangling,
    ]


def priority_level(document: Document, now: float) -> list[Any]:
    """A PriorityLevelConfiguration."""
    spec = spec_of(document)
    limited = spec.get("limited") or {}
    queuing = (limited.get("limitResponse") or {}).get("queuing") or {}
    fields = ("queues", "handSize", "queueLengthLimit")
    return [
        name_of(document),
        spec.get("type", ""),
        str(limited.get("nominalConcurrencyShares", NONE)),
        *(str(queuing.get(field, NONE)) for field in fields),
        age_of(document, now),
    ]


def api_service(document: Document, now: float) -> list[Any]:
    """An APIService."""
    found = spec_of(document).get("service")
    named = f"{found.get('namespace', '')}/{found.get('name', '')}" if found else "Local"
    conditions = status_of(document).get("conditions") or ()
    state: Document = next((c for c in conditions if c.get("type") == "Available"), {})
    said = state.get("status", "Unknown")
    if said != "True" and state.get("reason"):
        said = f"{said} ({state['reason']})"
    return [name_of(document), named, said, age_of(document, now)]


def pod_template(document: Document, now: float) -> list[Any]:
    """A PodTemplate."""
    template = document.get("template") or {}
    labels = labels_text((template.get("metadata") or {}).get("labels"))
    return [name_of(document), *containers_of(template), labels]


def component_status(document: Document, now: float) -> list[Any]:
    """A ComponentStatus."""
    conditions = document.get("conditions") or ()
    found = next((c for c in conditions if c.get("type") == "Healthy"), None)
    if found is None:
        return [name_of(document), "Unknown", "", ""]
    said = "Healthy" if found.get("status") == "True" else "Unhealthy"
    return [name_of(document), said, found.get("message", ""), found.get("error", "")]


def metrics(document: Document, now: float) -> list[Any]:
    """NodeMetrics, or PodMetrics: the sum of its containers."""
    parts = [document, *(document.get("containers") or ())]
    usages = [part.get("usage") or {} for part in parts]
    sums = [
        sum(quantity.nano(usage.get(name, 0)) for usage in usages) for name in ("cpu", "memory")
    ]
    cpu, memory = quantity.Quantity(sums[0]), quantity.Quantity(sums[1], "BinarySI")
    return [name_of(document), str(cpu), str(memory), document.get("window", "")]
