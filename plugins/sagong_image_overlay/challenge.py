"""WWW-Authenticate headers (RFC 9110, 11.6.1): the challenges in them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["Challenge", "parse_challenges"]

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PART = re.compile(
    rf"\s*,?\s*(?:(?P<key>{_TOKEN})\s*=\s*(?:\"(?P<quoted>(?:[^\"\\]|\\.)*)\"|(?P<plain>[^\s,]+))"
    rf"|(?P<scheme>{_TOKEN}))"
)


@dataclass(frozen=True)
class Challenge:
    """A scheme in lower case and its parameters."""

    scheme: str
    values: dict[str, str] = field(default_factory=dict)


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """All challenges of all headers; what can't be read is left out."""
    found: list[Challenge] = []
    for header in headers:
        at = 0
        while match := _PART.match(header[:4096], at):
            at = match.end()
            if match["scheme"]:
                found.append(Challenge(match["scheme"].lower()))
            elif found:
                quoted = match["quoted"]
                value = match["plain"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                found[-1].values[match["key"].lower()] = value
    return found
