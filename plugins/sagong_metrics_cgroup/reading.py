"""Reads the kernel's counters: one container's cgroup, and the machine."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

from sagong.contracts.metrics import Machine, Sample, Target
from sagong.linux.cgroup import Cgroup, CgroupLayout
from sagong.linux.cgroup_statistics import CgroupStatistics, statistics

__all__ = ["rated", "read_machine", "read_target"]


def read_target(target: Target, layout: CgroupLayout) -> Sample | None:
    """A container's counters now; None when its cgroup is gone."""
    group = Cgroup(layout, target.cgroup)
    if not group.exists():
        return None
    found = statistics(group)
    return Sample(
        id=target.id,
        time=time.time(),
        cpu_total=found.cpu_total,
        cpu_user=found.cpu_user,
        cpu_system=found.cpu_system,
        cpu_by_core=found.cpu_by_core,
        throttled_periods=found.cpu_throttled_periods,
        throttled_time=found.cpu_throttled_time,
        periods=found.cpu_periods,
        memory_usage=found.memory_usage,
        memory_limit=found.memory_limit,
        memory_max=found.memory_peak,
        memory_fail_count=found.memory_failures,
        working_set=max(found.memory_usage - found.memory_inactive_file, 0),
        rss=_stat(found, "total_rss", "rss", "anon"),
        cache=_stat(found, "total_cache", "cache", "file"),
        memory_stat=tuple(found.memory_stat.items()),
        pids=found.pids,
        pids_limit=found.pids_limit,
        io=tuple(_io(found)),
        labels=target.labels,
        group=target.group,
    )


def _stat(found: CgroupStatistics, *names: str) -> int:
    """The first of these that the kernel's version has."""
    return next((found.memory_stat[name] for name in names if name in found.memory_stat), 0)


def _io(found: CgroupStatistics) -> list[tuple[str, str, int]]:
    return [
        (device.device, name, value)
        for device in found.io
        for name, value in (
            ("read_bytes", device.read_bytes),
            ("write_bytes", device.write_bytes),
            ("reads", device.reads),
            ("writes", device.writes),
        )
    ]


def rated(sample: Sample, before: Sample | None) -> Sample:
    """The sample with the cores used on average since the one before."""
    if before is None or sample.time <= before.time or sample.cpu_total < before.cpu_total:
        return sample
    window = sample.time - before.time
    rate = (sample.cpu_total - before.cpu_total) / 1e9 / window
    return msgspec.structs.replace(sample, cpu_rate=rate, window=window)


def read_machine(disk: Path, before: Machine | None) -> Machine:
    """The machine's counters now (proc(5): stat, meminfo, loadavg)."""
    now = time.time()
    busy, total = _cpu_times()
    memory = _meminfo()
    used, elapsed = 0.0, 0.0
    if before is not None:
        elapsed = now - before.time
        used = (busy - before.cpu_total) / 1e9 / elapsed if elapsed > 0 else 0.0
    free = os.statvfs(disk)
    one, five, fifteen = os.getloadavg()
    return Machine(
        time=now,
        cores=os.cpu_count() or 1,
        cpu_total=busy,
        cpu_rate=max(used, 0.0),
        system_total=total,
        memory_total=memory["MemTotal"],
        memory_available=memory.get("MemAvailable", memory["MemFree"]),
        working_set=memory["MemTotal"] - memory.get("MemAvailable", memory["MemFree"]),
        load=(one, five, fifteen),
        disks=((str(disk), free.f_blocks * free.f_frsize, free.f_bavail * free.f_frsize),),
    )


def _cpu_times() -> tuple[int, int]:
    """Busy and total CPU time of all cores in nanoseconds."""
    with open("/proc/stat") as file:
        fields = [int(field) for field in file.readline().split()[1:9]]
    tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) * tick, sum(fields) * tick


def _meminfo() -> dict[str, int]:
    found = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        found[name] = int(value.split()[0]) * 1024
    return found
