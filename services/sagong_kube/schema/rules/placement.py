"""Checks of what decides on a pod's node: affinity, tolerations, spreading, gates."""

from __future__ import annotations

from typing import Any, Final

from sagong.model import names
from sagong_kube.schema.rules.findings import Findings
from sagong_kube.schema.rules.metadata import check_label_selector

__all__ = [
    "check_affinity",
    "check_node_selector",
    "check_spreading",
    "check_tolerations",
    "key_of",
]

Document = dict[str, Any]

EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"
_LISTS: Final = ("In", "NotIn")
_BARE: Final = ("Exists", "DoesNotExist")
_NUMBERS: Final = ("Gt", "Lt")


def check_affinity(found: Findings, affinity: Document, path: str) -> None:
    """Node affinity, pod affinity and anti-affinity."""
    node = affinity.get("nodeAffinity") or {}
    if node.get(_REQUIRED) is not None:
        check_node_selector(found, node[_REQUIRED], f"{path}.nodeAffinity.{_REQUIRED}")
    for at, term in enumerate(node.get(_PREFERRED) or ()):
        where = f"{path}.nodeAffinity.{_PREFERRED}[{at}]"
        _check_weight(found, term, where)
        _check_node_term(found, term.get("preference") or {}, f"{where}.preference")
    for kind in ("podAffinity", "podAntiAffinity"):
        _check_pod_affinity(found, affinity.get(kind) or {}, f"{path}.{kind}")


def _check_weight(found: Findings, term: Document, path: str) -> None:
    weight = term.get("weight", 0)
    if not 0 < weight <= 100:
        found.invalid(f"{path}.weight", weight, "must be in the range 1-100")


def check_node_selector(found: Findings, selector: Document, path: str) -> None:
    """A selector of nodes: at least one term."""
    terms = selector.get("nodeSelectorTerms") or []
    if not terms:
        found.required(f"{path}.nodeSelectorTerms", "must have at least one node selector term")
    for at, term in enumerate(terms):
        _check_node_term(found, term, f"{path}.nodeSelectorTerms[{at}]")


def _check_node_term(found: Findings, term: Document, path: str) -> None:
    for at, need in enumerate(term.get("matchExpressions") or ()):
        _check_need(found, need, f"{path}.matchExpressions[{at}]")
    for at, need in enumerate(term.get("matchFields") or ()):
        where = f"{path}.matchFields[{at}]"
        if need.get("operator") not in _LISTS:
            found.invalid(
                f"{where}.operator", need.get("operator", ""), "not a valid selector operator"
            )
        elif len(need.get("values") or ()) != 1:
            said = (
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            )
            found.required(f"{where}.values", said)
        if need.get("key") != "metadata.name":
            said = "not a valid field selector key"
            found.invalid(f"{where}.key", need.get("key", ""), said)


def _check_need(found: Findings, need: Document, path: str) -> None:
    operator, values = need.get("operator", ""), need.get("values") or []
    if operator in _LISTS:
        if not values:
            said = "must be specified when `operator` is 'In' or 'NotIn'"
            found.required(f"{path}.values", said)
    elif operator in _BARE:
        if values:
            said = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            found.forbidden(f"{path}.values", said)
    elif operator in _NUMBERS:
        if len(values) != 1:
            said = "must be specified single value when `operator` is 'Lt' or 'Gt'"
            found.required(f"{path}.values", said)
    else:
        found.invalid(f"{path}.operator", operator, "not a valid selector operator")
    key_of(found, need.get("key", ""), f"{path}.key")
    for at, value in enumerate(values):
        found.each(f"{path}.values[{at}]", value, names.check_label_value(value))


def key_of(found: Findings, key: str, path: str) -> None:
    """A label's key."""
    found.each(path, key, names.check_qualified_name(key))


