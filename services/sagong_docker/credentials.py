"""Registry credentials as clients send them: base64 JSON in X-Registry-Auth. Pure."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from sagong.contracts.image import Credentials
from sagong.errors import InvalidArgument
from sagong_docker.body import LoginBody
from sagong_docker.document import read

__all__ = ["credentials", "of_document"]


def credentials(header: str) -> Credentials:
    """The header's credentials; empty ones without it, and of one that can't be read, as in Docker:
    a registry that wants some says so."""
    if not header:
        return Credentials()
    padded = header.strip() + "=" * (-len(header.strip()) % 4)
    try:
        document = msgspec.json.decode(base64.b64decode(padded, altchars=b"-_"))
    except (ValueError, msgspec.DecodeError, RecursionError):
        return Credentials()
    return of_document(document if isinstance(document, dict) else {})


def of_document(document: dict[str, Any]) -> Credentials:
    """An AuthConfig object; `auth` holds user and password in one for old clients."""
    document = read(document, LoginBody)
    user, password = str(document.get("username") or ""), str(document.get("password") or "")
    if not user and document.get("auth"):
        try:
            both = base64.b64decode(str(document["auth"])).decode()
        except ValueError:  # of base64, of UTF-8, and of what is no ASCII
            raise InvalidArgument("the credentials' auth field is not base64") from None
        user, _, password = both.partition(":")
    return Credentials(
        username=user,
        password=password,
        token=str(document.get("registrytoken") or ""),
        identity=str(document.get("identitytoken") or ""),
        server=str(document.get("serveraddress") or ""),
    )
