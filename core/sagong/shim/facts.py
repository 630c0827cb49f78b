"""What the launcher tells the plugin of the machine."""

from __future__ import annotations

import msgspec

__all__ = ["HostFacts"]


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the launcher tells of the machine: cgroup hierarchies as (version, mount, option)."""

    protocol: int
    pid: int
    hierarchies: tuple[tuple[str, str, str], ...]
    bounding: int
    apparmor: bool
    selinux: bool
