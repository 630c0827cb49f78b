"""Whether the text of an error tells its reader anything."""

from __future__ import annotations

import re

__all__ = ["unclear"]

_SHORTEST = 12
_SIGNS = {
    r"Traceback": "a traceback",
    r"internal error|Internal error": "a defect",
    r"object at 0x": "an address of an object",
    r"^[A-Z]\w*(Error|Exception)\b": "the name of an exception",
    r"^\[Errno": "a bare errno",
    r"^None$|^\s*$|^b'": "nothing said",
}


def unclear(text: str) -> str:
    """What is wrong with it, "" if nothing is."""
    for pattern, what in _SIGNS.items():
        if re.search(pattern, text):
            return what
    return "" if len(text) >= _SHORTEST else "too short"
