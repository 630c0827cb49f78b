"""What was probably meant by a name that is not known: ` (did you mean RUN?)`. Pure.

Source: BuildKit's package util/suggest: the nearest name, if it is less than three changes away.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["hint"]

_FAR = 3
_LONGEST = 50


def hint(word: str, known: Iterable[str], mark: str = "") -> str:
    """To be put behind a message; empty if nothing is near, or if the name itself is known."""
    names = list(known)
    if word in names or len(word) > _LONGEST:
        return ""
    # Of names that are as near the one that has the same letters.
    order = [(_distance(word, name), sorted(word) != sorted(name), name) for name in names]
    distance, _, near = min(order, default=(_FAR, True, ""))
    return f" (did you mean {mark}{near}?)" if distance < _FAR else ""


def _distance(one: str, other: str) -> int:
    """How many letters are put in, left out or exchanged (Levenshtein)."""
    if abs(len(one) - len(other)) >= _FAR:
        return _FAR
    row = list(range(len(other) + 1))
    for above, letter in enumerate(one):
        before, row[0] = above, above + 1
        for at, theirs in enumerate(other):
            cost = before + (letter != theirs)
            before = row[at + 1]
            row[at + 1] = min(cost, before + 1, row[at] + 1)
    return row[-1]
