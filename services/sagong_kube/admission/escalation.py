"""Nobody hands out rights that he does not have himself: who may write roles, and make bindings.

Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/, privilege escalation prevention.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from sagong.contracts.auth import Auth, Question
from sagong.model.rbac import Role, Rule, missing, rules_of
from sagong_kube import refusal
from sagong_kube.registry.review import CREATE, UPDATE, Review
from sagong_kube.storage.collection import Selection

__all__ = ["Escalation"]

_GROUP = "rbac.authorization.k8s.io"
_ROLES = (f"{_GROUP}/roles", f"{_GROUP}/clusterroles")
_BINDINGS = (f"{_GROUP}/rolebindings", f"{_GROUP}/clusterrolebindings")
_CLUSTER_ROLES = f"{_GROUP}/clusterroles"
_MASTERS = "system:masters"
# An aggregation gathers whatever others will label so: only who may do everything can promise that.
_EVERYTHING = (
    Rule(verbs=("*",), api_groups=("*",), resources=("*",)),
    Rule(verbs=("*",), non_resource_urls=("*",)),
)


class Escalation:
    """Further admission: asks slot `auth` what the writer has himself."""

    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    async def mutate(self, review: Review) -> None:
        """Nothing."""

    async def validate(self, review: Review) -> None:
        """Refuse roles and bindings that grant more than their writer has."""
        if review.operation not in (CREATE, UPDATE) or review.new is None or review.subresource:
            return
        if _MASTERS in review.actor.groups:
            return
        if review.storage in _ROLES:
            if not await self._may(review, "escalate", review.resource.plural, review.name):
                await self._confirm(review, _written(review.new))
        elif review.storage in _BINDINGS:
            plural, name = _referred(review.new)
            if not await self._may(review, "bind", plural, name):
                await self._confirm(review, _bound(review, plural, name))

    async def _may(self, review: Review, verb: str, plural: str, name: str) -> bool:
        question = _question(review, verb, group=_GROUP, resource=plural, name=name)
        return (await self._auth.authorize(question)).allowed

    async def _confirm(self, review: Review, wanted: Iterable[Rule]) -> None:
        found = await self._auth.rules(_question(review, "*"))
        held = [msgspec.json.decode(rule, type=Rule) for rule in found.rules]
        beyond = missing(held, wanted)
        if beyond:
            who = f'user "{review.actor.username}" (groups={_list(review.actor.groups)})'
            why = f"{who} is attempting to grant RBAC permissions not currently held:\n"
            why += "\n".join(map(_shown, beyond))
            resource = review.resource
            raise refusal.forbidden(resource.plural, resource.group, review.name, why)


def _question(review: Review, verb: str, **asked: Any) -> Question:
    actor = review.actor
    return Question(
        username=actor.username,
        groups=actor.groups,
        verb=verb,
        namespace=review.namespace,
        **asked,
    )


def _written(role: dict[str, Any]) -> tuple[Rule, ...]:
    if role.get("aggregationRule"):
        return _EVERYTHING
    return msgspec.convert(role.get("rules") or (), tuple[Rule, ...])


def _referred(binding: dict[str, Any]) -> tuple[str, str]:
    """Plural and name of the role that a binding grants."""
    reference = binding["roleRef"]
    plural = "clusterroles" if reference["kind"] == "ClusterRole" else "roles"
    return plural, reference["name"]


def _bound(review: Review, plural: str, name: str) -> Iterable[Rule]:
    key = name if plural == "clusterroles" else f"{review.namespace}/{name}"
    record = review.view.record(f"{_GROUP}/{plural}", key)
    if record is None:
        raise refusal.not_found(plural, _GROUP, name)
    role = msgspec.json.decode(record.body, type=Role)
    if role.aggregation_rule is None:
        return rules_of(role, {})
    return rules_of(role, _cluster_roles(review))


def _cluster_roles(review: Review) -> dict[tuple[str, str], Role]:
    records = review.view.select(_CLUSTER_ROLES, Selection())
    return {("", r.name): msgspec.json.decode(r.body, type=Role) for r in records}


def _shown(rule: Rule) -> str:
    """As upstream writes a rule: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`."""
    parts = (
        ("NonResourceURLs", rule.non_resource_urls),
        ("APIGroups", rule.api_groups),
        ("Resources", rule.resources),
        ("ResourceNames", rule.resource_names),
        ("Verbs", rule.verbs),
    )
    return "{" + ", ".join(f"{title}:{_list(values)}" for title, values in parts if values) + "}"


def _list(values: tuple[str, ...]) -> str:
    return "[" + " ".join(f'"{value}"' for value in values) + "]"
