"""Checks of the smaller kinds of the core group, and of leases, events and priority classes."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

import msgspec

from sagong.model import names, quantity
from sagong_kube.schema.rules.findings import Findings
from sagong_kube.schema.rules.metadata import check_label_selector
from sagong_kube.schema.rules.placement import EFFECTS, check_node_selector, key_of
from sagong_kube.schema.rules.pods import check_template
from sagong_kube.schema.rules.services import check_cidr
from sagong_kube.schema.rules.volumes import SOURCES, check_quantity

__all__ = [
    "check_binding",
    "check_claim",
    "check_config_map",
    "check_event",
    "check_lease",
    "check_limit_range",
    "check_namespace",
    "check_node",
    "check_pod_template",
    "check_priority_class",
    "check_quota",
    "check_secret",
    "check_service_account",
    "check_volume",
]

Document = dict[str, Any]

_LARGEST_DATA: Final = 1024 * 1024
_FIXED: Final = "field is immutable when `immutable` is set"
_MODES: Final = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_SECRET_KEYS: Final = {
    "kubernetes.io/dockercfg": ".dockercfg",
    "kubernetes.io/dockerconfigjson": ".dockerconfigjson",
    "kubernetes.io/ssh-auth": "ssh-privatekey",
}
_LARGEST_PRIORITY: Final = 1_000_000_000


def check_namespace(found: Findings, item: Document, old: Document | None) -> None:
    """A namespace: its finalizers."""
    for name in (item.get("spec") or {}).get("finalizers") or ():
        if "/" not in name and name != "kubernetes":
            said = "name is neither a standard finalizer name nor is it fully qualified"
            found.invalid("spec.finalizers", name, said)


def check_config_map(found: Findings, item: Document, old: Document | None) -> None:
    """A ConfigMap: keys, size, and that an immutable one stays."""
    data, binary = item.get("data") or {}, item.get("binaryData") or {}
    size = 0
    for key, value in data.items():
        found.each(f"data[{key}]", key, names.config_key(key))
        if key in binary:
            found.invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
        size += len(value.encode())
    for key, value in binary.items():
        found.each(f"binaryData[{key}]", key, names.config_key(key))
        size += _decoded_size(value)
    if size > _LARGEST_DATA:
        found.too_long("", _LARGEST_DATA)
    if old is not None and old.get("immutable"):
        if not item.get("immutable"):
            found.forbidden("immutable", _FIXED)
        for field in ("data", "binaryData"):
            if (item.get(field) or {}) != (old.get(field) or {}):
                found.forbidden(field, _FIXED)


def _decoded_size(text: str) -> int:
    return len(text) * 3 // 4 - text.count("=")


def check_secret(found: Findings, item: Document, old: Document | None) -> None:
    """A Secret: keys, size, what its type demands, and that an immutable one stays."""
    data, kind = item.get("data") or {}, item.get("type", "")
    size = 0
    for key, value in data.items():
        found.each(f"data[{key}]", key, names.config_key(key))
        size += _decoded_size(value)
    if size > _LARGEST_DATA:
        found.too_long("data", _LARGEST_DATA)
    _check_secret_type(found, item, data, kind)
    if old is None:
        return
    found.immutable("type", kind, old.get("type"))
    if old.get("immutable"):
        if not item.get("immutable"):
            found.forbidden("immutable", _FIXED)
        if data != (old.get("data") or {}):
            found.forbidden("data", _FIXED)


def _check_secret_type(found: Findings, item: Document, data: Document, kind: str) -> None:
    if kind == "kubernetes.io/service-account-token":
        annotations = item["metadata"].get("annotations") or {}
        if not annotations.get("kubernetes.io/service-account.name"):
            found.required("metadata.annotations[kubernetes.io/service-account.name]")
    elif kind == "kubernetes.io/basic-auth":
        if "username" not in data and "password" not in data:
            found.required("data[username]")
            found.required("data[password]")
    elif kind == "kubernetes.io/tls":
        for key in ("tls.crt", "tls.key"):
            if key not in data:
                found.required(f"data[{key}]")
    elif kind in _SECRET_KEYS:
        _check_secret_key(found, data, _SECRET_KEYS[kind])


def _check_secret_key(found: Findings, data: Document, key: str) -> None:
    if key not in data:
        found.required(f"data[{key}]")
    elif key != "ssh-privatekey":
        try:
            msgspec.json.decode(base64.b64decode(data[key]))
        except (msgspec.DecodeError, binascii.Error, UnicodeDecodeError) as error:
            found.invalid(f"data[{key}]", "<secret contents redacted>", str(error))


def check_service_account(found: Findings, item: Document, old: Document | None) -> None:
    """A ServiceAccount has nothing beside its metadata to check."""


def check_lease(found: Findings, item: Document, old: Document | None) -> None:
    """A Lease."""
    spec = item.get("spec") or {}
    seconds = spec.get("leaseDurationSeconds")
    if seconds is not None and seconds <= 0:
        found.invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0")
    transitions = spec.get("leaseTransitions")
    if transitions is not None and transitions < 0:
        said = "must be greater than or equal to 0"
        found.invalid("spec.leaseTransitions", transitions, said)


def check_event(found: Findings, item: Document, old: Document | None) -> None:
    """An Event of the core group: its namespace is that of the object."""
    namespace = item["metadata"].get("namespace", "")
    involved = (item.get("involvedObject") or {}).get("namespace", "")
    if not involved:
        if namespace not in ("", "default"):
            found.invalid("involvedObject.namespace", involved, "does not match event.namespace")
    elif involved != namespace:
        found.invalid("involvedObject.namespace", involved, "does not match event.namespace")


def check_priority_class(found: Findings, item: Document, old: Document | None) -> None:
    """A PriorityClass: its value and policy stay."""
    name, value = item["metadata"].get("name", ""), item.get("value", 0)
    if name.startswith("system-"):
        if name not in ("system-node-critical", "system-cluster-critical"):
            said = (
                "priority class names with 'system-' prefix are reserved for system use only. "
                "error: not a known system priority class"
            )
            found.forbidden("metadata.name", said)
    elif value > _LARGEST_PRIORITY:
        found.forbidden(
            "value", f"maximum allowed value of a user defined priority is {_LARGEST_PRIORITY}"
        )
    policy = item.get("preemptionPolicy")
    if policy is not None:
        found.one_of("preemptionPolicy", policy, ("PreemptLowerPriority", "Never"))
    if old is not None:
        if value != old.get("value", 0):
            found.forbidden("value", "may not be changed in an update.")
        if policy != old.get("preemptionPolicy"):
            found.invalid("preemptionPolicy", policy, "field is immutable")


def check_pod_template(found: Findings, item: Document, old: Document | None) -> None:
    """A PodTemplate."""
    check_template(found, item.get("template"), "template")


def check_binding(found: Findings, item: Document, old: Document | None) -> None:
    """A Binding of a pod to a node."""
    target = item.get("target") or {}
    if target.get("kind") not in (None, "", "Node"):
        found.unsupported("target.kind", target["kind"], ("Node", "<empty>"))
    if not target.get("name"):
        found.required("target.name")


def check_node(found: Findings, item: Document, old: Document | None) -> None:
    """A Node: taints, addresses of pods, and that its provider stays."""
    spec = item.get("spec") or {}
    known: set[tuple[str, str]] = set()
    for at, taint in enumerate(spec.get("taints") or ()):
        path, key, effect = f"spec.taints[{at}]", taint.get("key", ""), taint.get("effect", "")
        key_of(found, key, f"{path}.key")
        wrong = names.check_label_value(taint.get("value", ""))
        if wrong:
            found.invalid(f"{path}.value", taint.get("value", ""), ";".join(wrong))
        found.one_of(f"{path}.effect", effect, EFFECTS)
        if (key, effect) in known:
            found.duplicate(path, taint)
        known.add((key, effect))
    for at, text in enumerate(spec.get("podCIDRs") or ()):
        check_cidr(found, text, f"spec.podCIDRs[{at}]")
    if old is not None:
        before = old.get("spec") or {}
        for field, said in (
            ("podCIDRs", 'node updates may not change podCIDR except from "" to valid'),
            ("providerID", 'node updates may not change providerID except from "" to valid'),
        ):
            if before.get(field) and before[field] != spec.get(field):
                found.forbidden(f"spec.{field}", said)
    for name, amount in ((item.get("status") or {}).get("capacity") or {}).items():
        check_quantity(found, amount, f"status.capacity[{name}]")


# Storage


def check_volume(found: Findings, item: Document, old: Document | None) -> None:
    """A PersistentVolume."""
    spec = item.get("spec") or {}
    _check_modes(found, spec, "spec.accessModes")
    capacity = spec.get("capacity") or {}
    if not capacity:
        found.required("spec.capacity")
    elif "storage" not in capacity or len(capacity) > 1:
        found.unsupported("spec.capacity", sorted(capacity), ("storage",))
    for name, amount in capacity.items():
        check_quantity(found, amount, f"spec.capacity[{name}]", positive=True)
    policies = ("Delete", "Recycle", "Retain")
    policy = spec.get("persistentVolumeReclaimPolicy")
    if policy and policy not in policies:
        found.unsupported("spec.persistentVolumeReclaimPolicy", policy, policies)
    affinity = (spec.get("nodeAffinity") or {}).get("required")
    if affinity is not None:
        check_node_selector(found, affinity, "spec.nodeAffinity.required")
    given = [kind for kind in SOURCES if spec.get(kind) is not None]
    if not given:
        found.required("spec", "must specify a volume type")
    for kind in given[:1]:
        SOURCES[kind](found, spec[kind], f"spec.{kind}")
    for extra in given[1:]:
        found.forbidden(f"spec.{extra}", "may not specify more than 1 volume type")
    _check_volume_mode(found, spec)
    if old is not None:
        _check_source_stays(found, spec, old.get("spec") or {}, given)


def _check_source_stays(found: Findings, new: Document, old: Document, given: list[str]) -> None:
    before = {kind: old[kind] for kind in SOURCES if old.get(kind) is not None}
    if {kind: new[kind] for kind in given} != before:
        said = "spec.persistentvolumesource is immutable after creation"
        found.forbidden("spec.persistentvolumesource", said)
    if new.get("volumeMode") != old.get("volumeMode"):
        found.invalid("volumeMode", new.get("volumeMode"), "field is immutable")


def _check_modes(found: Findings, spec: Document, path: str) -> None:
    modes = spec.get("accessModes") or []
    if not modes:
        found.required(path, "at least 1 access mode is required")
    for mode in modes:
        if mode not in _MODES:
            found.unsupported(path, mode, _MODES)
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        said = "may not use ReadWriteOncePod with other access modes"
        found.forbidden(path, said)


def _check_volume_mode(found: Findings, spec: Document) -> None:
    mode = spec.get("volumeMode")
    if mode is not None and mode not in ("Block", "Filesystem"):
        found.unsupported("spec.volumeMode", mode, ("Block", "Filesystem"))


def check_claim(found: Findings, item: Document, old: Document | None) -> None:
    """A PersistentVolumeClaim; of its spec only the size may change."""
    spec = item.get("spec") or {}
    _check_modes(found, spec, "spec.accessModes")
    check_label_selector(found, spec.get("selector"), "spec.selector")
    requests = (spec.get("resources") or {}).get("requests") or {}
    if "storage" not in requests:
        found.required("spec.resources[storage]")
    else:
        check_quantity(found, requests["storage"], "spec.resources[storage]", positive=True)
    name = spec.get("storageClassName")
    if name:
        found.each("spec.storageClassName", name, names.check_subdomain(name))
    _check_volume_mode(found, spec)
    if old is not None:
        _check_claim_update(found, spec, old)


def _check_claim_update(found: Findings, new: Document, old: Document) -> None:
    known = old.get("spec") or {}
    munged = dict(new)
    if not known.get("volumeName") and "volumeName" in munged:
        munged.pop("volumeName")
        known = {key: value for key, value in known.items() if key != "volumeName"}
    if known.get("storageClassName") is None:
        munged.pop("storageClassName", None)
    bound = (old.get("status") or {}).get("phase") == "Bound"
    if bound and "resources" in known:
        munged["resources"] = known["resources"]
    if munged != known:
        said = (
            "spec is immutable after creation except resources.requests and "
            "volumeAttributesClassName for bound claims"
        )
        found.forbidden("spec", said)
    after = _storage(new)
    if after is not None and after < (_storage(known) or 0):
        said = "field can not be less than previous value"
        found.forbidden("spec.resources.requests.storage", said)


def _storage(spec: Document) -> int | None:
    said = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    return None if said is None else quantity.nano(said)


# Quotas


def check_quota(found: Findings, item: Document, old: Document | None) -> None:
    """A ResourceQuota; its scopes stay."""
    spec = item.get("spec") or {}
    for name, amount in (spec.get("hard") or {}).items():
        found.each("spec.hard", name, names.check_qualified_name(name))
        size = check_quantity(found, amount, f"spec.hard[{name}]")
        if _counted(name) and size % quantity.NANO:
            found.invalid(f"spec.hard[{name}]", amount, "must be an integer")
    if old is not None and set(spec.get("scopes") or ()) != set(
        (old.get("spec") or {}).get("scopes") or ()
    ):
        found.invalid("spec.scopes", spec.get("scopes") or [], "field is immutable")


def _counted(name: str) -> bool:
    return name.startswith("count/") or name in (
        *("pods", "services", "secrets", "configmaps", "replicationcontrollers"),
        *("resourcequotas", "persistentvolumeclaims", "services.nodeports"),
        "services.loadbalancers",
    )


def check_limit_range(found: Findings, item: Document, old: Document | None) -> None:
    """A LimitRange: limits that don't contradict each other."""
    known: set[str] = set()
    for at, limit in enumerate((item.get("spec") or {}).get("limits") or ()):
        path, kind = f"spec.limits[{at}]", limit.get("type", "")
        found.each(f"{path}.type", kind, names.check_qualified_name(kind))
        if kind in known:
            found.duplicate(f"{path}.type", kind)
        known.add(kind)
        if kind == "Pod":
            for field in ("default", "defaultRequest"):
                if limit.get(field):
                    said = "may not be specified when `type` is 'Pod'"
                    found.forbidden(f"{path}.{field}", said)
        if kind == "PersistentVolumeClaim" and not (
            "storage" in (limit.get("min") or {}) or "storage" in (limit.get("max") or {})
        ):
            said = "either minimum or maximum storage value is required, but neither was provided"
            found.required(path, said)
        _check_order(found, limit, path)


_ORDER: Final = (
    ("min", "max", "min"),
    ("defaultRequest", "max", "defaultRequest"),
    ("default", "max", "default"),
    ("min", "defaultRequest", "defaultRequest"),
    ("min", "default", "min"),
    ("defaultRequest", "default", "defaultRequest"),
)
_ORDER_SAID: Final = {
    "min": "min value",
    "max": "max value",
    "default": "default value",
    "defaultRequest": "default request value",
}


def _check_order(found: Findings, limit: Document, path: str) -> None:
    for low, high, field in _ORDER:
        lows, highs = limit.get(low) or {}, limit.get(high) or {}
        for name in lows.keys() & highs.keys():
            if quantity.nano(lows[name]) > quantity.nano(highs[name]):
                shown = (limit.get(field) or {})[name]
                said = (
                    f"{_ORDER_SAID[low]} {lows[name]} is greater than "
                    f"{_ORDER_SAID[high]} {highs[name]}"
                )
                found.invalid(f"{path}.{field}[{name}]", shown, said)
