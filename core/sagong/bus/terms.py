"""Terms: for how long somebody is kept out, twice as long each time that it begins again at once."""

from __future__ import annotations

import time

__all__ = ["TERM_MOST", "Terms"]

_FIRST, TERM_MOST = 1.0, 16.0
# Who is well-behaved for so long after a term begins anew with a short one.
_CALM_SECONDS = 30.0


class Terms:
    """Of each one (a uid, a name): when its last term began, and how many seconds it was.

    A first term is of `first` seconds.
    """

    def __init__(self, first: float = _FIRST) -> None:
        self._first = first
        self._known: dict[int | str, tuple[float, float]] = {}

    def next(self, who: int | str) -> float:
        """The seconds of a term that begins now."""
        now = time.monotonic()
        last, seconds = self._known.get(who, (0.0, 0.0))
        relapsed = seconds > 0 and now - last - seconds < _CALM_SECONDS
        seconds = min(seconds * 2, TERM_MOST) if relapsed else self._first
        self._known[who] = now, seconds
        return seconds

    def forget(self, who: int | str) -> None:
        """It is somebody else now."""
        self._known.pop(who, None)
