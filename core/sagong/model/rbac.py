"""Role-based access control: roles, what they are put together of, and whether rules cover others.

Pure. Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from sagong.model.selectors import from_object

__all__ = ["Aggregation", "Meta", "Role", "Rule", "missing", "rules_of"]

Key = tuple[str, str]


class Rule(msgspec.Struct, rename="camel", frozen=True, kw_only=True, omit_defaults=True):
    """A PolicyRule."""

    verbs: tuple[str, ...] = ()
    api_groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    resource_names: tuple[str, ...] = ()
    non_resource_urls: tuple[str, ...] = msgspec.field(name="nonResourceURLs", default=())

    def allows(self, verb: str, group: str, part: str, name: str) -> bool:
        """Whether it allows a verb on a resource, or on one of its parts (`pods/log`)."""
        return (
            _has(self.verbs, verb)
            and _has(self.api_groups, group)
            and _has_part(self.resources, part)
            and (not self.resource_names or name in self.resource_names)
        )

    def allows_path(self, verb: str, path: str) -> bool:
        """Whether it allows a verb on a path that is no resource's."""
        return _has(self.verbs, verb) and any(_begins(p, path) for p in self.non_resource_urls)


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """The part of metadata that matters."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] = {}


class Aggregation(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """Label selectors of the cluster roles that are put together into this one."""

    cluster_role_selectors: tuple[dict[str, Any], ...] = ()


class Role(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """A Role or ClusterRole."""

    metadata: Meta
    rules: tuple[Rule, ...] | None = ()
    aggregation_rule: Aggregation | None = None


def rules_of(role: Role, cluster_roles: Mapping[Key, Role]) -> Iterator[Rule]:
    """A role's own rules, and those of the roles that it is put together of, which may be so too."""
    return _joined(role, cluster_roles, frozenset())


def _joined(
    role: Role, cluster_roles: Mapping[Key, Role], within: frozenset[str]
) -> Iterator[Rule]:
    yield from role.rules or ()
    if role.aggregation_rule is None:
        return
    within |= {role.metadata.name}
    selectors = [from_object(one) for one in role.aggregation_rule.cluster_role_selectors]
    for other in cluster_roles.values():
        labels = other.metadata.labels
        if other.metadata.name not in within and any(s.matches(labels) for s in selectors):
            yield from _joined(other, cluster_roles, within)


def missing(held: Sequence[Rule], wanted: Iterable[Rule]) -> list[Rule]:
    """What of `wanted` the `held` rules don't grant: rules of one verb on one thing each."""
    return [
        single
        for rule in wanted
        for single in _singles(rule)
        if not any(_covers(one, single) for one in held)
    ]


def _singles(rule: Rule) -> Iterator[Rule]:
    names: tuple[tuple[str, ...], ...] = tuple((n,) for n in rule.resource_names) or ((),)
    for group, resource, verb, named in itertools.product(
        rule.api_groups, rule.resources, rule.verbs, names
    ):
        yield Rule(api_groups=(group,), resources=(resource,), verbs=(verb,), resource_names=named)
    for path, verb in itertools.product(rule.non_resource_urls, rule.verbs):
        yield Rule(non_resource_urls=(path,), verbs=(verb,))


def _covers(held: Rule, single: Rule) -> bool:
    (verb,) = single.verbs
    if single.non_resource_urls:
        return held.allows_path(verb, single.non_resource_urls[0])
    # Who asks for all names asks for none in particular, and no rule about names allows that.
    name = single.resource_names[0] if single.resource_names else ""
    return held.allows(verb, single.api_groups[0], single.resources[0], name)


def _has(values: tuple[str, ...], value: str) -> bool:
    return value in values or "*" in values


def _has_part(values: tuple[str, ...], part: str) -> bool:
    _, slash, subresource = part.partition("/")
    return _has(values, part) or (bool(slash) and f"*/{subresource}" in values)


def _begins(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern[:-1]))
