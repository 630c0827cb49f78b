"""Which monitor watches a new container: each has room for some, and a group stays together."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterable

from sagong.contracts.runtime import RunSpec
from sagong.shim.records import Record

__all__ = ["ROOM", "Rooms"]

# A monitor costs 2.5 MB, and 8 ms with its nurse; a container in it 30 kB. Who kills one cuts the
# clients of so many.
ROOM = 16
# A monitor starts one after the other: while so many are about to begin in each, one more helps.
_TOGETHER = 4


class Rooms:
    """Keys of monitors. Each generation of the plugin has its own.

    So monitors of an older version, or those that a dying generation is just making, get no new
    containers from this one. Because starts wait, at most `cores` monitors with room are there.
    """

    def __init__(self, size: int, cores: int) -> None:
        self._name = f"{os.urandom(4).hex()}-"
        self._size = max(size, 1)
        self._cores = cores

    def choose(self, spec: RunSpec, records: Iterable[Record]) -> str:
        """The key for a container: its living group's, or that of a monitor with room left."""
        taken: Counter[str] = Counter()
        beginning: Counter[str] = Counter()
        for record in records:
            if record.exit is None:
                if spec.group and record.spec.group == spec.group:
                    return record.key
                taken[record.key] += 1
                if record.starting:
                    beginning[record.key] += 1
        return self._with_room(taken, beginning)

    def _with_room(self, taken: Counter[str], beginning: Counter[str]) -> str:
        """The one with the fewest starts under way, or the first that has no container."""
        mine = sorted(int(key[len(self._name) :]) for key in taken if key.startswith(self._name))
        keys = [f"{self._name}{number}" for number in mine]
        room = [key for key in keys if taken[key] < self._size]
        first = next(number for number in itertools.count() if number not in mine)
        unused = f"{self._name}{first}"
        least = min(room, key=lambda key: beginning[key], default=unused)
        if beginning[least] >= _TOGETHER and len(room) < self._cores:
            return unused
        return least
