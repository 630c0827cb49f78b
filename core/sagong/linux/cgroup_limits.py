"""Resource limits as a pure function: limits and a cgroup version give the files to write."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["CgroupLimits", "LimitWrite", "limit_writes", "weight_of_shares"]

UNLIMITED = -1


class CgroupLimits(NamedTuple):
    """Limits in Docker's units: bytes, microseconds, shares; None leaves the kernel's, -1 lifts.

    `memory_swap` is memory and swap together. `io_*` hold ("major:minor", value) for each device.
    `devices` are rules like "c 1:3 rwm" that are allowed (all else is denied), None for no rule.
    """

    memory: int | None = None
    memory_swap: int | None = None
    memory_reservation: int | None = None
    memory_swappiness: int | None = None
    oom_kill_disable: bool = False
    cpu_shares: int | None = None
    cpu_quota: int | None = None
    cpu_period: int | None = None
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    pids: int | None = None
    io_weight: int | None = None
    io_read_bps: tuple[tuple[str, int], ...] = ()
    io_write_bps: tuple[tuple[str, int], ...] = ()
    io_read_iops: tuple[tuple[str, int], ...] = ()
    io_write_iops: tuple[tuple[str, int], ...] = ()
    devices: tuple[str, ...] | None = None


class LimitWrite(NamedTuple):
    """One write: the controller, the file in its cgroup directory, the text.

    `optional` files exist only with some kernels or schedulers: their absence is no error.
    """

    controller: str
    file: str
    value: str
    optional: bool = False


def weight_of_shares(shares: int) -> int:
    """CPU shares (2 to 262144) as a v2 weight (1 to 10000), linearly as runc and systemd do."""
    bounded = min(max(shares, 2), 262144)
    return 1 + (bounded - 2) * 9999 // 262142


def limit_writes(limits: CgroupLimits, versions: dict[str, int]) -> tuple[LimitWrite, ...]:
    """The writes that put `limits` into force; `versions` tells 1 or 2 for each controller.

    Raises ValueError naming the limit whose controller the machine lacks.
    """
    wanted = {
        "memory": (_memory_v1, _memory_v2),
        "cpu": (_cpu_v1, _cpu_v2),
        "cpuset": (_cpuset, _cpuset),
        "pids": (_pids, _pids),
        "blkio": (_io_v1, _io_v2),
        "devices": (_devices_v1, _nothing),
    }
    writes: list[LimitWrite] = []
    for controller, (first, second) in wanted.items():
        version = versions.get(controller, 0)
        needed = (first if version == 1 else second)(limits)
        if version == 0 and (needed or (controller == "devices" and limits.devices is not None)):
            raise ValueError(f"limit needs cgroup controller {controller}, which is not mounted")
        writes += needed
    return tuple(writes)


def _nothing(limits: CgroupLimits) -> list[LimitWrite]:
    return []


def _text(value: int, unlimited: str) -> str:
    return unlimited if value < 0 else str(value)


def _memory_v1(limits: CgroupLimits) -> list[LimitWrite]:
    files = (
        ("memory.limit_in_bytes", limits.memory, False),
        ("memory.memsw.limit_in_bytes", limits.memory_swap, True),
        ("memory.soft_limit_in_bytes", limits.memory_reservation, False),
        ("memory.swappiness", limits.memory_swappiness, False),
    )
    writes = [LimitWrite("memory", f, str(v), o) for f, v, o in files if v is not None]
    if limits.oom_kill_disable:
        writes.append(LimitWrite("memory", "memory.oom_control", "1"))
    return writes


def _memory_v2(limits: CgroupLimits) -> list[LimitWrite]:
    writes = []
    if limits.memory is not None:
        writes.append(LimitWrite("memory", "memory.max", _text(limits.memory, "max")))
    if limits.memory_swap is not None:
        swap = limits.memory_swap
        if swap >= 0 and limits.memory is not None and limits.memory >= 0:
            swap = max(swap - limits.memory, 0)
        writes.append(LimitWrite("memory", "memory.swap.max", _text(swap, "max"), True))
    if limits.memory_reservation is not None:
        low = max(limits.memory_reservation, 0)
        writes.append(LimitWrite("memory", "memory.low", str(low)))
    return writes


def _cpu_v1(limits: CgroupLimits) -> list[LimitWrite]:
    files = (
        ("cpu.shares", limits.cpu_shares or None),
        ("cpu.cfs_period_us", limits.cpu_period or None),
        ("cpu.cfs_quota_us", limits.cpu_quota or None),
    )
    return [LimitWrite("cpu", name, str(value)) for name, value in files if value is not None]


def _cpu_v2(limits: CgroupLimits) -> list[LimitWrite]:
    writes = []
    if limits.cpu_shares:
        writes.append(LimitWrite("cpu", "cpu.weight", str(weight_of_shares(limits.cpu_shares))))
    if limits.cpu_quota or limits.cpu_period:
        quota = _text(limits.cpu_quota or UNLIMITED, "max")
        writes.append(LimitWrite("cpu", "cpu.max", f"{quota} {limits.cpu_period or 100000}"))
    return writes


def _cpuset(limits: CgroupLimits) -> list[LimitWrite]:
    files = (("cpuset.cpus", limits.cpuset_cpus), ("cpuset.mems", limits.cpuset_mems))
    return [LimitWrite("cpuset", name, value) for name, value in files if value]


def _pids(limits: CgroupLimits) -> list[LimitWrite]:
    if limits.pids is None:
        return []
    return [LimitWrite("pids", "pids.max", str(limits.pids) if limits.pids > 0 else "max")]


_THROTTLES = (
    ("io_read_bps", "blkio.throttle.read_bps_device", "rbps"),
    ("io_write_bps", "blkio.throttle.write_bps_device", "wbps"),
    ("io_read_iops", "blkio.throttle.read_iops_device", "riops"),
    ("io_write_iops", "blkio.throttle.write_iops_device", "wiops"),
)


def _io_v1(limits: CgroupLimits) -> list[LimitWrite]:
    writes = []
    if limits.io_weight:
        # Which of the two exists depends on the I/O scheduler; neither without CFQ or BFQ.
        for name in ("blkio.weight", "blkio.bfq.weight"):
            writes.append(LimitWrite("blkio", name, str(limits.io_weight), True))
    for field, file, _ in _THROTTLES:
        for device, value in getattr(limits, field):
            writes.append(LimitWrite("blkio", file, f"{device} {value}"))
    return writes


def _io_v2(limits: CgroupLimits) -> list[LimitWrite]:
    writes = []
    if limits.io_weight:
        weight = 1 + (limits.io_weight - 10) * 9999 // 990
        writes.append(LimitWrite("blkio", "io.bfq.weight", str(limits.io_weight), True))
        writes.append(LimitWrite("blkio", "io.weight", f"default {max(weight, 1)}", True))
    for field, _, key in _THROTTLES:
        for device, value in getattr(limits, field):
            writes.append(LimitWrite("blkio", "io.max", f"{device} {key}={value or 'max'}"))
    return writes


def _devices_v1(limits: CgroupLimits) -> list[LimitWrite]:
    if limits.devices is None:
        return []
    deny = LimitWrite("devices", "devices.deny", "a")
    return [deny, *(LimitWrite("devices", "devices.allow", rule) for rule in limits.devices)]
