"""Limits of a create or update body as the runtime's. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sagong.contracts.runtime import Limits, Rlimit
from sagong.errors import InvalidArgument
from sagong_docker.body import HostConfig, ThrottleDevice
from sagong_docker.machine import Machine, numbers

__all__ = ["check_limits", "discarded", "limits", "rlimits", "size_of", "update_conflicts"]

_RLIMITS = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc",
    "rss", "rtprio", "rttime", "sigpending", "stack", "as",
)  # fmt: skip
_LEAST_MEMORY = 6 << 20
_CPU_PERIOD = 100_000
_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def limits(host: HostConfig, machine: Machine) -> Limits:
    """What was asked for, checked in Docker's words; what the machine can't do is left out."""
    check_limits(host, machine)
    quota, period = host.cpu_quota, host.cpu_period
    if host.nano_cpus:
        quota, period = host.nano_cpus * _CPU_PERIOD // 10**9, _CPU_PERIOD
    return Limits(
        memory=host.memory or None,
        memory_swap=_swap(host),
        memory_reservation=host.memory_reservation or None,
        memory_swappiness=_swappiness(host) if machine.swappiness else None,
        oom_kill_disable=bool(host.oom_kill_disable) and not machine.unified,
        cpu_shares=host.cpu_shares or None,
        cpu_quota=quota or None,
        cpu_period=period or None,
        cpuset_cpus=host.cpuset_cpus or None,
        cpuset_mems=host.cpuset_mems or None,
        pids=host.pids_limit if host.pids_limit and host.pids_limit > 0 else None,
        io_weight=host.blkio_weight or None if machine.io_weight else None,
        io_read_bps=_throttles(host.blkio_device_read_bps),
        io_write_bps=_throttles(host.blkio_device_write_bps),
        io_read_iops=_throttles(host.blkio_device_read_iops),
        io_write_iops=_throttles(host.blkio_device_write_iops),
    )


def discarded(host: HostConfig, machine: Machine) -> dict[str, Any]:
    """What the machine can't do, as its container is shown: it is warned of, and left out."""
    found: dict[str, Any] = {}
    if host.blkio_weight and not machine.io_weight:
        found["BlkioWeight"] = 0
    if host.blkio_weight_device:
        found["BlkioWeightDevice"] = []
    if host.memory_swappiness is not None and not machine.swappiness:
        found["MemorySwappiness"] = None
    if host.oom_kill_disable and machine.unified:
        found["OomKillDisable"] = None
    return found


def rlimits(host: HostConfig) -> tuple[Rlimit, ...]:
    """Ulimits; a soft one above its hard one is refused as the client's own parser does."""
    for limit in host.ulimits or ():
        if limit.name.lower() not in _RLIMITS:
            raise InvalidArgument(f"invalid ulimit type: {limit.name}")
        if limit.soft > limit.hard >= 0:
            raise InvalidArgument(
                "ulimit soft limit must be less than or equal to hard limit: "
                f"{limit.soft} > {limit.hard}"
            )
    return tuple(Rlimit(name=u.name.lower(), soft=u.soft, hard=u.hard) for u in host.ulimits or ())


def size_of(text: str) -> int:
    """Bytes of `10m`, `1.5g`, `4096`."""
    lowered = text.strip().lower().removesuffix("b").removesuffix("i") or "b"
    unit = _UNITS.get(lowered[-1], 0)
    digits = lowered[:-1] if unit else lowered
    try:
        return int(float(digits) * (unit or 1))
    except ValueError:
        raise InvalidArgument(f"invalid size: '{text}'") from None


def check_limits(host: HostConfig, machine: Machine, *, update: bool = False) -> None:
    """Refuse what contradicts itself or this machine; an update need not be complete."""
    for complaint in (
        *_memory(host, update=update),
        *_processor(host, machine),
        *_sets(host, machine),
    ):
        raise InvalidArgument(complaint)
    if machine.io_weight and host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")


