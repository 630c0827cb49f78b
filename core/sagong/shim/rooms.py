"""Which monitor watches a new container: each has room for some, and a group stays together."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterable

from sagong.contracts.runtime import RunSpec
from sagong.shim.records import Record

__all__ = ["ROOM", "Rooms"]

# A monitor costs 2.5 MB and 5 ms once, a container in it 30 kB; who kills one hits so many.
ROOM = 8


class Rooms:
    """Keys of monitors. Each generation of the plugin has its own.

    So monitors of an older version, or those that a dying generation is just making, get no new
    containers from this one.
    """

    def __init__(self, size: int) -> None:
        self._name = os.urandom(4).hex()
        self._size = max(size, 1)

    def choose(self, spec: RunSpec, records: Iterable[Record]) -> str:
        """The key for a container: its living group's, or the first with room left."""
        taken: Counter[str] = Counter()
        for record in records:
            if record.exit is None:
                if spec.group and record.spec.group == spec.group:
                    return record.key
                taken[record.key] += 1
        keys = (f"{self._name}-{number}" for number in itertools.count())
        return next(key for key in keys if taken[key] < self._size)
