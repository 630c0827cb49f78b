"""What a log should never hold: tracebacks, and Python's own complaints about the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["defects", "defects_of"]

_HEAD = "Traceback (most recent call last):"
_COMPLAINT = re.compile(r"\bwas never (awaited|retrieved)")


def defects(directory: Path) -> tuple[str, ...]:
    """`LOG: what`, for all logs of a directory."""
    return tuple(
        f"{path.stem}: {text}"
        for path in sorted(directory.glob("*.log"))
        for text in defects_of(path.read_text(errors="replace"))
    )


def defects_of(text: str) -> Iterator[str]:
    """What was said before a traceback, and the exception at its end; and each complaint."""
    before, indent = "", -1
    for line in text.splitlines():
        margin = len(line) - len(line.lstrip())
        if _HEAD in line:
            indent = margin
        elif indent < 0:
            before = line.strip()
            if _COMPLAINT.search(line):
                yield before
        elif margin <= indent:
            yield f"{before} … {line.strip()}"
            indent = -1
