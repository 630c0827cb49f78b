"""Slot `auth`: who is it, may it; tokens and certificates."""

from __future__ import annotations

from typing import Protocol

from sagong.contract import Message, method, slot
from sagong.errors import InvalidArgument, NotFound, PermissionDenied, Unauthenticated

__all__ = [
    "Auth",
    "Authority",
    "Certificate",
    "CertificateRequest",
    "Credential",
    "Decision",
    "Identity",
    "KeySet",
    "PolicyChanged",
    "Question",
    "RuleSet",
    "Token",
    "TokenRequest",
]


class Credential(Message):
    """What a client showed: its verified certificate (DER), a bearer token, or name and password.

    `audiences` are what a token must be meant for; empty means the API server's own.
    """

    certificate: bytes = b""
    bearer: str = ""
    username: str = ""
    password: str = ""
    audiences: tuple[str, ...] = ()


class Identity(Message):
    """Who it is, as authentication.k8s.io UserInfo; `expires` in seconds since the epoch or 0."""

    username: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()
    audiences: tuple[str, ...] = ()
    expires: float = 0.0


class Question(Message):
    """May this user do that? For non-resource requests `path` is set and `resource` empty."""

    username: str
    groups: tuple[str, ...] = ()
    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


class Decision(Message):
    """`reason` names the rule that allowed it, or says what was missing."""

    allowed: bool
    reason: str = ""


class RuleSet(Message):
    """What a user may do in a namespace: RBAC PolicyRule objects as JSON."""

    rules: tuple[bytes, ...] = ()


class TokenRequest(Message):
    """A bound service-account token. `bound_*` name the pod or secret it lives with."""

    namespace: str
    service_account: str
    uid: str
    audiences: tuple[str, ...] = ()
    seconds: int = 3600
    bound_kind: str = ""
    bound_name: str = ""
    bound_uid: str = ""


class Token(Message):
    """A signed token (JWT, RS256 or ES256) and when it ends, in seconds since the epoch."""

    token: str
    expires: float


class CertificateRequest(Message):
    """A certificate by the cluster's authority: of a PEM request, or with a new key if that is "".

    `usages`: "client", "server". `names` are DNS names and addresses of a server.
    """

    request: str = ""
    subject: str
    organizations: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    usages: tuple[str, ...] = ("client",)
    seconds: int = 365 * 86400


class Certificate(Message):
    """PEM texts; `key` "" when the request had its own."""

    certificate: str
    key: str = ""
    expires: float


class Authority(Message):
    """The cluster's certificate authority (PEM)."""

    certificate: str


class KeySet(Message):
    """The JSON Web Key Set that verifies service-account tokens, and the issuer's URL."""

    jwks: bytes
    issuer: str


class PolicyChanged(Message):
    """Rules, accounts or keys changed: decisions kept by others are void."""


@slot("auth", version=1, events=(PolicyChanged,))
class Auth(Protocol):
    """Authentication and authorization."""

    @method(idempotent=True, raises=(Unauthenticated,))
    async def authenticate(self, credential: Credential) -> Identity:
        """Who shows this; Unauthenticated says what is wrong with it."""
        ...

    @method(idempotent=True)
    async def authorize(self, question: Question) -> Decision:
        """May it; a refusal is an answer, not an error."""
        ...

    @method(idempotent=True)
    async def rules(self, question: Question) -> RuleSet:
        """All that the user may do in the question's namespace."""
        ...

    @method(idempotent=False, raises=(InvalidArgument, NotFound))
    async def issue_token(self, request: TokenRequest) -> Token:
        """Sign a service-account token."""
        ...

    @method(idempotent=False, raises=(InvalidArgument, PermissionDenied))
    async def issue_certificate(self, request: CertificateRequest) -> Certificate:
        """Sign a certificate."""
        ...

    @method(idempotent=True)
    async def authority(self) -> Authority:
        """The authority's certificate."""
        ...

    @method(idempotent=True)
    async def keys(self) -> KeySet:
        """Keys that verify tokens."""
        ...
