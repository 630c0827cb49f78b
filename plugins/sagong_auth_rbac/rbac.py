"""Who is granted which rules: bindings as upstream evaluates them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec

from sagong.contracts.auth import Decision, Question
from sagong.model.rbac import Meta, Role, Rule, rules_of

__all__ = ["Binding", "Policy", "Subject", "decide", "rules_for"]


class Subject(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """Whom a binding names."""

    kind: str
    name: str
    namespace: str = ""


class RoleRef(msgspec.Struct, frozen=True, kw_only=True):
    """What a binding grants."""

    kind: str
    name: str


class Binding(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """A RoleBinding or ClusterRoleBinding."""

    metadata: Meta
    role_ref: RoleRef
    subjects: tuple[Subject, ...] | None = ()


Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Policy:
    """All roles and bindings by namespace and name; those of the cluster have namespace ""."""

    cluster_roles: Mapping[Key, Role]
    roles: Mapping[Key, Role]
    cluster_bindings: Mapping[Key, Binding]
    bindings: Mapping[Key, Binding]


def decide(policy: Policy, question: Question) -> Decision:
    """Whether any binding of the user grants it, and which."""
    if "system:masters" in question.groups:
        return Decision(allowed=True, reason="member of system:masters")
    for binding, rule in _granted(policy, question):
        if _allows(rule, question):
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


def _allows(rule: Rule, question: Question) -> bool:
    if question.path:
        return rule.allows_path(question.verb, question.path)
    resource, subresource = question.resource, question.subresource
    part = f"{resource}/{subresource}" if subresource else resource
    return rule.allows(question.verb, question.group, part, question.name)


def _granted(policy: Policy, question: Question) -> Iterator[tuple[Binding, Rule]]:
    for binding in _bindings(policy, question):
        for rule in _rules(policy, binding):
            yield binding, rule


def _bindings(policy: Policy, question: Question) -> Iterator[Binding]:
    """Those that name the user: of the cluster, and of the namespace that the question is about."""
    for binding in policy.cluster_bindings.values():
        if any(_is(subject, question, "") for subject in binding.subjects or ()):
            yield binding
    if question.path:
        return
    for (namespace, _), binding in policy.bindings.items():
        if namespace == question.namespace and any(
            _is(subject, question, namespace) for subject in binding.subjects or ()
        ):
            yield binding


def _rules(policy: Policy, binding: Binding) -> Iterator[Rule]:
    namespace, name = binding.metadata.namespace, binding.role_ref.name
    if binding.role_ref.kind == "ClusterRole":
        role = policy.cluster_roles.get(("", name))
    else:
        role = policy.roles.get((namespace, name))
    return iter(()) if role is None else rules_of(role, policy.cluster_roles)


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
