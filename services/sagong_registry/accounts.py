"""Accounts: those that the operator made, and those of a file as `htpasswd -B` writes it.

The file is read again when it changes; where both know a name, the file says its password.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import bcrypt

from sagong.errors import InvalidArgument
from sagong_registry.record import AccountRecord

__all__ = ["Accounts", "TooManyFailures", "checked", "parse"]

_LOOK_SECONDS = 1.0
_KEPT = 1000
_LONGEST_PASSWORD = 72  # bcrypt reads no more
_AT_ONCE = 2
_FAILURES, _FAILURE_SECONDS = 10, 60.0
_KINDS = ("$2y$", "$2b$", "$2a$")


class TooManyFailures(Exception):
    """So many wrong passwords that no more are looked at for a while."""


class Accounts:
    """Checks passwords. A right one is remembered (as a keyed hash): bcrypt is slow by intent."""

    def __init__(
        self, made: Callable[[], Mapping[str, AccountRecord]], path: str, log: logging.Logger
    ) -> None:
        self._made = made
        self._path = Path(path) if path else None
        self._log = log
        self._listed: dict[str, str] = {}
        self._stamp: tuple[int, ...] = ()
        self._looked = -_LOOK_SECONDS
        self._secret = secrets.token_bytes(32)
        # What a name that does not exist is checked against, to take as long.
        self._nobody = bcrypt.hashpw(secrets.token_bytes(16), bcrypt.gensalt(5))
        self._good: OrderedDict[bytes, None] = OrderedDict()
        self._failures: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()
        self._turn = asyncio.Semaphore(_AT_ONCE)

    @property
    def exist(self) -> bool:
        """Whether there is any account; without one nobody is asked who it is."""
        return bool(self._made() or self.listed)

    @property
    def listed(self) -> Mapping[str, str]:
        """Hashes by name of the file."""
        self._look()
        return self._listed

    def __contains__(self, name: str) -> bool:
        return self.hash(name) is not None

    def hash(self, name: str) -> str | None:
        """The hash of an account's password; None without the account."""
        made = self._made().get(name)
        return self.listed.get(name) or (made.hash if made else None)

    async def verify(self, name: str, password: str, peer: str) -> bool:
        """Whether it is the account's password; TooManyFailures after too many wrong ones."""
        known = self.hash(name)
        hashed = known.encode() if known else self._nobody
        mark = self._mark(name, password, hashed)
        if known is not None and mark in self._good:
            return True
        self._check_failures(name, peer)
        async with self._turn:
            right = await asyncio.to_thread(_is_right, password, hashed)
        if not right or known is None:
            self._note_failure(name, peer)
            return False
        self._failures.pop((name, peer), None)
        self._good[mark] = None
        if len(self._good) > _KEPT:
            self._good.popitem(last=False)
        return True

    def _mark(self, name: str, password: str, hashed: bytes) -> bytes:
        """Stands for a password of an account as it is now."""
        text = b"\0".join((name.encode(), hashed, password.encode()))
        return hmac.digest(self._secret, text, hashlib.sha256)

    def _check_failures(self, name: str, peer: str) -> None:
        count, since = self._failures.get((name, peer), (0, 0.0))
        if count >= _FAILURES and time.monotonic() - since < _FAILURE_SECONDS:
            raise TooManyFailures

    def _note_failure(self, name: str, peer: str) -> None:
        now = time.monotonic()
        count, since = self._failures.pop((name, peer), (0, now))
        if now - since >= _FAILURE_SECONDS:
            count, since = 0, now
        self._failures[name, peer] = (count + 1, since)
        if len(self._failures) > _KEPT:
            self._failures.popitem(last=False)

    def _look(self) -> None:
        """Read the file, if it has changed; one that can't be read keeps what was known."""
        now = time.monotonic()
        if self._path is None or now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        try:
            found = os.stat(self._path)
            stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
            if stamp == self._stamp:
                return
            hashes, wrong = parse(self._path.read_text())
        except FileNotFoundError:
            self._listed, self._stamp = {}, ()
            return
        except (OSError, UnicodeDecodeError) as error:
            self._log.warning("accounts are not read", extra={"error": str(error)})
            return
        self._listed, self._stamp = hashes, stamp
        if wrong:
            self._log.warning(
                "lines without a bcrypt hash are left out: write them with htpasswd -B",
                extra={"file": str(self._path), "lines": wrong},
            )


def checked(name: str, hashed: str) -> str:
    """The hash itself, if it is one of bcrypt and the name one of an account. Pure."""
    if not name or len(name) > 255 or ":" in name or not name.isprintable():
        raise InvalidArgument(f"account {name[:80]!r}: 1 to 255 printable characters, no colon")
    try:
        bcrypt.checkpw(b"", hashed.encode())
    except ValueError:
        raise InvalidArgument(
            f"the hash of {name} is not bcrypt's: htpasswd -B makes such"
        ) from None
    return hashed


def parse(text: str) -> tuple[dict[str, str], list[int]]:
    """Hashes by name, and the numbers of lines that are none. Pure."""
    hashes: dict[str, str] = {}
    wrong: list[int] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, colon, hashed = line.partition(":")
        if name and colon and hashed.startswith(_KINDS):
            hashes[name] = hashed
        else:
            wrong.append(number)
    return hashes, wrong


def _is_right(password: str, hashed: bytes) -> bool:
    try:
        return bcrypt.checkpw(password.encode()[:_LONGEST_PASSWORD], hashed)
    except ValueError:
        return False
