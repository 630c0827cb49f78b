"""Endings: how a process ended, in words: its exit status or signal, and what it said at last."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from sagong.bus.refusals import shortened

__all__ = ["ending", "last_words"]

# Of a log's end.
_READ = 4096


def ending(status: int | None, said: str) -> str:
    """`status` as `os.waitstatus_to_exitcode` gives it, None if nobody knows it; "" for nothing."""
    words = [] if status is None else [_fate(status)]
    words += [f"it said at last: {said}"] if said else []
    return "; ".join(words)


def _fate(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"ended by signal {-status}"


def last_words(log: Path, since: int) -> str:
    """The last line that was written to a log after its first `since` bytes; "" for none.

    It is a stranger's text: of bounded length, and nothing in it does anything to a terminal.
    """
    try:
        with open(log, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            # One that was cut meanwhile is shorter than it was.
            file.seek(max(since if since <= size else 0, size - _READ))
            text = file.read(_READ).decode(errors="replace")
    except OSError:
        return ""
    lines = ("".join(c for c in line if c.isprintable()).strip() for line in text.splitlines())
    return shortened(next((line for line in reversed(list(lines)) if line), ""))
