"""Refusals are said once: the first of a kind at once, those that follow as a number, now and then.

Whoever is refused may try again without end; the log must not grow by that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable
from dataclasses import dataclass, field

__all__ = ["QUIET_SECONDS", "SAID_CHARACTERS", "Refusals", "shortened"]

QUIET_SECONDS = 60.0
# Of texts that a stranger chose, this much is logged.
SAID_CHARACTERS = 200
_KINDS = 4096


def shortened(text: str) -> str:
    """A text of somebody else's as far as a log should hold it."""
    if len(text) <= SAID_CHARACTERS:
        return text
    return f"{text[:SAID_CHARACTERS]}… ({len(text)} characters)"


@dataclass
class _Kind:
    """One kind of refusal: how many were not said, and how the last of them would read."""

    unsaid: int = 0
    facts: dict[str, object] = field(default_factory=dict)


class Refusals:
    """What one process refuses, by kind: a key of the message and whom it concerns."""

    def __init__(self, log: logging.Logger, seconds: float = QUIET_SECONDS) -> None:
        self._log = log
        self._seconds = seconds
        self._kinds: dict[Hashable, _Kind] = {}

    def say(self, message: str, who: Hashable, **facts: object) -> None:
        """Log it, unless the same was logged a moment ago; then it is counted."""
        key = (message, who)
        known = self._kinds.get(key)
        if known is not None:
            known.unsaid += 1
            known.facts = facts
            return
        if len(self._kinds) >= _KINDS:
            return
        self._kinds[key] = _Kind()
        self._log.warning(message, extra={k: _fact(v) for k, v in facts.items()})
        asyncio.get_running_loop().call_later(self._seconds, self._again, message, key)

    def _again(self, message: str, key: Hashable) -> None:
        """Say how many followed; without any, the next one is a first one again."""
        known = self._kinds[key]
        if not known.unsaid:
            del self._kinds[key]
            return
        facts = {k: _fact(v) for k, v in known.facts.items()}
        self._log.warning(message, extra={**facts, "times": known.unsaid})
        known.unsaid = 0
        asyncio.get_running_loop().call_later(self._seconds, self._again, message, key)


def _fact(value: object) -> object:
    return shortened(value) if isinstance(value, str) else value
