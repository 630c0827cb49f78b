"""Spans: who did what for whom, and how long it took, kept in memory while tracing is on.

What began everything has a *cause* (a request's id, on every call made on its behalf). While tracing
is on, each call gets a cause of its own below that of its caller: the first call of request
`docker-1a2-7` is `docker-1a2-7.1`, the second call that this one makes `docker-1a2-7.1.2`. So the
tree can be read off the names, and each process keeps only what it did itself.

One recorder a process, as there is one logging root: HTTP servers, providers and callers of a
process all write to `RECORDER`. Off, it costs a call one look at an attribute.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator

from sagong.contracts.kernel import Span

__all__ = ["RECORDER", "Recorder"]

_KEPT = 4096


class Recorder:
    """A process's spans, the newest few thousand."""

    def __init__(self, unit: str = "") -> None:
        self.unit = unit
        self.on = False
        self._spans: deque[Span] = deque(maxlen=_KEPT)

    def switch(self, *, on: bool) -> None:
        """Begin anew, or end; what was recorded stays until the next beginning."""
        if on and not self.on:
            self._spans.clear()
        self.on = on

    def children(self, cause: str) -> Iterator[int] | None:
        """Numbers for the calls of a traced call; None while there is nothing to trace."""
        return itertools.count(1) if self.on and cause else None

    def note(self, cause: str, name: str, nanoseconds: int, error: str, kind: str) -> None:
        """A call ended now that took so long; nothing is kept while tracing is off."""
        if not self.on or not cause:
            return
        seconds = nanoseconds / 1e9
        self._spans.append(
            Span(
                cause=cause,
                unit=self.unit,
                name=name,
                kind=kind,
                began=time.time() - seconds,
                seconds=seconds,
                error=error,
            )
        )

    def of(self, cause: str) -> tuple[Span, ...]:
        """Spans of a cause and all below it, of all requests that a client called so, or all for ""."""
        if not cause:
            return tuple(self._spans)
        below = (f"{cause}.", f"{cause}-")
        return tuple(s for s in self._spans if s.cause == cause or s.cause.startswith(below))


RECORDER = Recorder()
