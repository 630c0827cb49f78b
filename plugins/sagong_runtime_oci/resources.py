"""Limits of the contract as `resources` of the OCI specification; pure, and lean for the launcher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["resources_of"]

Numbers = Callable[[str], tuple[int, int]]

_MEMORY = (
    ("memory", "limit"),
    ("memory_swap", "swap"),
    ("memory_reservation", "reservation"),
    ("memory_swappiness", "swappiness"),
)
_CPU = (
    ("cpu_shares", "shares"),
    ("cpu_quota", "quota"),
    ("cpu_period", "period"),
    ("cpuset_cpus", "cpus"),
    ("cpuset_mems", "mems"),
)
_THROTTLES = (
    ("io_read_bps", "throttleReadBpsDevice"),
    ("io_write_bps", "throttleWriteBpsDevice"),
    ("io_read_iops", "throttleReadIOPSDevice"),
    ("io_write_iops", "throttleWriteIOPSDevice"),
)


def _chosen(limits: dict[str, Any], names: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    return {key: limits[name] for name, key in names if limits.get(name) not in (None, "")}


def resources_of(limits: dict[str, Any], numbers: Numbers) -> dict[str, Any]:
    """What is set in a `Limits` given as built-in types; `numbers` tells a device's numbers."""
    memory = _chosen(limits, _MEMORY)
    if limits.get("oom_kill_disable"):
        memory["disableOOMKiller"] = True
    found: dict[str, Any] = {"memory": memory, "cpu": _chosen(limits, _CPU)}
    if limits.get("pids") is not None:
        found["pids"] = {"limit": limits["pids"] or -1}
    found["blockIO"] = _io(limits, numbers)
    return {key: value for key, value in found.items() if value}


def _io(limits: dict[str, Any], numbers: Numbers) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if limits.get("io_weight"):
        found["weight"] = limits["io_weight"]
    for name, key in _THROTTLES:
        for device, rate in limits.get(name) or ():
            major, minor = numbers(device)
            found.setdefault(key, []).append({"major": major, "minor": minor, "rate": rate})
    return found
