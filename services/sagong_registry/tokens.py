"""Tokens of the registry's own: short-lived, signed, good for what they name and nowhere else.

Clients may not look into them (the token protocol that registries share says so), so they are the
shortest thing that can be checked: claims as JSON, and their HMAC-SHA256 by a key of this machine.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

__all__ = ["Claims", "Tokens", "key_of"]

_KEY_BYTES = 32
_LONGEST = 64 << 10


class Claims(msgspec.Struct, frozen=True, array_like=True):
    """Whose it is ("" for nobody in particular), until when, and what it allows by repository."""

    account: str
    expires: float
    access: dict[str, tuple[str, ...]]


class Tokens:
    """Signs and verifies."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def issue(self, account: str, access: Mapping[str, tuple[str, ...]], expires: float) -> str:
        """A token."""
        claims = msgspec.json.encode(Claims(account, expires, dict(access)))
        return f"{_text(claims)}.{_text(self._sign(claims))}"

    def verify(self, token: str, now: float) -> Claims | None:
        """What it says, if it is ours and not expired."""
        claims, _, signature = token.partition(".")
        if len(token) > _LONGEST:
            return None
        try:
            raw, given = _bytes(claims), _bytes(signature)
        except (binascii.Error, ValueError):
            return None
        if not hmac.compare_digest(self._sign(raw), given):
            return None
        found = msgspec.json.decode(raw, type=Claims)
        return found if found.expires > now else None

    def identify(self, account: str, hashed: str) -> str:
        """A token to get tokens by, instead of the password: until that changes or the account goes."""
        name = account.encode()
        return f"{_text(name)}.{_text(self._sign(_identity(name, hashed)))}"

    def identified(self, token: str, hash_of: Callable[[str], str | None]) -> str:
        """Whose it is, "" if it is nobody's (any more); `hash_of` tells an account's password."""
        name, _, signature = token.partition(".")
        if len(token) > _LONGEST:
            return ""
        try:
            raw, given = _bytes(name), _bytes(signature)
            account = raw.decode()
        except (binascii.Error, ValueError):
            return ""
        hashed = hash_of(account)
        if hashed is None or not hmac.compare_digest(self._sign(_identity(raw, hashed)), given):
            return ""
        return account

    def _sign(self, claims: bytes) -> bytes:
        return hmac.digest(self._key, claims, hashlib.sha256)


def key_of(directory: Path) -> bytes:
    """The key of this machine, made when there is none; generations side by side agree on one."""
    path = directory / "token.key"
    for _ in range(2):
        try:
            key = path.read_bytes()
            if len(key) == _KEY_BYTES:
                return key
        except FileNotFoundError:
            pass
        fresh = directory / f".token.key.{os.getpid()}"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    return path.read_bytes()


def _identity(name: bytes, hashed: str) -> bytes:
    """What is signed: never what claims are, which begin with a bracket."""
    return b"\0".join((b"identity", name, hashed.encode()))


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