def update_conflicts(now: HostConfig, given: HostConfig) -> Iterator[str]:
    """Where an update contradicts what holds now."""
    conflict, set_already = "Conflicting options: ", "has already been set"
    if given.nano_cpus > 0 and now.cpu_period > 0:
        yield f"{conflict}Nano CPUs cannot be updated as CPU Period {set_already}"
    if given.nano_cpus > 0 and now.cpu_quota > 0:
        yield f"{conflict}Nano CPUs cannot be updated as CPU Quota {set_already}"
    if given.cpu_period > 0 and now.nano_cpus > 0:
        yield f"{conflict}CPU Period cannot be updated as NanoCPUs {set_already}"
    if given.cpu_quota > 0 and now.nano_cpus > 0:
        yield f"{conflict}CPU Quota cannot be updated as NanoCPUs {set_already}"
    if given.memory and given.memory > (_swap(now) or 0) and not given.memory_swap:
        yield (
            "Memory limit should be smaller than already set memoryswap limit, "
            "update the memoryswap at the same time"
        )
    policy = given.restart_policy
    if policy and now.auto_remove and policy.name not in ("", "no"):
        yield "Restart policy cannot be updated because AutoRemove is enabled for the container"


def _memory(host: HostConfig, *, update: bool) -> Iterator[str]:
    if host.memory and host.memory < _LEAST_MEMORY:
        yield "Minimum memory limit allowed is 6MB"
    if host.memory and 0 < host.memory_swap < host.memory:
        yield "Minimum memoryswap limit should be larger than memory limit, see usage"
    if host.memory_swap > 0 and not host.memory and not update:
        yield "You should always set the Memory limit when using Memoryswap limit, see usage"
    if host.memory_swappiness is not None and not -1 <= host.memory_swappiness <= 100:
        yield f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100"
    if 0 < host.memory_reservation < _LEAST_MEMORY:
        yield "Minimum memory reservation allowed is 6MB"
    if host.memory and host.memory_reservation > host.memory:
        yield "Minimum memory limit can not be less than memory reservation limit, see usage"


def _processor(host: HostConfig, machine: Machine) -> Iterator[str]:
    if host.cpu_shares < 0:
        yield f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer"
    if host.nano_cpus > 0 and host.cpu_period > 0:
        yield "Conflicting options: Nano CPUs and CPU Period cannot both be set"
    if host.nano_cpus > 0 and host.cpu_quota > 0:
        yield "Conflicting options: Nano CPUs and CPU Quota cannot both be set"
    if host.nano_cpus < 0 or host.nano_cpus > machine.cores * 10**9:
        cores = machine.cores
        yield f"range of CPUs is from 0.01 to {cores}.00, as there are only {cores} CPUs available"
    if host.cpu_period and not 1000 <= host.cpu_period <= 1000000:
        yield (
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < host.cpu_quota < 1000:
        yield "CPU cfs quota can not be less than 1ms (i.e. 1000)"


def _sets(host: HostConfig, machine: Machine) -> Iterator[str]:
    for wanted, there, short, long in (
        (host.cpuset_cpus, machine.cpus, "cpus", "CPUs"),
        (host.cpuset_mems, machine.nodes, "mems", "memory nodes"),
    ):
        try:
            asked = numbers(wanted)
        except ValueError as error:
            yield f"Invalid value {wanted} for cpuset {short}: {error}"
            continue
        if not asked <= numbers(there):
            yield f"Requested {long} are not available - requested {wanted}, available: {there}"


def _swap(host: HostConfig) -> int | None:
    """Memory and swap together; without a wish as much swap as memory; -1 is no limit."""
    if not host.memory:
        return None
    return host.memory_swap or 2 * host.memory


def _swappiness(host: HostConfig) -> int | None:
    wanted = host.memory_swappiness
    return wanted if wanted is not None and wanted >= 0 else None


def _throttles(devices: Iterable[ThrottleDevice] | None) -> tuple[tuple[str, int], ...]:
    return tuple((device.path, device.rate) for device in devices or ())
