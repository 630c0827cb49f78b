"""Containers that are removed by themselves: at once, or a moment after their end (ADR 430)."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator

from sagong_node.records import ContainerRecord

__all__ = ["Partings", "moment"]

# Seconds in which its client, who has just heard of the start, can ask for its logs and its end.
_LINGERING = 0.5
_PIECES = 10


async def moment() -> None:
    """That long; longer where this process gets no core, as its client does not, either."""
    for _ in range(_PIECES):
        await asyncio.sleep(_LINGERING / _PIECES)


class Partings:
    """Who waits for whose removal."""

    def __init__(self) -> None:
        self._awaited: Counter[str] = Counter()

    @contextlib.contextmanager
    def awaited(self, id_: str, condition: str) -> Iterator[None]:
        """Somebody waits; for its removal, if that is the condition."""
        if condition != "removed":
            yield
            return
        self._awaited[id_] += 1
        try:
            yield
        finally:
            self._awaited[id_] -= 1
            if not self._awaited[id_]:
                del self._awaited[id_]

    def lingers(self, record: ContainerRecord) -> bool:
        """Whether one that has ended is kept for a moment.

        Whoever stopped it, or waits until it is removed, has nothing more to ask.
        """
        return record.wanted and record.spec.id not in self._awaited
