"""Where processor time goes: by name of process, of everything on the machine of a benchmark.

Unlike elapsed time it hardly depends on what else the computer does.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from pathlib import Path

__all__ = ["Spent"]

_TICK = 1000 / os.sysconf("SC_CLK_TCK")


class Spent:
    """Milliseconds of processor time since it was made, by process name."""

    def __init__(self) -> None:
        self._before = snapshot()

    def table(self, operations: int) -> str:
        """Each name's share of one operation, the greatest first."""
        spent: Counter[str] = Counter()
        for pid, (name, ticks) in snapshot().items():
            spent[name] += ticks - self._before.get(pid, (name, 0))[1]
        rows = [(name, ticks * _TICK / operations) for name, ticks in spent.most_common(16)]
        rows = [(name, value) for name, value in rows if value >= 0.05]
        total = sum(spent.values()) * _TICK / operations
        lines = [f"  {name:20} {value:8.2f} ms" for name, value in rows]
        return "\n".join([f"  {'processor time, all':20} {total:8.2f} ms", *lines])


def snapshot() -> dict[int, tuple[str, int]]:
    """Name and ticks of every process; those of ended children count for their parent."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            head, _, tail = (entry / "stat").read_text().rpartition(")")
            found[int(entry.name)] = (head.partition("(")[2], sum(map(int, tail.split()[11:15])))
    return found
