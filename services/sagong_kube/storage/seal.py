"""Encryption at rest: values of chosen storages are sealed before they reach the store."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sagong.errors import FailedPrecondition

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["Seal", "load_key"]

_MARK = b"sagong:aesgcm:1:"
_NONCE = 12
_KEY = 32


class Seal:
    """Seals with AES-256-GCM; the store's key is the associated data, so values can't be moved."""

    def __init__(self, key: bytes, storages: Sequence[str] = ("core/secrets",)) -> None:
        self._key = key
        self._prefixes = tuple(f"/registry/{storage}/" for storage in storages)

    @cached_property
    def _cipher(self) -> AESGCM:
        """Loaded when there is something to seal: a start need not wait for it."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self._key)

    def close(self, key: str, value: bytes) -> bytes:
        """The value as it is stored."""
        if not key.startswith(self._prefixes):
            return value
        nonce = os.urandom(_NONCE)
        return _MARK + nonce + self._cipher.encrypt(nonce, value, key.encode())

    def open(self, key: str, value: bytes) -> bytes:
        """The value as it was; values from before sealing are read as they are."""
        if not value.startswith(_MARK):
            return value
        from cryptography.exceptions import InvalidTag

        at = len(_MARK)
        try:
            return self._cipher.decrypt(value[at : at + _NONCE], value[at + _NONCE :], key.encode())
        except InvalidTag:
            raise FailedPrecondition(
                f"{key} was sealed with another key: restore the key file that belongs to this store"
            ) from None


def load_key(path: Path) -> bytes:
    """The key in `path` (base64), made with mode 0600 at first use."""
    try:
        known = base64.b64decode(path.read_bytes(), validate=True)
    except FileNotFoundError:
        return _new_key(path)
    if len(known) != _KEY:
        raise FailedPrecondition(
            f"{path} holds {len(known)} bytes, a key has {_KEY}: restore the file from a backup"
        )
    return known


def _new_key(path: Path) -> bytes:
    key = os.urandom(_KEY)
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64encode(key))
        file.flush()
        os.fsync(file.fileno())
    os.rename(fresh, path)
    return key
