"""Reviews: resources that answer questions about users, tokens and rights, and keep nothing."""

from __future__ import annotations

from typing import Any

import msgspec

from sagong.contracts.auth import Auth, Credential, Question
from sagong.errors import Unauthenticated
from sagong_kube import refusal
from sagong_kube.handlers.body import check_kind, read_document
from sagong_kube.handlers.exchange import Answer, Ask, Reply
from sagong_kube.handlers.gate import Gate
from sagong_kube.handlers.negotiation import negotiate
from sagong_kube.handlers.parameters import write_options
from sagong_kube.handlers.rendering import document_answer
from sagong_kube.refusal import Cause
from sagong_kube.registry import document as documents
from sagong_kube.registry.builtin import BuiltinShapes
from sagong_kube.registry.document import Document
from sagong_kube.registry.resource import Resource

__all__ = ["Reviews"]


class Reviews:
    """Handlers of authentication.k8s.io and authorization.k8s.io."""

    def __init__(self, gate: Gate, auth: Auth) -> None:
        self._gate = gate
        self._auth = auth

    def _read(self, ask: Ask, resource: Resource) -> Document:
        document, body = read_document(ask)
        check_kind(document, resource.kind)
        BuiltinShapes.read(resource.kind, document, body, write_options(ask).validation)
        metadata = document.setdefault("metadata", {}) or {}
        document["metadata"] = {"creationTimestamp": None, **metadata}
        return document

    def _answer(self, ask: Ask, document: Document) -> Answer:
        form = negotiate(ask.headers.get("accept", ""), listed=False, transforms=False)
        return document_answer(form, document, 201)

    async def who_am_i(self, ask: Ask, resource: Resource) -> Reply:
        """SelfSubjectReview."""
        document = self._read(ask, resource)
        document["metadata"]["creationTimestamp"] = documents.now()
        document["status"] = {"userInfo": _user(ask)}
        return self._answer(ask, document)

    async def token(self, ask: Ask, resource: Resource) -> Reply:
        """TokenReview."""
        document = self._read(ask, resource)
        spec = document.get("spec") or {}
        if not spec.get("token"):
            raise refusal.bad_request("token is required for TokenReview in authentication")
        audiences = tuple(spec.get("audiences") or ())
        try:
            found = await self._auth.authenticate(
                Credential(bearer=spec["token"], audiences=audiences)
            )
        except Unauthenticated as error:
            document["status"] = {"user": {}, "error": error.message}
            return self._answer(ask, document)
        user: Document = {"username": found.username}
        if found.uid:
            user["uid"] = found.uid
        if found.groups:
            user["groups"] = list(found.groups)
        if found.extra:
            user["extra"] = {key: list(values) for key, values in found.extra}
        status: Document = {"authenticated": True, "user": user}
        if found.audiences:
            status["audiences"] = list(found.audiences)
        document["status"] = status
        return self._answer(ask, document)

    async def self_access(self, ask: Ask, resource: Resource) -> Reply:
        """SelfSubjectAccessReview."""
        document = self._read(ask, resource)
        actor = ask.actor
        asked = _question(document.get("spec") or {}, actor.username, actor.groups, "")
        return await self._decide(ask, document, asked)

    async def access(self, ask: Ask, resource: Resource) -> Reply:
        """SubjectAccessReview and LocalSubjectAccessReview."""
        document = self._read(ask, resource)
        spec = document.get("spec") or {}
        if not spec.get("user") and not spec.get("groups"):
            causes = [
                Cause(
                    "FieldValueInvalid",
                    'Invalid value: "": at least one of user or group must be specified',
                    "spec.user",
                )
            ]
            raise refusal.invalid(resource.kind.kind, resource.group, "", causes)
        namespace = ask.target.namespace
        attributes = spec.get("resourceAttributes") or {}
        if namespace and attributes.get("namespace", namespace) != namespace:
            raise refusal.bad_request(
                f"spec.resourceAttributes.namespace must match namespace: {namespace}"
            )
        groups = tuple(spec.get("groups") or ())
        asked = _question(spec, spec.get("user") or "", groups, namespace)
        return await self._decide(ask, document, asked)

    async def _decide(self, ask: Ask, document: Document, asked: Question) -> Answer:
        decision = await self._gate.decide(asked)
        status: Document = {"allowed": decision.allowed}
        if decision.reason:
            status["reason"] = decision.reason
        document["status"] = status
        return self._answer(ask, document)

    async def rules(self, ask: Ask, resource: Resource) -> Reply:
        """SelfSubjectRulesReview."""
        document = self._read(ask, resource)
        namespace = (document.get("spec") or {}).get("namespace") or ""
        if not namespace:
            raise refusal.bad_request("no namespace on request")
        actor = ask.actor
        found = await self._auth.rules(
            Question(username=actor.username, groups=actor.groups, verb="*", namespace=namespace)
        )
        rules = [msgspec.json.decode(rule) for rule in found.rules]
        document["status"] = {
            "resourceRules": [_resource_rule(r) for r in rules if not r.get("nonResourceURLs")],
            "nonResourceRules": [
                {"verbs": r.get("verbs") or [], "nonResourceURLs": r["nonResourceURLs"]}
                for r in rules
                if r.get("nonResourceURLs")
            ],
            "incomplete": False,
        }
        return self._answer(ask, document)


def _resource_rule(rule: Document) -> Document:
    kept = ("verbs", "apiGroups", "resources", "resourceNames")
    return {key: rule[key] for key in kept if rule.get(key)}


def _user(ask: Ask) -> Document:
    actor = ask.actor
    user: Document = {"username": actor.username, "groups": list(actor.groups)}
    if actor.uid:
        user["uid"] = actor.uid
    if actor.extra:
        user["extra"] = {key: list(values) for key, values in actor.extra}
    return user


def _question(
    spec: dict[str, Any], username: str, groups: tuple[str, ...], namespace: str
) -> Question:
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if (resource is None) == (path is None):
        raise refusal.bad_request(
            "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        )
    if path is not None:
        return Question(
            username=username,
            groups=groups,
            verb=path.get("verb") or "",
            path=path.get("path") or "",
        )
    assert resource is not None
    return Question(
        username=username,
        groups=groups,
        verb=resource.get("verb") or "",
        group=resource.get("group") or "",
        resource=resource.get("resource") or "",
        subresource=resource.get("subresource") or "",
        namespace=resource.get("namespace") or namespace,
        name=resource.get("name") or "",
    )
