"""Role-based access control as upstream evaluates it (rbac.authorization.k8s.io/v1). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from sagong.contracts.auth import Decision, Question

__all__ = ["Binding", "Policy", "Role", "Rule", "Subject", "allows", "decide", "rules_for"]


class Rule(msgspec.Struct, rename="camel", frozen=True, kw_only=True, omit_defaults=True):
    """A PolicyRule."""

    verbs: tuple[str, ...] = ()
    api_groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    resource_names: tuple[str, ...] = ()
    non_resource_urls: tuple[str, ...] = msgspec.field(name="nonResourceURLs", default=())


class Subject(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """Whom a binding names."""

    kind: str
    name: str
    namespace: str = ""


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """The part of metadata that matters."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] = {}


class Requirement(msgspec.Struct, frozen=True, kw_only=True):
    """A label selector's expression."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class Selector(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """A label selector of an aggregation rule."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[Requirement, ...] = ()


class Aggregation(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """Which ClusterRoles are put together into this one."""

    cluster_role_selectors: tuple[Selector, ...] = ()


class Role(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """A Role or ClusterRole."""

    metadata: Meta
    rules: tuple[Rule, ...] | None = ()
    aggregation_rule: Aggregation | None = None


class RoleRef(msgspec.Struct, frozen=True, kw_only=True):
    """What a binding grants."""

    kind: str
    name: str


class Binding(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """A RoleBinding or ClusterRoleBinding."""

    metadata: Meta
    role_ref: RoleRef
    subjects: tuple[Subject, ...] | None = ()


@dataclass
class Policy:
    """All roles and bindings by (namespace, name); cluster-wide ones have namespace ""."""

    roles: dict[tuple[str, str], Role] = field(default_factory=dict)
    bindings: dict[tuple[str, str], Binding] = field(default_factory=dict)


def decide(policy: Policy, question: Question) -> Decision:
    """Whether any binding of the user grants it, and which."""
    if "system:masters" in question.groups:
        return Decision(allowed=True, reason="member of system:masters")
    for binding, rule in _granted(policy, question):
        if allows(rule, question):
            kind = "RoleBinding" if binding.metadata.namespace else "ClusterRoleBinding"
            name = binding.metadata.name
            where = binding.metadata.namespace
            shown = f'{kind} "{name}/{where}"' if where else f'{kind} "{name}"'
            role = f'{binding.role_ref.kind} "{binding.role_ref.name}"'
            return Decision(allowed=True, reason=f"RBAC: allowed by {shown} of {role}")
    return Decision(allowed=False, reason="")


def rules_for(policy: Policy, question: Question) -> list[Rule]:
    """All rules that the user has in the question's namespace."""
    if "system:masters" in question.groups:
        everything = ("*",)
        return [
            Rule(verbs=everything, api_groups=everything, resources=everything),
            Rule(verbs=everything, non_resource_urls=everything),
        ]
    return [rule for _, rule in _granted(policy, question)]


def allows(rule: Rule, question: Question) -> bool:
    """Whether one rule allows what is asked."""
    if not _has(rule.verbs, question.verb):
        return False
    if question.path:
        return any(_path_matches(pattern, question.path) for pattern in rule.non_resource_urls)
    if not _has(rule.api_groups, question.group):
        return False
    if not _resource_matches(rule.resources, question.resource, question.subresource):
        return False
    return not rule.resource_names or question.name in rule.resource_names


def _granted(policy: Policy, question: Question) -> Iterator[tuple[Binding, Rule]]:
    for (namespace, _), binding in policy.bindings.items():
        if namespace and (namespace != question.namespace or question.path):
            continue
        if not any(_is(subject, question, namespace) for subject in binding.subjects or ()):
            continue
        kind = binding.role_ref.kind
        role = policy.roles.get((namespace if kind == "Role" else "", binding.role_ref.name))
        if role is not None:
            for rule in _rules(policy, role):
                yield binding, rule


def _rules(policy: Policy, role: Role) -> Iterable[Rule]:
    yield from role.rules or ()
    if role.aggregation_rule is None:
        return
    for (namespace, _), other in policy.roles.items():
        if namespace or other is role:
            continue
        selectors = role.aggregation_rule.cluster_role_selectors
        if any(_selects(selector, other.metadata.labels) for selector in selectors):
            yield from other.rules or ()


def _selects(selector: Selector, labels: dict[str, str]) -> bool:
    if any(labels.get(key) != value for key, value in selector.match_labels.items()):
        return False
    return all(_holds(requirement, labels) for requirement in selector.match_expressions)


def _holds(requirement: Requirement, labels: dict[str, str]) -> bool:
    present = requirement.key in labels
    match requirement.operator:
        case "In":
            return present and labels[requirement.key] in requirement.values
        case "NotIn":
            return not present or labels[requirement.key] not in requirement.values
        case "Exists":
            return present
        case "DoesNotExist":
            return not present
    return False


def _is(subject: Subject, question: Question, binding_namespace: str) -> bool:
    match subject.kind:
        case "User":
            return subject.name == question.username
        case "Group":
            return subject.name in question.groups
        case "ServiceAccount":
            namespace = subject.namespace or binding_namespace
            return question.username == f"system:serviceaccount:{namespace}:{subject.name}"
    return False


def _has(values: tuple[str, ...], value: str) -> bool:
    return value in values or "*" in values


def _resource_matches(values: tuple[str, ...], resource: str, subresource: str) -> bool:
    full = f"{resource}/{subresource}" if subresource else resource
    if "*" in values or full in values:
        return True
    return bool(subresource) and f"*/{subresource}" in values


def _path_matches(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern[:-1]))
