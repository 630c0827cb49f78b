"""Accounts of a file as `htpasswd -B` writes it: names and bcrypt hashes, read again when it changes."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import secrets
import time
from collections import OrderedDict
from pathlib import Path

import bcrypt

__all__ = ["Accounts", "TooManyFailures", "parse"]

_LOOK_SECONDS = 1.0
_KEPT = 1000
_LONGEST_PASSWORD = 72  # bcrypt reads no more
_AT_ONCE = 2
_FAILURES, _FAILURE_SECONDS = 10, 60.0
_KINDS = ("$2y$", "$2b$", "$2a$")


class TooManyFailures(Exception):
    """So many wrong passwords that no more are looked at for a while."""


class Accounts:
    """Checks passwords. A right one is remembered, keyed, so that bcrypt is not asked at each request."""

    def __init__(self, path: str, log: logging.Logger) -> None:
        self._path = Path(path) if path else None
        self._log = log
        self._hashes: dict[str, bytes] = {}
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
        self._look()
        return bool(self._hashes)

    def __contains__(self, name: str) -> bool:
        self._look()
        return name in self._hashes

    async def verify(self, name: str, password: str, peer: str) -> bool:
        """Whether it is the account's password; TooManyFailures after too many wrong ones."""
        self._look()
        known = self._hashes.get(name)
        hashed = known or self._nobody
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
            self._hashes, self._stamp = {}, ()
            return
        except (OSError, UnicodeDecodeError) as error:
            self._log.warning("accounts are not read", extra={"error": str(error)})
            return
        self._hashes, self._stamp = hashes, stamp
        if wrong:
            self._log.warning(
                "lines without a bcrypt hash are left out: write them with htpasswd -B",
                extra={"file": str(self._path), "lines": wrong},
            )


def parse(text: str) -> tuple[dict[str, bytes], list[int]]:
    """Hashes by name, and the numbers of lines that are none. Pure."""
    hashes: dict[str, bytes] = {}
    wrong: list[int] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, colon, hashed = line.partition(":")
        if name and colon and hashed.startswith(_KINDS):
            hashes[name] = hashed.encode()
        else:
            wrong.append(number)
    return hashes, wrong


def _is_right(password: str, hashed: bytes) -> bool:
    try:
        return bcrypt.checkpw(password.encode()[:_LONGEST_PASSWORD], hashed)
    except ValueError:
        return False
