"""Tokens that let a client in to a session's streams, once and for a short while."""

from __future__ import annotations

import os
import time
from typing import Any

from sagong.shim.session import Session

__all__ = ["Ticket", "Tickets"]

_SECONDS = 30.0


class Ticket:
    """What a token stands for."""

    def __init__(self, session: Session, *, stdin: bool, replay: bool) -> None:
        self.session = session
        self.stdin = stdin
        self.replay = replay
        self.until = time.monotonic() + _SECONDS


class Tickets:
    """Those that nobody has used yet."""

    def __init__(self) -> None:
        self._known: dict[str, Ticket] = {}

    def issue(self, session: Session, request: dict[str, Any]) -> str:
        """A token for what is asked."""
        now = time.monotonic()
        self._known = {t: k for t, k in self._known.items() if k.until > now}
        token = os.urandom(16).hex()
        stdin = bool(request.get("stdin", session.spec["stdin"]))
        replay = bool(request.get("replay", False))
        self._known[token] = Ticket(session, stdin=stdin, replay=replay)
        return token

    def take(self, token: str) -> Ticket | None:
        """What a token stands for; None if it is none, or no more."""
        ticket = self._known.pop(token, None)
        return None if ticket is None or ticket.until < time.monotonic() else ticket
