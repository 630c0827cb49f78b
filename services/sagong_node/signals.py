"""Signals by name or number, as users write them. Pure."""

from __future__ import annotations

import signal

from sagong.errors import InvalidArgument
from sagong.model.numbers import natural

__all__ = ["number"]


def number(name: str) -> int:
    """`SIGTERM`, `TERM`, `term`, `15` and `RTMIN+3` as a number."""
    counted = natural(name)
    if counted is not None and counted <= 64:
        return counted
    upper = name.upper()
    upper = upper if upper.startswith("SIG") else f"SIG{upper}"
    base, plus, offset = upper.partition("+")
    try:
        found = int(signal.Signals[base])
    except KeyError:
        raise InvalidArgument(f"invalid signal: {name}") from None
    return found + (natural(offset) or 0) if plus else found
