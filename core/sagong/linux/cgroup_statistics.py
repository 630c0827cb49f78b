"""What a cgroup has used: one value for version 1 and 2, read from its files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from sagong.linux.cgroup import Cgroup

__all__ = ["CgroupStatistics", "DeviceIo", "statistics", "usage_file", "used_seconds"]

_NO_LIMIT = 0x7FFFFFFFFFFFF000


class DeviceIo(NamedTuple):
    """Bytes and operations of one block device."""

    device: str
    read_bytes: int = 0
    write_bytes: int = 0
    reads: int = 0
    writes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupStatistics:
    """Counters since the group was made; times in nanoseconds, sizes in bytes; limit 0: none.

    `memory_stat` holds the kernel's own names (memory.stat), which differ between the versions;
    `memory_inactive_file` is what `docker stats` and the kubelet subtract from the usage.
    """

    cpu_total: int = 0
    cpu_user: int = 0
    cpu_system: int = 0
    cpu_by_core: tuple[int, ...] = ()
    cpu_periods: int = 0
    cpu_throttled_periods: int = 0
    cpu_throttled_time: int = 0
    memory_usage: int = 0
    memory_peak: int = 0
    memory_limit: int = 0
    memory_failures: int = 0
    memory_swap: int = 0
    memory_inactive_file: int = 0
    memory_stat: dict[str, int] = field(default_factory=dict)
    oom_kills: int = 0
    pids: int = 0
    pids_limit: int = 0
    io: tuple[DeviceIo, ...] = ()


def _text(directory: str, name: str) -> str:
    """A file's text; "" when the file or the group is gone."""
    try:
        with open(f"{directory}/{name}", encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _number(directory: str, name: str) -> int:
    text = _text(directory, name).strip()
    return int(text) if text.lstrip("-").isdigit() else 0


def _limit(directory: str, name: str) -> int:
    value = _number(directory, name)
    return 0 if value >= _NO_LIMIT else value


def _table(directory: str, name: str) -> dict[str, int]:
    """A file of `key number` lines."""
    pairs = (line.split() for line in _text(directory, name).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def statistics(group: Cgroup) -> CgroupStatistics:
    """Read everything; what the machine does not count stays zero."""
    values: dict[str, object] = {}
    for controller, (first, second) in _READERS.items():
        directory = group.directory(controller)
        if directory is not None:
            version = group.layout.versions.get(controller)
            values.update((first if version == 1 else second)(directory))
    return CgroupStatistics(**values)  # type: ignore[arg-type]


def usage_file(group: Cgroup) -> str:
    """The file that tells the processor time of a group; "" if none of its hierarchies counts it.

    Version 2 counts it without a controller, also where those are mounted as version 1.
    """
    unified = group.directory("unified")
    if unified is not None:
        return f"{unified}/cpu.stat"
    old = group.directory("cpuacct")
    return f"{old}/cpuacct.usage" if old is not None else ""


def used_seconds(text: str) -> float:
    """What such a file says."""
    words = text.split()
    if len(words) == 1:
        return int(words[0]) / 1e9
    return int(words[words.index("usage_usec") + 1]) / 1e6


def _cpuacct_v1(directory: str) -> dict[str, object]:
    cores = _text(directory, "cpuacct.usage_percpu").split()
    return {
        "cpu_total": _number(directory, "cpuacct.usage"),
        "cpu_user": _number(directory, "cpuacct.usage_user"),
        "cpu_system": _number(directory, "cpuacct.usage_sys"),
        "cpu_by_core": tuple(int(core) for core in cores),
    }


def _cpu_v1(directory: str) -> dict[str, object]:
    stat = _table(directory, "cpu.stat")
    return {
        "cpu_periods": stat.get("nr_periods", 0),
        "cpu_throttled_periods": stat.get("nr_throttled", 0),
        "cpu_throttled_time": stat.get("throttled_time", 0),
    }


def _cpu_v2(directory: str) -> dict[str, object]:
    stat = _table(directory, "cpu.stat")
    return {
        "cpu_total": stat.get("usage_usec", 0) * 1000,
        "cpu_user": stat.get("user_usec", 0) * 1000,
        "cpu_system": stat.get("system_usec", 0) * 1000,
        "cpu_periods": stat.get("nr_periods", 0),
        "cpu_throttled_periods": stat.get("nr_throttled", 0),
        "cpu_throttled_time": stat.get("throttled_usec", 0) * 1000,
    }


def _nothing(directory: str) -> dict[str, object]:
    return {}


def _memory_v1(directory: str) -> dict[str, object]:
    stat = _table(directory, "memory.stat")
    usage = _number(directory, "memory.usage_in_bytes")
    with_swap = _number(directory, "memory.memsw.usage_in_bytes")
    return {
        "memory_usage": usage,
        "memory_peak": _number(directory, "memory.max_usage_in_bytes"),
        "memory_limit": _limit(directory, "memory.limit_in_bytes"),
        "memory_failures": _number(directory, "memory.failcnt"),
        "memory_swap": max(with_swap - usage, 0) if with_swap else stat.get("total_swap", 0),
        "memory_inactive_file": stat.get("total_inactive_file", 0),
        "memory_stat": stat,
        "oom_kills": _table(directory, "memory.oom_control").get("oom_kill", 0),
    }


def _memory_v2(directory: str) -> dict[str, object]:
    stat = _table(directory, "memory.stat")
    events = _table(directory, "memory.events")
    return {
        "memory_usage": _number(directory, "memory.current"),
        "memory_peak": _number(directory, "memory.peak"),
        "memory_limit": _number(directory, "memory.max"),
        "memory_failures": events.get("max", 0),
        "memory_swap": _number(directory, "memory.swap.current"),
        "memory_inactive_file": stat.get("inactive_file", 0),
        "memory_stat": stat,
        "oom_kills": events.get("oom_kill", 0),
    }


def _pids(directory: str) -> dict[str, object]:
    return {
        "pids": _number(directory, "pids.current"),
        "pids_limit": _number(directory, "pids.max"),
    }


def _io_v1(directory: str) -> dict[str, object]:
    found: dict[str, dict[str, int]] = {}
    fields = {
        ("bytes", "Read"): "read_bytes",
        ("bytes", "Write"): "write_bytes",
        ("operations", "Read"): "reads",
        ("operations", "Write"): "writes",
    }
    files = (("bytes", "io_service_bytes"), ("operations", "io_serviced"))
    for what, name in files:
        text = _text(directory, f"blkio.throttle.{name}_recursive")
        for line in (text or _text(directory, f"blkio.throttle.{name}")).splitlines():
            words = line.split()
            if len(words) == 3 and (what, words[1]) in fields:
                found.setdefault(words[0], {})[fields[what, words[1]]] = int(words[2])
    return {"io": tuple(DeviceIo(device, **counts) for device, counts in found.items())}


def _io_v2(directory: str) -> dict[str, object]:
    devices = []
    for line in _text(directory, "io.stat").splitlines():
        device, *pairs = line.split()
        count = {k: int(v) for k, _, v in (pair.partition("=") for pair in pairs) if v.isdigit()}
        keys = ("rbytes", "wbytes", "rios", "wios")
        devices.append(DeviceIo(device, *(count.get(key, 0) for key in keys)))
    return {"io": tuple(devices)}


_READERS = {
    "cpuacct": (_cpuacct_v1, _nothing),
    "cpu": (_cpu_v1, _cpu_v2),
    "memory": (_memory_v1, _memory_v2),
    "pids": (_pids, _pids),
    "blkio": (_io_v1, _io_v2),
}
