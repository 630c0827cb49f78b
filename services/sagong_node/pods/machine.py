"""What the machine is and how it fares: sizes, versions, addresses, pressure."""

from __future__ import annotations

import ipaddress
import os
import platform
import shutil
import socket
from pathlib import Path

import msgspec

from sagong import __version__

__all__ = ["Facts", "Load", "load", "own_address", "read_facts"]

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "riscv64": "riscv64"}
_PROBE_ADDRESS = ("192.0.2.1", 9)  # never sent to: only the route is asked for


class Facts(msgspec.Struct, frozen=True):
    """What does not change while the machine runs."""

    hostname: str
    address: str
    cpus: int
    memory: int
    disk: int
    architecture: str
    kernel: str
    os_image: str
    machine_id: str
    boot_id: str
    version: str


class Load(msgspec.Struct, frozen=True):
    """How it fares now: bytes of memory available, share of the disk that is free, free pids."""

    memory_available: int
    disk_free: float
    inodes_free: float
    pids_free: float


def own_address(wanted: str = "") -> str:
    """The address under which others reach this machine: the source of its default route."""
    if wanted:
        return str(ipaddress.ip_address(wanted))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_PROBE_ADDRESS)
            found: str = probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"
    return found


def read_facts(data: Path, *, address: str = "") -> Facts:
    """Read them; what can't be read is empty."""
    uname = os.uname()
    return Facts(
        hostname=socket.gethostname().lower(),
        address=own_address(address),
        cpus=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        disk=shutil.disk_usage(data).total,
        architecture=_ARCHITECTURES.get(uname.machine, uname.machine),
        kernel=uname.release,
        os_image=_os_image(),
        machine_id=_text("/etc/machine-id"),
        boot_id=_text("/proc/sys/kernel/random/boot_id"),
        version=__version__,
    )


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _os_image() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


def load(data: Path) -> Load:
    """Look now."""
    usage = os.statvfs(data)
    return Load(
        memory_available=_available_memory(),
        disk_free=usage.f_bavail / max(usage.f_blocks, 1),
        inodes_free=usage.f_favail / usage.f_files if usage.f_files else 1.0,
        pids_free=_free_pids(),
    )


def _available_memory() -> int:
    for line in _text("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _free_pids() -> float:
    try:
        most = int(_text("/proc/sys/kernel/pid_max"))
        used = int(_text("/proc/loadavg").split()[3].partition("/")[2])
    except (ValueError, IndexError):
        return 1.0
    return 1.0 - used / max(most, 1)
