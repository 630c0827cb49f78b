"""Capabilities: their names, a process's five sets, and giving them up."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from sagong.linux import syscalls

__all__ = [
    "DOCKER_DEFAULT",
    "NAMES",
    "CapabilitySets",
    "apply",
    "bounding_set",
    "drop_bounding",
    "last_capability",
    "mask_of",
    "names_of",
    "number_of",
    "raise_ambient",
    "sets_of",
]

_ALL = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
    SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
    SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
    WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
NAMES = tuple("CAP_" + name for name in _ALL.split())

_NUMBERS = {name: number for number, name in enumerate(NAMES)}

_DOCKER = """
    CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE
    SYS_CHROOT KILL AUDIT_WRITE
"""
DOCKER_DEFAULT = tuple("CAP_" + name for name in _DOCKER.split())

_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_AMBIENT_RAISE = 2
_AMBIENT_CLEAR = 4


class CapabilitySets(NamedTuple):
    """The five sets of a process as bit masks."""

    inheritable: int = 0
    permitted: int = 0
    effective: int = 0
    bounding: int = 0
    ambient: int = 0


def number_of(name: str) -> int:
    """The number of a capability by its name, with or without CAP_, in any case."""
    full = name.upper()
    full = full if full.startswith("CAP_") else "CAP_" + full
    try:
        return _NUMBERS[full]
    except KeyError:
        raise ValueError(f"{name!r} is no capability; see capabilities(7) for the names") from None


def mask_of(names: Iterable[str]) -> int:
    """The bit mask of names; "ALL" stands for every capability of the running kernel."""
    mask = 0
    for name in names:
        if name.upper() in ("ALL", "CAP_ALL"):
            mask |= (1 << last_capability() + 1) - 1
        else:
            mask |= 1 << number_of(name)
    return mask


def names_of(mask: int) -> tuple[str, ...]:
    """The names in a bit mask, by number; bits newer than our table as CAP_<number>."""
    bits = (number for number in range(mask.bit_length()) if mask >> number & 1)
    return tuple(NAMES[n] if n < len(NAMES) else f"CAP_{n}" for n in bits)


@cache
def last_capability() -> int:
    """The highest capability number that the running kernel knows."""
    try:
        with open("/proc/sys/kernel/cap_last_cap", encoding="utf-8") as file:
            return int(file.read())
    except OSError:
        return len(NAMES) - 1


def sets_of(pid: int | str = "self") -> CapabilitySets:
    """The sets of a process as /proc/PID/status shows them."""
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return parse_status(file.read())


def parse_status(text: str) -> CapabilitySets:
    """The capability lines of a /proc/PID/status file."""
    lines = dict(line.split(":", 1) for line in text.splitlines() if line.startswith("Cap"))
    keys = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    return CapabilitySets(*(int(lines.get(key, "0"), 16) for key in keys))


def bounding_set() -> int:
    """This process's bounding set as a mask."""
    numbers = range(last_capability() + 1)
    return sum(1 << n for n in numbers if syscalls.prctl(_PR_CAPBSET_READ, n))


def drop_bounding(keep: int) -> None:
    """Reduce the bounding set to `keep`; what it lacks already costs nothing and is no error."""
    have = bounding_set()
    for number in range(last_capability() + 1):
        if have >> number & 1 and not keep >> number & 1:
            syscalls.prctl(_PR_CAPBSET_DROP, number, path=names_of(1 << number)[0])


def apply(sets: CapabilitySets) -> None:
    """Take exactly these sets, but not the bounding one (`drop_bounding`, before CAP_SETPCAP goes).

    Ambient ones must be permitted and inheritable too, else the kernel refuses.
    """
    syscalls.prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR)
    syscalls.capset(sets.effective, sets.permitted, sets.inheritable)
    raise_ambient(sets.ambient)


def raise_ambient(mask: int) -> None:
    """Add to the ambient set, which a uid other than 0 keeps over exec."""
    for name in names_of(mask):
        syscalls.prctl(_PR_CAP_AMBIENT, _AMBIENT_RAISE, number_of(name), path=name)
