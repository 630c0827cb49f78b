"""Registries: credentials, and what is asked without moving an image."""

from __future__ import annotations

from sagong.contract import Message

__all__ = [
    "Credentials",
    "Distribution",
    "DistributionRequest",
    "Login",
    "LoginRequest",
    "Platform",
    "SearchRequest",
    "SearchResult",
    "SearchResults",
]


class Credentials(Message):
    """For a registry: user and password, or a token. Never logged, never stored.

    `token` is sent to the registry as it is; `identity` is what its token server gave at a login, and
    gets a token there (so is a `token` that the registry refuses).
    """

    username: str = ""
    password: str = ""
    token: str = ""
    server: str = ""
    identity: str = ""


class SearchRequest(Message):
    """Look for repositories: `HOST/TERM`, or a term for the registry that is configured for it.

    `limit` is 1 to 100. `official`, `automated` and `stars` (at least so many) narrow the results.
    """

    term: str
    limit: int = 25
    credentials: Credentials = Credentials()
    official: bool | None = None
    automated: bool | None = None
    stars: int = 0


class SearchResult(Message):
    """A repository: `name` is what can be pulled (`HOST/a/b`; without a host of Docker Hub)."""

    name: str
    description: str = ""
    official: bool = False
    stars: int = 0
    automated: bool = False


class SearchResults(Message):
    """Repositories in the registry's order."""

    results: tuple[SearchResult, ...] = ()


class DistributionRequest(Message):
    """What a reference stands for at its registry."""

    reference: str
    credentials: Credentials = Credentials()


class Platform(Message):
    """What an image runs on, as the OCI image specification names it."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()


class Distribution(Message):
    """The descriptor of a manifest or index at its registry, and the platforms behind it.

    `parts` are the digests of an index's manifests, in its order and without attestations, and `kinds`
    their media types; of a single manifest `kinds` is its config's.
    """

    media_type: str
    digest: str
    size: int
    platforms: tuple[Platform, ...] = ()
    parts: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()


class LoginRequest(Message):
    """Are these credentials good at `credentials.server` (a host, or a URL of one)?"""

    credentials: Credentials


class Login(Message):
    """They are. `identity` is the token server's token for later, "" if it gives none."""

    identity: str = ""
