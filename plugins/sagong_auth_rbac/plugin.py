"""The plugin: its keys, the policy it follows, and the answers."""

from __future__ import annotations

import asyncio
import time
from typing import Any, TypeVar

import msgspec

from sagong.contracts.auth import (
    Authority,
    Certificate,
    CertificateRequest,
    Credential,
    Decision,
    Identity,
    KeySet,
    PolicyChanged,
    Question,
    RuleSet,
    Token,
    TokenRequest,
)
from sagong.contracts.objects import GetRequest, Objects
from sagong.errors import NotFound, Unauthenticated, Unavailable
from sagong.following import Kept
from sagong.host import Host
from sagong.model.rbac import Meta, Role
from sagong_auth_rbac.authority import CertificateAuthority
from sagong_auth_rbac.rbac import Binding, Policy, decide, rules_for
from sagong_auth_rbac.tokens import TokenAuthority, account_of

__all__ = ["AuthRbac", "Settings"]

_GROUP = "rbac.authorization.k8s.io/v1"
_CHECKED_SECONDS = 10.0
_SYNC_SECONDS = 20.0

T = TypeVar("T")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`issuer` of tokens; `audiences` that are the API server's own."""

    issuer: str = "https://kubernetes.default.svc.cluster.local"
    audiences: tuple[str, ...] = ("https://kubernetes.default.svc.cluster.local",)


class _Named(msgspec.Struct):
    metadata: Meta


class AuthRbac:
    """Fills slot `auth`."""

    def __init__(self, host: Host) -> None:
        settings = host.config(Settings)
        self._host = host
        self._objects = host.use(Objects)
        self._certificates = CertificateAuthority(host.data)
        self._tokens = TokenAuthority(host.data, settings.issuer, settings.audiences)
        self._cluster_roles = self._followed(f"{_GROUP}/clusterroles", Role)
        self._roles = self._followed(f"{_GROUP}/roles", Role)
        self._cluster_bindings = self._followed(f"{_GROUP}/clusterrolebindings", Binding)
        self._bindings = self._followed(f"{_GROUP}/rolebindings", Binding)
        self._accounts = self._followed("v1/serviceaccounts", _Named)
        self._checked: dict[tuple[str, str, str], float] = {}

    async def start(self) -> None:
        """Follow roles, bindings and accounts; until they are read only masters may anything."""
        for kept in self._all:
            self._host.spawn(kept.run(self._host.log), f"watch {kept.resource}")

    async def authenticate(self, credential: Credential) -> Identity:
        """Who shows this."""
        if credential.bearer:
            found = await self._by_token(credential)
        elif credential.certificate:
            found = self._certificates.identify(credential.certificate)
        else:
            raise Unauthenticated("no credentials: show a client certificate or a bearer token")
        groups = dict.fromkeys((*found.groups, "system:authenticated"))
        return msgspec.structs.replace(found, groups=tuple(groups))

    async def authorize(self, question: Question) -> Decision:
        """May it; a no is said only when the whole policy is known."""
        decision = decide(self._policy, question)
        if decision.allowed or all(kept.synced.is_set() for kept in self._all):
            return decision
        for kept in self._all:
            await _wait_synced(kept)
        return decide(self._policy, question)

    async def rules(self, question: Question) -> RuleSet:
        """All that the user may."""
        for kept in self._all:
            await _wait_synced(kept)
        found = rules_for(self._policy, question)
        return RuleSet(rules=tuple(msgspec.json.encode(rule) for rule in found))

    def issue_token(self, request: TokenRequest) -> Token:
        """Sign a service-account token."""
        return self._tokens.issue(request)

    def issue_certificate(self, request: CertificateRequest) -> Certificate:
        """Sign a certificate."""
        return self._certificates.issue(request)

    def authority(self) -> Authority:
        """The authority's certificate."""
        return Authority(certificate=self._certificates.pem)

    def keys(self) -> KeySet:
        """Keys that verify tokens."""
        return self._tokens.keys()

    async def _by_token(self, credential: Credential) -> Identity:
        identity, bound = self._tokens.identify(credential.bearer, credential.audiences)
        namespace, name, uid = account_of(bound)
        await _wait_synced(self._accounts)
        known = self._accounts.items.get((namespace, name))
        if known is None or known.metadata.uid != uid:
            raise Unauthenticated(f"service account {namespace}/{name} has been deleted")
        for kind in ("pod", "secret"):
            if kind in bound:
                await self._check_bound(kind, namespace, bound[kind])
        return identity

    async def _check_bound(self, kind: str, namespace: str, named: dict[str, Any]) -> None:
        """A bound token ends with its pod; that it lives is believed for ten seconds."""
        key = (kind, namespace, str(named.get("uid")))
        now = time.monotonic()
        if now - self._checked.get(key, -_CHECKED_SECONDS) < _CHECKED_SECONDS:
            return
        request = GetRequest(resource=f"v1/{kind}s", namespace=namespace, name=named["name"])
        try:
            found = await self._objects.get(request)
        except NotFound:
            raise Unauthenticated(f"the token's {kind} {named['name']} is gone") from None
        if msgspec.json.decode(found.body, type=_Named).metadata.uid != named.get("uid"):
            raise Unauthenticated(f"the token's {kind} {named['name']} has been replaced")
        if len(self._checked) > 10_000:
            self._checked.clear()
        self._checked[key] = now

    def _followed(self, resource: str, kind: type[T]) -> Kept[T]:
        return Kept(self._objects, resource, kind, lambda: self._host.emit(PolicyChanged()))

    @property
    def _all(self) -> tuple[Kept[Any], ...]:
        return (
            self._cluster_roles,
            self._roles,
            self._cluster_bindings,
            self._bindings,
            self._accounts,
        )

    @property
    def _policy(self) -> Policy:
        return Policy(
            cluster_roles=self._cluster_roles.items,
            roles=self._roles.items,
            cluster_bindings=self._cluster_bindings.items,
            bindings=self._bindings.items,
        )


async def _wait_synced(kept: Kept[Any]) -> None:
    try:
        async with asyncio.timeout(_SYNC_SECONDS):
            await kept.synced.wait()
    except TimeoutError:
        raise Unavailable(f"{kept.resource} are not read yet; try again") from None
