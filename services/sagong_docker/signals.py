"""Signals as Docker's users name them. Pure."""

from __future__ import annotations

import signal

from sagong.errors import InvalidArgument

__all__ = ["number"]

_LAST = 64


def number(name: str) -> int:
    """`SIGTERM`, `TERM`, `term`, `15`, `RTMIN+3`, `RTMAX-1`; InvalidArgument in Docker's words."""
    if name.isascii() and name.removeprefix("-").isdigit():
        if int(name) == 0:
            raise InvalidArgument(f"invalid signal: {name}")
        if not 0 < int(name) <= _LAST:
            raise InvalidArgument(f"the linux daemon does not support signal {name}")
        return int(name)
    upper = name.upper().removeprefix("SIG")
    sign = "+" if "+" in upper else "-"
    base, _, offset = upper.partition(sign)
    try:
        found = int(signal.Signals[f"SIG{base}"])
        moved = found + (int(offset) if sign == "+" else -int(offset)) if offset else found
    except (KeyError, ValueError):
        raise InvalidArgument(f"invalid signal: {name}") from None
    if offset and not (base in ("RTMIN", "RTMAX") and signal.SIGRTMIN <= moved <= signal.SIGRTMAX):
        raise InvalidArgument(f"invalid signal: {name}")
    return moved
