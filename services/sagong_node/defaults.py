"""What a container has by default, as Docker gives it: capabilities and mounts. Tables."""

from __future__ import annotations

import functools

from sagong.contracts.runtime import Mount
from sagong.errors import InvalidArgument
from sagong.linux import capabilities as kernel_capabilities

__all__ = [
    "DEFAULT_CAPABILITIES",
    "capabilities",
    "system_mounts",
]

DEFAULT_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)

_SECURE = ("nosuid", "noexec", "nodev")


def system_mounts(
    *, shm_size: int, host_ipc: bool, privileged: bool, writable_cgroups: bool = False
) -> tuple[Mount, ...]:
    """/proc, /dev, /sys and what belongs to them, in the order they are mounted.

    /dev/shm goes with the ipc namespace: the host's is bound; with a size of 0 there is none.
    """
    writable = () if privileged else ("ro",)
    cgroups = () if writable_cgroups else writable
    return (
        Mount(target="/proc", kind="proc", source="proc", options=_SECURE),
        Mount(
            target="/dev",
            kind="tmpfs",
            source="tmpfs",
            options=("nosuid", "strictatime", "mode=755", "size=65536k"),
        ),
        Mount(
            target="/dev/pts",
            kind="devpts",
            source="devpts",
            options=("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        ),
        Mount(target="/sys", kind="sysfs", source="sysfs", options=(*_SECURE, *writable)),
        Mount(
            target="/sys/fs/cgroup", kind="cgroup", source="cgroup", options=(*_SECURE, *cgroups)
        ),
        Mount(target="/dev/mqueue", kind="mqueue", source="mqueue", options=_SECURE),
        *_shared_memory(shm_size, host=host_ipc),
    )


def _shared_memory(size: int, *, host: bool) -> tuple[Mount, ...]:
    if host:
        options = ("rbind", "rprivate", *_SECURE)
        return (Mount(target="/dev/shm", kind="bind", source="/dev/shm", options=options),)
    if not size:
        return ()
    options = (*_SECURE, "mode=1777", f"size={size}")
    return (Mount(target="/dev/shm", kind="tmpfs", source="shm", options=options),)


@functools.lru_cache(64)
def capabilities(
    add: tuple[str, ...], drop: tuple[str, ...], *, privileged: bool
) -> tuple[str, ...]:
    """Docker's set, changed; "ALL" is known on both sides; names with or without CAP_."""
    everything = kernel_capabilities.NAMES
    if privileged:
        return everything
    added, dropped = [_named(n) for n in add], [_named(n) for n in drop]
    chosen = set(everything) if "ALL" in added else set(DEFAULT_CAPABILITIES)
    if "ALL" in dropped:
        chosen = set(everything) if "ALL" in added else set()
    chosen |= {name for name in added if name != "ALL"}
    chosen -= set(dropped)
    return tuple(name for name in everything if name in chosen)


def _named(name: str) -> str:
    upper = name.upper()
    if upper == "ALL":
        return upper
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    try:
        kernel_capabilities.number_of(full)
    except ValueError:
        raise InvalidArgument(f'invalid capability: "{name}"') from None
    return full
