"""events and ps: what a container uses, and which processes are in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from sagong.linux import process
from sagong.shim.failure import StartError
from sagong_runtime_linux.oci.containers import STOPPED, Container, Containers
from sagong_runtime_linux.oci.options import Options, UsageError

if TYPE_CHECKING:
    from sagong.linux.cgroup_statistics import CgroupStatistics

__all__ = ["events", "processes", "seconds_of"]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_INTERVAL = "5s"


def seconds_of(text: str) -> float:
    """A duration in Go's form with one unit: "100ms", "5s"."""
    number = text.rstrip("mhs")
    try:
        found = float(number) * _UNITS[text[len(number) :]]
    except (KeyError, ValueError):
        raise UsageError(f"duration {text!r} is not of the form 100ms, 5s, 1m or 1h") from None
    if found <= 0:
        raise UsageError(f"duration {text!r} must be greater than 0")
    return found


def _say(kind: str, container: Container, data: dict[str, Any] | None) -> None:
    told = {"type": kind, "id": container.id, **({} if data is None else {"data": data})}
    sys.stdout.write(json.dumps(told, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def events(containers: Containers, options: Options) -> int:
    """With --stats one line of figures; else such a line each interval, and one for each kill."""
    from sagong.linux.cgroup_statistics import statistics

    interval = seconds_of(options.text("interval", _INTERVAL))
    container = containers.find(options.name())
    if container.status() == STOPPED:
        raise StartError("failed_precondition", f"container {container.id} is not running")
    group = container.cgroup()
    _say("stats", container, _figures(statistics(group)))
    if options.flag("stats"):
        return 0
    pidfd = process.open_identified(container.identity)
    if pidfd is None:
        return 0

    from sagong.shim.loop import READ, Loop
    from sagong.shim.oom import OomWatch

    loop = Loop()
    watch = OomWatch(loop, group, lambda: _say("oom", container, None))

    def tick() -> None:
        _say("stats", container, _figures(statistics(group)))
        loop.later(interval, tick)

    def ended(_: int) -> None:
        watch.check()
        loop.running = False

    loop.add(pidfd, READ, ended)
    loop.later(interval, tick)
    loop.run()
    return 0


def _figures(found: CgroupStatistics) -> dict[str, Any]:
    """By the names that `runc events` gives them, for who reads that."""
    memory = {
        "limit": found.memory_limit,
        "usage": found.memory_usage,
        "max": found.memory_peak,
        "failcnt": found.memory_failures,
    }
    throttling = {
        "periods": found.cpu_periods,
        "throttledPeriods": found.cpu_throttled_periods,
        "throttledTime": found.cpu_throttled_time,
    }
    usage = {
        "total": found.cpu_total,
        "percpu": list(found.cpu_by_core),
        "kernel": found.cpu_system,
        "user": found.cpu_user,
    }
    return {
        "cpu": {"usage": usage, "throttling": throttling},
        "memory": {
            "cache": found.memory_stat.get("total_cache", found.memory_stat.get("file", 0)),
            "usage": memory,
            "swap": {"usage": found.memory_swap},
            "raw": found.memory_stat,
        },
        "pids": {"current": found.pids, "limit": found.pids_limit},
        "blkio": {
            "ioServiceBytesRecursive": _io(found, ("read_bytes", "Read"), ("write_bytes", "Write")),
            "ioServicedRecursive": _io(found, ("reads", "Read"), ("writes", "Write")),
        },
    }


def _io(found: CgroupStatistics, *fields: tuple[str, str]) -> list[dict[str, Any]]:
    entries = []
    for device in found.io:
        major, _, minor = device.device.partition(":")
        if minor.isdigit():
            numbers = {"major": int(major), "minor": int(minor)}
            entries += [{**numbers, "op": op, "value": getattr(device, f)} for f, op in fields]
    return entries


def processes(containers: Containers, options: Options) -> int:
    """Pids as the host sees them, as JSON; or what ps(1) says of them, by its options."""
    container = containers.find(options.name())
    pids = list(container.cgroup().pids())
    form = options.text("format", "table")
    if form == "json":
        sys.stdout.write(json.dumps(pids) + "\n")
        return 0
    if form != "table":
        raise UsageError(f"format {form!r} is none of table, json")
    words = list(options.words[1:]) or ["-ef"]
    done = subprocess.run(
        ["ps", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise StartError("failed_precondition", f"ps {' '.join(words)}: {done.stdout.strip()}")
    header, *lines = done.stdout.splitlines()
    if "PID" not in header.split():
        raise UsageError(f"ps {' '.join(words)} shows no column PID")
    at = header.split().index("PID")
    known = {str(pid) for pid in pids if pid != os.getpid()}
    kept = [line for line in lines if line.split()[at : at + 1] and line.split()[at] in known]
    sys.stdout.write("".join(f"{line}\n" for line in (header, *kept)))
    return 0
