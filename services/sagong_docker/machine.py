"""What this machine has of what containers may ask for: processors, memory nodes, control groups."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sagong.model.numbers import natural

__all__ = ["Machine", "numbers", "this_machine"]

_CPUS = Path("/sys/devices/system/cpu/online")
_NODES = Path("/sys/devices/system/node/has_memory")
_GROUPS = Path("/sys/fs/cgroup")
_PROCESSORS_MOST = 8192


@dataclass(frozen=True)
class Machine:
    """`cpus` and `nodes` as the kernel lists them (`0-3`); `unified`: cgroup v2."""

    cpus: str = "0"
    nodes: str = "0"
    unified: bool = True
    io_weight: bool = True
    io_throttle: bool = True
    swappiness: bool = False

    @property
    def cores(self) -> int:
        """How many processors are on."""
        return len(numbers(self.cpus))


def numbers(text: str) -> frozenset[int]:
    """The numbers of `0-3,7`; ValueError if it is no such list."""
    found: set[int] = set()
    for part in text.strip().split(",") if text.strip() else ():
        first, dash, last = part.partition("-")
        low, high = natural(first), natural(last if dash else first)
        if low is None or high is None:
            raise ValueError(f"invalid format: {text}")
        if high >= _PROCESSORS_MOST:
            raise ValueError(f"value of out range, maximum is {_PROCESSORS_MOST}")
        found.update(range(low, high + 1))
    return frozenset(found)


@functools.cache
def this_machine() -> Machine:
    """Read once: none of it changes under a running engine but by hot plugging."""
    unified = (_GROUPS / "cgroup.controllers").exists()
    return Machine(
        cpus=_line(_CPUS),
        nodes=_line(_NODES),
        unified=unified,
        io_weight=unified or _any(["blkio/blkio.weight", "blkio/blkio.bfq.weight"]),
        io_throttle=unified or _any(["blkio/blkio.throttle.read_bps_device"]),
        swappiness=not unified and _any(["memory/memory.swappiness"]),
    )


def _line(path: Path) -> str:
    try:
        return path.read_text().strip() or "0"
    except OSError:
        return "0"


def _any(names: Iterable[str]) -> bool:
    return any((_GROUPS / name).exists() for name in names)
