"""Who asks, and what for: passwords, tokens, and the challenge that sends a client for a token.

Source: https://distribution.github.io/distribution/spec/auth/token/ and RFC 6750, RFC 7617.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sagong.http import Request
from sagong_registry.accounts import Accounts, TooManyFailures
from sagong_registry.catalog import Catalog
from sagong_registry.grammar import is_name
from sagong_registry.refusal import Refused, refused
from sagong_registry.rights import ACTIONS, ANONYMOUS, Policy
from sagong_registry.settings import Settings
from sagong_registry.tokens import Tokens

__all__ = ["Gate", "Scope", "Visitor", "scopes"]

_LOGIN_SECONDS = "60"
_MOST_SCOPES = 100
_HOST = re.compile(r"[A-Za-z0-9.\-_:\[\]]{1,255}")


@dataclass(frozen=True, slots=True)
class Scope:
    """What a token is asked for: `repository:NAME:pull,push`."""

    repository: str
    actions: tuple[str, ...]

    def __str__(self) -> str:
        return f"repository:{self.repository}:{','.join(self.actions)}"


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks. `access` are a token's bounds by repository; None without a token."""

    account: str = ANONYMOUS
    proven: bool = False
    access: Mapping[str, tuple[str, ...]] | None = None


class Gate:
    """Decides by accounts, tokens and rules."""

    def __init__(
        self,
        accounts: Accounts,
        tokens: Tokens,
        policy: Policy,
        catalog: Catalog,
        settings: Settings,
        log: logging.Logger,
        *,
        local: bool,
    ) -> None:
        self._log = log
        self._local = local
        self.accounts = accounts
        self.policy = policy
        self._tokens = tokens
        self._catalog = catalog
        self._settings = settings

    @property
    def open(self) -> bool:
        """Whether nobody is asked who it is: no accounts, and only this machine gets here."""
        return self._local and not self.accounts.exist

    async def visitor(self, request: Request) -> Visitor:
        """Who asks by the Authorization header; UNAUTHORIZED if what it shows is not good."""
        header = request.header("authorization")
        if not header or self.open:
            return Visitor()
        scheme, _, rest = header.partition(" ")
        if scheme.lower() == "basic":
            account = await self.login(request, rest.strip())
            return Visitor(account, proven=True)
        if scheme.lower() == "bearer":
            claims = self._tokens.verify(rest.strip(), time.time())
            if claims is not None and (not claims.account or claims.account in self.accounts):
                return Visitor(claims.account, proven=True, access=claims.access)
        raise self.unauthorized(request, error="invalid_token")

    async def login(self, request: Request, encoded: str) -> str:
        """The account of a Basic credential, if its password is right."""
        try:
            text = base64.b64decode(encoded, validate=True).decode()
        except (binascii.Error, ValueError):
            raise self.unauthorized(request) from None
        name, _, password = text.partition(":")
        await self.check(request, name, password)
        return name

    async def check(self, request: Request, name: str, password: str) -> None:
        """UNAUTHORIZED if it is not the account's password."""
        try:
            if name and await self.accounts.verify(name, password, request.peer.address):
                return
        except TooManyFailures:
            raise refused(
                "TOOMANYREQUESTS",
                f"too many wrong passwords for {name!r}; wait a minute",
                headers=(("Retry-After", _LOGIN_SECONDS),),
            ) from None
        facts = {"account": name[:255], "peer": request.peer.address, "request": request.id}
        self._log.info("wrong password", extra=facts)
        raise self.unauthorized(request, message="wrong user name or password")

    def identity(self, account: str) -> str:
        """What an account may show instead of its password at `/token`, "" for nobody's."""
        hashed = self.accounts.hash(account)
        return "" if hashed is None else self._tokens.identify(account, hashed)

    def recognize(self, request: Request, identity: str) -> str:
        """Whose identity token it is; UNAUTHORIZED if it is no one's (any more)."""
        account = self._tokens.identified(identity, self.accounts.hash)
        if not account:
            raise self.unauthorized(
                request, message="the login is not valid any more: log in again"
            )
        return account

    def allowed(self, visitor: Visitor, repository: str) -> frozenset[str]:
        """What a visitor may do with a repository."""
        if self.open:
            return ACTIONS
        granted = self._granted(visitor.account, repository)
        if visitor.access is not None:
            granted &= frozenset(visitor.access.get(repository, ()))
        return granted

    def sees(self, visitor: Visitor, repository: str) -> bool:
        """Whether it is listed for a visitor: it may pull it, whatever its token was made for."""
        return self.open or "pull" in self._granted(visitor.account, repository)

    def _granted(self, account: str, repository: str) -> frozenset[str]:
        found = self._catalog.repositories.get(repository)
        visibility = found.record.visibility if found is not None and found.record else ""
        return self.policy.actions(account, repository, visibility)

    def admit(self, request: Request, visitor: Visitor, repository: str, action: str) -> None:
        """Raise what refuses the action, if anything does."""
        if action in self.allowed(visitor, repository):
            return
        actions = ("pull",) if action == "pull" else ("pull", action)
        scope = Scope(repository, actions)
        if visitor.account and visitor.access is None:
            raise refused("DENIED", f"account {visitor.account} may not {action} {repository}")
        error = "insufficient_scope" if visitor.proven else ""
        raise self.unauthorized(request, scope=scope, error=error)

    def admit_login(self, request: Request, visitor: Visitor) -> None:
        """Whether `/v2/` is answered: only to who has shown something, so that logins are checked."""
        if not self.open and not visitor.proven:
            raise self.unauthorized(request)

    def unauthorized(
        self,
        request: Request,
        *,
        scope: Scope | None = None,
        error: str = "",
        message: str = "",
    ) -> Refused:
        """The refusal that tells where a token is to be had."""
        parts = [f'Bearer realm="{self.base(request)}/token"', f'service="{_host(request)}"']
        if scope is not None:
            parts.append(f'scope="{scope}"')
        if error:
            parts.append(f'error="{error}"')
        headers = (("WWW-Authenticate", ",".join(parts)),)
        return refused("UNAUTHORIZED", message, headers=headers)

    def base(self, request: Request) -> str:
        """How clients reach this registry."""
        return self._settings.url.rstrip("/") or f"{request.scheme}://{_host(request)}"

    def issue(self, account: str, wanted: Iterable[Scope]) -> tuple[str, int]:
        """A token for what of the wanted is allowed, and its seconds."""
        access: dict[str, tuple[str, ...]] = {}
        for scope in wanted:
            asked = ACTIONS if "*" in scope.actions else frozenset(scope.actions)
            granted = asked & self._granted(account, scope.repository)
            if granted:
                both = granted | frozenset(access.get(scope.repository, ()))
                access[scope.repository] = tuple(sorted(both))
        seconds = self._settings.token_seconds
        return self._tokens.issue(account, access, time.time() + seconds), seconds


def scopes(texts: Iterable[str]) -> list[Scope]:
    """What a client asks a token for; kinds of things that are not here are left out. Pure."""
    found = []
    for word in (word for text in texts for word in text.split()):
        kind, _, rest = word.partition(":")
        name, _, actions = rest.rpartition(":")
        if kind.partition("(")[0] == "repository" and is_name(name):
            found.append(Scope(name, tuple(filter(None, actions.split(",")))))
    return found[:_MOST_SCOPES]


def _host(request: Request) -> str:
    """The host that the client asked at, if it is one."""
    host = request.header("host")
    return host if _HOST.fullmatch(host) else "registry"