def _check_pod_affinity(found: Findings, affinity: Document, path: str) -> None:
    for at, term in enumerate(affinity.get(_REQUIRED) or ()):
        _check_pod_term(found, term, f"{path}.{_REQUIRED}[{at}]")
    for at, weighted in enumerate(affinity.get(_PREFERRED) or ()):
        where = f"{path}.{_PREFERRED}[{at}]"
        _check_weight(found, weighted, where)
        _check_pod_term(found, weighted.get("podAffinityTerm") or {}, f"{where}.podAffinityTerm")


def _check_pod_term(found: Findings, term: Document, path: str) -> None:
    check_label_selector(found, term.get("labelSelector"), f"{path}.labelSelector")
    check_label_selector(found, term.get("namespaceSelector"), f"{path}.namespaceSelector")
    for namespace in term.get("namespaces") or ():
        found.each(f"{path}.namespace", namespace, names.check_dns_label(namespace))
    if not term.get("topologyKey"):
        found.required(f"{path}.topologyKey", "can not be empty")
    key_of(found, term.get("topologyKey", ""), f"{path}.topologyKey")


def check_tolerations(found: Findings, tolerations: list[Document], path: str) -> None:
    """Tolerations of taints."""
    for at, toleration in enumerate(tolerations):
        where = f"{path}[{at}]"
        key, operator = toleration.get("key", ""), toleration.get("operator", "")
        value, effect = toleration.get("value", ""), toleration.get("effect", "")
        if key:
            key_of(found, key, f"{where}.key")
        elif operator != "Exists":
            said = (
                "operator must be Exists when `key` is empty, which means "
                '"match all values and all keys"'
            )
            found.invalid(f"{where}.operator", operator, said)
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            said = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            found.invalid(f"{where}.effect", effect, said)
        if operator in ("", "Equal"):
            wrong = names.check_label_value(value)
            found.each(f"{where}.operator", value, [";".join(wrong)] if wrong else [])
        elif operator == "Exists":
            if value:
                said = "value must be empty when `operator` is 'Exists'"
                found.invalid(f"{where}.operator", value, said)
        else:
            found.unsupported(f"{where}.operator", operator, ("Equal", "Exists"))
        if effect and effect not in EFFECTS:
            found.unsupported(f"{where}.effect", effect, EFFECTS)


def check_spreading(found: Findings, constraints: list[Document], path: str) -> None:
    """Topology spread constraints."""
    known: set[tuple[str, str]] = set()
    for at, constraint in enumerate(constraints):
        where = f"{path}[{at}]"
        skew = constraint.get("maxSkew", 0)
        if skew <= 0:
            found.invalid(f"{where}.maxSkew", skew, "must be greater than zero")
        key, when = constraint.get("topologyKey", ""), constraint.get("whenUnsatisfiable", "")
        if not key:
            found.required(f"{where}.topologyKey", "can not be empty")
        else:
            key_of(found, key, f"{where}.topologyKey")
        if when not in ("DoNotSchedule", "ScheduleAnyway"):
            supported = ("DoNotSchedule", "ScheduleAnyway")
            found.unsupported(f"{where}.whenUnsatisfiable", when, supported)
        if (key, when) in known:
            found.duplicate(f"{where}.{{topologyKey, whenUnsatisfiable}}", f"{{{key}, {when}}}")
        known.add((key, when))
        _check_domains(found, constraint, when, where)
        check_label_selector(found, constraint.get("labelSelector"), f"{where}.labelSelector")


def _check_domains(found: Findings, constraint: Document, when: str, path: str) -> None:
    least = constraint.get("minDomains")
    if least is not None:
        if least <= 0:
            found.invalid(f"{path}.minDomains", least, "must be greater than zero")
        if when != "DoNotSchedule":
            said = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}"
            found.invalid(f"{path}.minDomains", least, said)
    for field in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
        policy = constraint.get(field)
        if policy is not None and policy not in ("Honor", "Ignore"):
            found.unsupported(f"{path}.{field}", policy, ("Honor", "Ignore"))
