"""What the launcher tells the plugin of the machine."""

from __future__ import annotations

import msgspec

__all__ = ["HostFacts"]


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the launcher tells of the machine: cgroup hierarchies as (version, mount, option).

    `least_oom_score` is the lowest that it may give; less than its own needs CAP_SYS_RESOURCE.
    """

    protocol: int
    pid: int
    hierarchies: tuple[tuple[str, str, str], ...]
    bounding: int
    apparmor: bool
    selinux: bool
    least_oom_score: int = -1000
