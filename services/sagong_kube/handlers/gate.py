"""Who asks and may they: authentication, impersonation and authorization of every request."""

from __future__ import annotations

import time
from urllib.parse import unquote

from sagong.contracts.auth import Auth, Credential, Decision, Identity, Question
from sagong.errors import SagongError
from sagong_kube import refusal
from sagong_kube.handlers.exchange import Ask
from sagong_kube.registry.actor import Actor
from sagong_kube.target import Target

__all__ = ["ANONYMOUS", "Gate", "question"]

ANONYMOUS = Actor(username="system:anonymous", groups=("system:unauthenticated",))
_PUBLIC = ("/version", "/healthz", "/livez", "/readyz")
_KEEP_SECONDS = 60.0
_CACHE_LIMIT = 8192
_EXTRA = "impersonate-extra-"


class Gate:
    """Asks slot `auth`, and keeps its answers for a minute, or until the policy changes."""

    def __init__(self, auth: Auth) -> None:
        self._auth = auth
        self._identities: dict[tuple[bytes, str], tuple[float, Actor]] = {}
        self._decisions: dict[Question, tuple[float, Decision]] = {}
        self._policy = 0

    def forget(self) -> None:
        """The policy changed: ask anew."""
        self._policy += 1
        self._identities.clear()
        self._decisions.clear()

    async def actor(self, ask: Ask, certificate: bytes) -> Actor:
        """The user, impersonated if allowed; anonymous without credentials."""
        actor = await self._authenticate(ask, certificate)
        if any(name.startswith("impersonate-") for name in ask.headers):
            actor = await self._impersonate(ask, actor)
        return actor

    async def _authenticate(self, ask: Ask, certificate: bytes) -> Actor:
        bearer = _bearer(ask)
        if not certificate and not bearer:
            return ANONYMOUS
        key = (certificate if not bearer else b"", bearer)
        known = self._identities.get(key)
        if known is not None and known[0] > time.time():
            return known[1]
        try:
            identity = await self._auth.authenticate(Credential(certificate=key[0], bearer=bearer))
        except SagongError as error:
            if error.code != "unauthenticated":
                raise
            raise refusal.unauthorized() from None
        actor = _actor(identity)
        end = time.time() + _KEEP_SECONDS
        if len(self._identities) >= _CACHE_LIMIT:
            self._identities.clear()
        self._identities[key] = (min(end, identity.expires or end), actor)
        return actor

    async def _impersonate(self, ask: Ask, actor: Actor) -> Actor:
        name = ask.headers.get("impersonate-user", "")
        if not name:
            raise refusal.bad_request("requested impersonation without impersonating a user")
        uid = ask.headers.get("impersonate-uid", "")
        groups = tuple(g for g in ask.headers.get("impersonate-group", "").split(", ") if g)
        extra = tuple(
            (unquote(key[len(_EXTRA) :]), tuple(value.split(", ")))
            for key, value in ask.headers.items()
            if key.startswith(_EXTRA)
        )
        await self._may_impersonate(actor, name, uid, groups, extra)
        account = name.split(":") if name.startswith("system:serviceaccount:") else []
        if len(account) == 4 and not groups:
            groups = ("system:serviceaccounts", f"system:serviceaccounts:{account[2]}")
        if name != ANONYMOUS.username and "system:authenticated" not in groups:
            groups += ("system:authenticated",)
        return Actor(name, uid, groups, extra)

    async def _may_impersonate(
        self,
        actor: Actor,
        name: str,
        uid: str,
        groups: tuple[str, ...],
        extra: tuple[tuple[str, tuple[str, ...]], ...],
    ) -> None:
        account = name.split(":") if name.startswith("system:serviceaccount:") else []
        if len(account) == 4:
            wanted = [
                Target("", "impersonate", "", "v1", "serviceaccounts", "", account[2], account[3])
            ]
        else:
            wanted = [Target("", "impersonate", "", "v1", "users", name=name)]
        wanted += [Target("", "impersonate", "", "v1", "groups", name=group) for group in groups]
        group = "authentication.k8s.io"
        if uid:
            wanted.append(Target("", "impersonate", group, "v1", "uids", name=uid))
        for key, values in extra:
            wanted += [
                Target("", "impersonate", group, "v1", "userextras", key, "", value)
                for value in values
            ]
        for target in wanted:
            await self.check(actor, target)

    async def check(self, actor: Actor, target: Target) -> None:
        """Refuse what the actor may not do, in upstream's words."""
        decision = await self.decide(question(actor, target))
        if not decision.allowed:
            raise _forbidden(actor, target, decision)

    async def decide(self, asked: Question) -> Decision:
        """May they; public paths are for all."""
        if not asked.resource and asked.verb in ("get", "head") and _is_public(asked.path):
            return Decision(allowed=True, reason="health and version are public")
        if asked.username == ANONYMOUS.username:
            return Decision(allowed=False)
        known = self._decisions.get(asked)
        if known is not None and known[0] > time.time():
            return known[1]
        policy = self._policy
        decision = await self._auth.authorize(asked)
        if policy == self._policy:
            if len(self._decisions) >= _CACHE_LIMIT:
                self._decisions.clear()
            self._decisions[asked] = time.time() + _KEEP_SECONDS, decision
        return decision


def _is_public(path: str) -> bool:
    return path.startswith(_PUBLIC) and path.rstrip("/").split("/")[1] in (
        "version",
        "healthz",
        "livez",
        "readyz",
    )


def _bearer(ask: Ask) -> str:
    scheme, _, token = ask.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    # Browsers can't set headers of WebSockets; they send the token as a subprotocol.
    prefix = "base64url.bearer.authorization.k8s.io."
    for offered in ask.headers.get("sec-websocket-protocol", "").split(","):
        if offered.strip().startswith(prefix):
            import base64
            import binascii

            encoded = offered.strip()[len(prefix) :]
            try:
                return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
            except (binascii.Error, ValueError):
                return encoded
    return ""


def _actor(identity: Identity) -> Actor:
    return Actor(identity.username, identity.uid, identity.groups, identity.extra)


def question(actor: Actor, target: Target) -> Question:
    """A request as authorization sees it."""
    if not target.is_object:
        return Question(
            username=actor.username, groups=actor.groups, verb=target.verb, path=target.path
        )
    namespace = target.namespace
    if target.resource == "namespaces" and not target.group and target.name:
        namespace = target.name
    return Question(
        username=actor.username,
        groups=actor.groups,
        verb=target.verb,
        group=target.group,
        resource=target.resource,
        subresource=target.subresource,
        namespace=namespace,
        name=target.name,
    )


def _forbidden(actor: Actor, target: Target, decision: Decision) -> SagongError:
    because = f": {decision.reason}" if decision.reason else ""
    if not target.is_object:
        return refusal.forbidden(
            "",
            "",
            "",
            f'User "{actor.username}" cannot {target.verb} path "{target.path}"{because}',
        )
    resource = f"{target.resource}/{target.subresource}" if target.subresource else target.resource
    where = (
        f' in the namespace "{target.namespace}"' if target.namespace else " at the cluster scope"
    )
    why = (
        f'User "{actor.username}" cannot {target.verb} resource "{resource}" in API group '
        f'"{target.group}"{where}{because}'
    )
    return refusal.forbidden(target.resource, target.group, target.name, why)
