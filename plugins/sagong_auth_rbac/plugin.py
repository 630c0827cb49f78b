"""The plugin: its keys, the policy it follows, and the answers."""

from __future__ import annotations

import asyncio
import time
from typing import Any

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
from sagong.contracts.objects import GetRequest, ObjectChange, Objects, ObjectWatch
from sagong.errors import NotFound, Unauthenticated, Unavailable
from sagong.following import follow
from sagong.host import Host
from sagong_auth_rbac.authority import CertificateAuthority
from sagong_auth_rbac.rbac import Binding, Meta, Policy, Role, decide, rules_for
from sagong_auth_rbac.tokens import TokenAuthority, account_of

__all__ = ["AuthRbac", "Settings"]

_GROUP = "rbac.authorization.k8s.io/v1"
_CHECKED_SECONDS = 10.0


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
        self._policy = Policy()
        self._accounts: dict[tuple[str, str], str] = {}
        self._synced: dict[str, asyncio.Event] = {}
        self._checked: dict[tuple[str, str, str], float] = {}

    async def start(self) -> None:
        """Follow roles, bindings and accounts; until they are read only masters may anything."""
        for resource in ("clusterroles", "roles", "clusterrolebindings", "rolebindings"):
            self._follow(f"{_GROUP}/{resource}")
        self._follow("v1/serviceaccounts")

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
        if decision.allowed or all(event.is_set() for event in self._synced.values()):
            return decision
        for resource in self._synced:
            await self._wait_synced(resource)
        return decide(self._policy, question)

    async def rules(self, question: Question) -> RuleSet:
        """All that the user may."""
        for resource in self._synced:
            await self._wait_synced(resource)
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
        await self._wait_synced("v1/serviceaccounts")
        known = self._accounts.get((namespace, name))
        if known is None or known != uid:
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

    async def _wait_synced(self, resource: str) -> None:
        try:
            async with asyncio.timeout(5.0):
                await self._synced[resource].wait()
        except TimeoutError:
            raise Unavailable(f"{resource} are not read yet; try again") from None

    def _follow(self, resource: str) -> None:
        self._synced[resource] = asyncio.Event()
        self._host.spawn(self._watch(resource), f"watch {resource}")

    async def _watch(self, resource: str) -> None:
        """Keep one resource; when its whole comes anew, what is not in it is forgotten."""
        seen: set[tuple[str, str]] = set()
        watch = ObjectWatch(resource=resource)
        async for batch in follow(self._objects, watch, log=self._host.log):
            if batch.fresh:
                seen = set()
            for change in batch.changes:
                self._take(resource, change, seen)
            if batch.synced:
                self._drop(resource, seen)
                self._synced[resource].set()
            if batch.changes:
                self._host.emit(PolicyChanged())

    def _store(self, resource: str) -> tuple[dict[tuple[str, str], Any], Any]:
        if resource == "v1/serviceaccounts":
            return self._accounts, _Named
        if resource.endswith("bindings"):
            return self._policy.bindings, Binding
        return self._policy.roles, Role

    def _take(self, resource: str, change: ObjectChange, seen: set[tuple[str, str]]) -> None:
        store, kind = self._store(resource)
        found = msgspec.json.decode(change.body, type=kind)
        key = (found.metadata.namespace, found.metadata.name)
        if change.kind == "DELETED":
            store.pop(key, None)
            seen.discard(key)
            return
        seen.add(key)
        store[key] = found.metadata.uid if kind is _Named else found

    def _drop(self, resource: str, seen: set[tuple[str, str]]) -> None:
        """Forget what was deleted while nobody watched; cluster kinds have no namespace."""
        store, _ = self._store(resource)
        cluster = "cluster" in resource
        for key in [k for k in store if k not in seen and bool(k[0]) != cluster]:
            del store[key]
