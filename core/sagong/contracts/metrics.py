"""Slot `metrics`: statistics of containers and of the machine, from cgroups and /proc."""

from __future__ import annotations

from typing import Protocol

from sagong.contract import Message, method, slot
from sagong.errors import NotFound

__all__ = [
    "Machine",
    "Metrics",
    "Sample",
    "SampleQuery",
    "SampleSet",
    "Target",
    "TargetRef",
]


class Target(Message):
    """A container to watch: its cgroup (as the runtime gives it); `group` is the pod it belongs to."""

    id: str
    cgroup: str
    group: str = ""
    labels: tuple[tuple[str, str], ...] = ()


class TargetRef(Message):
    """Names a target."""

    id: str


class Sample(Message):
    """Statistics at `time` (seconds since the epoch). CPU in nanoseconds, memory in bytes.

    `cpu_rate` is cores used on average over the `window` seconds before. `working_set` is usage
    without inactive file pages. `cpu_by_core` is of version 1 of control groups alone.
    `memory_stat` and `io` are the kernel's own names and numbers.
    """

    id: str
    time: float
    window: float = 0.0
    cpu_total: int = 0
    cpu_user: int = 0
    cpu_system: int = 0
    cpu_by_core: tuple[int, ...] = ()
    cpu_rate: float = 0.0
    throttled_periods: int = 0
    throttled_time: int = 0
    periods: int = 0
    memory_usage: int = 0
    memory_limit: int = 0
    memory_max: int = 0
    memory_fail_count: int = 0
    working_set: int = 0
    rss: int = 0
    cache: int = 0
    memory_stat: tuple[tuple[str, int], ...] = ()
    pids: int = 0
    pids_limit: int = 0
    io: tuple[tuple[str, str, int], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    group: str = ""


class SampleQuery(Message):
    """Of which targets; `fresh` reads the kernel now instead of the last periodic sample."""

    ids: tuple[str, ...] = ()
    fresh: bool = False
    history_seconds: float = 0.0


class SampleSet(Message):
    """Samples, oldest first for each target."""

    samples: tuple[Sample, ...] = ()


class Machine(Message):
    """The machine: cores, memory, load, disks' (path, size, free) and total CPU time in ns."""

    time: float
    cores: int
    cpu_total: int
    cpu_rate: float = 0.0
    system_total: int = 0
    memory_total: int
    memory_available: int
    working_set: int = 0
    load: tuple[float, float, float] = (0.0, 0.0, 0.0)
    disks: tuple[tuple[str, int, int], ...] = ()


@slot("metrics", version=1)
class Metrics(Protocol):
    """The measurer. Nothing is sampled while nobody asks, except what autoscaling needs."""

    @method(idempotent=True)
    async def track(self, target: Target) -> None:
        """Watch a container; the same id again replaces it."""
        ...

    @method(idempotent=True)
    async def untrack(self, target: TargetRef) -> None:
        """Stop watching; unknown is no error."""
        ...

    @method(idempotent=True, raises=(NotFound,))
    async def sample(self, query: SampleQuery) -> SampleSet:
        """Statistics of some targets, or of all when no id is given."""
        ...

    @method(idempotent=True)
    async def machine(self) -> Machine:
        """The machine's own."""
        ...
