"""Signals by name or number, as users write them. Pure."""

from __future__ import annotations

import signal

from sagong.errors import InvalidArgument

__all__ = ["number"]


def number(name: str) -> int:
    """`SIGTERM`, `TERM`, `term`, `15` and `RTMIN+3` as a number."""
    if name.isdigit() and 0 <= int(name) <= 64:
        return int(name)
    upper = name.upper()
    upper = upper if upper.startswith("SIG") else f"SIG{upper}"
    base, plus, offset = upper.partition("+")
    try:
        found = int(signal.Signals[base])
    except KeyError:
        raise InvalidArgument(f"invalid signal: {name}") from None
    return found + int(offset) if plus and offset.isdigit() else found
