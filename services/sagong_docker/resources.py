"""Limits of a create or update body as the runtime's. Pure."""

from __future__ import annotations

import os
from collections.abc import Iterable

from sagong.contracts.runtime import Limits, Rlimit
from sagong.errors import InvalidArgument
from sagong_docker.body import HostConfig, ThrottleDevice

__all__ = ["limits", "rlimits", "size_of"]

_LEAST_MEMORY = 6 << 20
_CPU_PERIOD = 100_000
_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def limits(host: HostConfig) -> Limits:
    """What was asked for, checked in Docker's words."""
    _check(host)
    quota, period = host.cpu_quota, host.cpu_period
    if host.nano_cpus:
        quota, period = host.nano_cpus * _CPU_PERIOD // 10**9, _CPU_PERIOD
    return Limits(
        memory=host.memory or None,
        memory_swap=_swap(host),
        memory_reservation=host.memory_reservation or None,
        memory_swappiness=_swappiness(host),
        oom_kill_disable=bool(host.oom_kill_disable),
        cpu_shares=host.cpu_shares or None,
        cpu_quota=quota or None,
        cpu_period=period or None,
        cpuset_cpus=host.cpuset_cpus or None,
        cpuset_mems=host.cpuset_mems or None,
        pids=host.pids_limit if host.pids_limit and host.pids_limit > 0 else None,
        io_weight=host.blkio_weight or None,
        io_read_bps=_throttles(host.blkio_device_read_bps),
        io_write_bps=_throttles(host.blkio_device_write_bps),
        io_read_iops=_throttles(host.blkio_device_read_iops),
        io_write_iops=_throttles(host.blkio_device_write_iops),
    )


def rlimits(host: HostConfig) -> tuple[Rlimit, ...]:
    """Ulimits."""
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


def _check(host: HostConfig) -> None:
    if host.memory and host.memory < _LEAST_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if host.memory_swap > 0 and not host.memory:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit")
    if host.memory and 0 < host.memory_swap < host.memory:
        raise InvalidArgument(
            "Minimum memoryswap limit should be larger than memory limit, see usage"
        )
    if host.memory and host.memory_reservation > host.memory:
        raise InvalidArgument(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )
    if host.nano_cpus and (host.cpu_quota or host.cpu_period):
        raise InvalidArgument(
            "Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set"
        )
    machine = os.cpu_count() or 1
    if host.nano_cpus < 0 or host.nano_cpus > machine * 10**9:
        raise InvalidArgument(
            f"Range of CPUs is from 0.01 to {machine}.00, as there are only {machine} CPUs available"
        )
    if host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    if host.memory_swappiness is not None and not -1 <= host.memory_swappiness <= 100:
        raise InvalidArgument(
            f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100"
        )


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
