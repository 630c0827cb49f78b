"""Contexts of builds that have ended: the next one of the same directory is sent what changed."""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass, field

from sagong.contracts.builder import CacheRecord
from sagong_builder.context import Archive, Tree
from sagong_builder.running import new_id

__all__ = ["Facts", "KeptContext", "KeptContexts"]

_COUNT = 16
_BYTES = 2 << 30
_SECONDS = 24 * 3600.0
# What is written over in a context's file is not given back: when it is most of the file, begin anew.
_SLACK = 16 << 20

Facts = tuple[int, int, int]
"""Mode, size and time of a file, as the client tells them."""


@dataclass
class KeptContext:
    """An archive, and its complete files: what the client told of each, and where its content lies."""

    archive: Archive
    files: dict[str, tuple[Facts, int]]
    description: str = ""
    id: str = field(default_factory=lambda: new_id()[:25])
    created_at: float = field(default_factory=time.time)
    used_at: float = 0.0
    uses: int = 0

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return self.archive.path.stat().st_size

    @property
    def worth(self) -> bool:
        """Whether the file is mostly what is still used."""
        return self.size <= 2 * sum(facts[1] for facts, _ in self.files.values()) + _SLACK


class KeptContexts:
    """All of this process; the oldest go when there are too many. Whoever takes one has it alone."""

    def __init__(self) -> None:
        self._table: dict[Hashable, KeptContext] = {}

    def take(self, key: Hashable) -> KeptContext | None:
        """The context of this key, if it is still worth something."""
        found = self._table.pop(key, None)
        if found is not None and not found.worth:
            found.archive.close()
            return None
        return found

    def put(self, key: Hashable, context: KeptContext) -> None:
        """Keep it; another of the same key goes."""
        context.used_at = time.time()
        context.archive.tree = Tree()  # the next build is told all names anew
        context.uses += 1
        old = self._table.pop(key, None)
        if old is not None:
            old.archive.close()
        self._table[key] = context
        self._trim()

    def _trim(self) -> None:
        """Latest first, as many as there is room for."""
        room, oldest = _BYTES, time.time() - _SECONDS
        for number, (key, context) in enumerate(reversed(list(self._table.items()))):
            room -= context.size
            if number >= _COUNT or room < 0 or context.used_at < oldest:
                self._table.pop(key).archive.close()

    def records(self) -> list[CacheRecord]:
        """What is kept."""
        return [
            CacheRecord(
                id=context.id,
                kind="source.local",
                description=f"local source for {context.description}",
                size=context.size,
                created_at=context.created_at,
                used_at=context.used_at,
                uses=context.uses,
            )
            for context in self._table.values()
        ]

    def drop(self, id_: str) -> bool:
        """Delete one by its id; False if there is none."""
        for key, context in list(self._table.items()):
            if context.id == id_:
                self._table.pop(key).archive.close()
                return True
        return False

    def clear(self) -> None:
        """Delete all."""
        for context in self._table.values():
            context.archive.close()
        self._table.clear()
