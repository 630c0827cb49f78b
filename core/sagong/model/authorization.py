"""May this request be served? An extension point for services that ask no slot, as Docker's does."""

from __future__ import annotations

from dataclasses import dataclass

from sagong.hooks import hookspec

__all__ = ["ApiRequest", "AuthorizationHooks"]


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """Who asks for what.

    `user` is the common name of the client's certificate, or the login name of the Unix socket's
    client (its number, if it has none); `method` says which: "TLS", "socket", or "" for a client that
    nobody knows. `path` is without the version of the API.
    """

    user: str
    method: str
    uid: int
    verb: str
    path: str
    query: tuple[tuple[str, str], ...] = ()


class AuthorizationHooks:
    """What a hook may implement. It must be quick: the request waits for it."""

    @hookspec
    def deny(self, request: ApiRequest) -> str:
        """Why the request is not served, "" if it is."""
        raise AssertionError("a specification is not called")
