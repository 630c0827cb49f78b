"""Where processor time goes: by name of process, of everything on the machine of a benchmark.

Unlike elapsed time it hardly depends on what else the computer does.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from pathlib import Path

__all__ = ["Spent"]

_TICK = 1000 / os.sysconf("SC_CLK_TCK")


class Spent:
    """Milliseconds of processor time since it was made, by process name."""

    def __init__(self) -> None:
        self._before = snapshot()

    def table(self, operations: int) -> str:
        """Each name's share of one operation, the greatest first."""
        spent: dict[str, float] = defaultdict(float)
        for pid, (name, time) in snapshot().items():
            spent[name] += (time - self._before.get(pid, (name, 0.0))[1]) / operations
        rows = sorted(spent.items(), key=lambda row: -row[1])[:16]
        rows = [(name, value) for name, value in rows if value >= 0.05]
        total = sum(spent.values())
        lines = [f"  {name:20} {value:8.2f} ms" for name, value in rows]
        return "\n".join([f"  {'processor time, all':20} {total:8.2f} ms", *lines])


def snapshot() -> dict[int, tuple[str, float]]:
    """Name and milliseconds of every process; those of ended children count for their parent."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            head, _, tail = (entry / "stat").read_text().rpartition(")")
            user, system, *children = map(int, tail.split()[11:15])
            # Whole ticks, which leave half of a container out that has just begun.
            own = max((user + system) * _TICK, _of_threads(entry))
            found[int(entry.name)] = (head.partition("(")[2], own + sum(children) * _TICK)
    return found


def _of_threads(process: Path) -> float:
    """Milliseconds of those that live."""
    times = (path.read_text().split()[0] for path in process.glob("task/*/schedstat"))
    return sum(map(int, times)) / 1e6
