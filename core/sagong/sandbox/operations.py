"""Steps of a sandbox as data: each says what it does by `describe()` and does it by `apply()`.

They run in a freshly forked, single-threaded child that is root until `Identity`.
"""

from __future__ import annotations

import os
import resource
import stat
from dataclasses import dataclass, field
from typing import Protocol

from sagong.linux import capabilities, landlock, process, seccomp, syscalls
from sagong.linux.cgroup import Cgroup, CgroupLayout
from sagong.linux.cgroup_limits import CgroupLimits

__all__ = [
    "CloseDescriptors",
    "CloseDirectories",
    "EnterCgroup",
    "Filter",
    "HostName",
    "Identity",
    "NoNewPrivileges",
    "Operation",
    "OwnKeyring",
    "ResourceLimit",
    "Restrict",
    "ShortTurns",
    "Stage",
    "Unshare",
]


class Stage:
    """What operations of one run hand on: the new root, and detached mounts by path."""

    def __init__(self) -> None:
        self.root = ""
        self.held: dict[str, int] = {}
        self.notes: list[str] = []


class Operation(Protocol):
    """A step."""

    def describe(self) -> str:
        """One line for people."""
        ...

    def apply(self, stage: Stage) -> None:
        """Do it; OSError when the kernel refuses."""
        ...


@dataclass(frozen=True, slots=True)
class EnterCgroup:
    """Make the process's cgroup with its limits, and go in."""

    layout: CgroupLayout
    path: str
    controllers: tuple[str, ...]
    limits: CgroupLimits

    def describe(self) -> str:
        """One line for people."""
        limits = self.limits
        sizes = f"memory {limits.memory}, pids {limits.pids}, cpu shares {limits.cpu_shares}"
        if limits.cpu_quota and limits.cpu_period:
            sizes += f", {limits.cpu_quota / limits.cpu_period:g} cores"
        return f"enter cgroup {self.path} ({', '.join(self.controllers)}): {sizes}"

    def apply(self, stage: Stage) -> None:
        """Limits come first: the process must never be in an unlimited group."""
        group = Cgroup(self.layout, self.path, self.controllers)
        group.create()
        group.limit(self.limits)
        group.enter()


@dataclass(frozen=True, slots=True)
class CloseDescriptors:
    """Close all descriptors but some: an open directory would lead out of the new root."""

    keep: tuple[int, ...]

    def describe(self) -> str:
        """One line for people."""
        return f"close all descriptors but {', '.join(map(str, sorted(self.keep)))}"

    def apply(self, stage: Stage) -> None:
        """Close the ranges between the kept ones."""
        first = 0
        for kept in sorted(set(self.keep)):
            if kept > first:
                syscalls.close_range(first, kept - 1)
            first = kept + 1
        syscalls.close_range(first)


@dataclass(frozen=True, slots=True)
class CloseDirectories:
    """Close inherited descriptors of directories: each would lead out of the new root."""

    def describe(self) -> str:
        """One line for people."""
        return "close all descriptors of directories"

    def apply(self, stage: Stage) -> None:
        """Sockets, pipes and files stay: whoever opened them meant to hand them over."""
        for number in [int(name) for name in os.listdir("/proc/self/fd")]:
            try:
                is_directory = stat.S_ISDIR(os.fstat(number).st_mode)
            except OSError:
                continue  # the descriptor through which the list was read
            if is_directory:
                os.close(number)


@dataclass(frozen=True, slots=True)
class Unshare:
    """New namespaces."""

    names: tuple[str, ...]

    def describe(self) -> str:
        """One line for people."""
        return f"new namespaces: {', '.join(self.names)}"

    def apply(self, stage: Stage) -> None:
        """All in one call."""
        flags = 0
        for name in self.names:
            flags |= int(getattr(syscalls.Namespace, name.upper()))
        syscalls.unshare(flags)


@dataclass(frozen=True, slots=True)
class HostName:
    """The host name in the new uts namespace."""

    name: str

    def describe(self) -> str:
        """One line for people."""
        return f"host name {self.name}"

    def apply(self, stage: Stage) -> None:
        """Set it."""
        syscalls.sethostname(self.name[:64])


@dataclass(frozen=True, slots=True)
class ResourceLimit:
    """A resource limit, soft and hard."""

    name: str
    value: int

    def describe(self) -> str:
        """One line for people."""
        return f"limit {self.name} to {self.value}"

    def apply(self, stage: Stage) -> None:
        """Lowering needs no privilege."""
        number = int(getattr(resource, "RLIMIT_" + self.name.upper()))
        resource.setrlimit(number, (self.value, self.value))


@dataclass(frozen=True, slots=True)
class ShortTurns:
    """So long it runs before who wakes may go first; the shorter, the sooner it goes first itself."""

    nanoseconds: int

    def describe(self) -> str:
        """One line for people."""
        return f"turns of {self.nanoseconds / 1e6:g} ms on a processor"

    def apply(self, stage: Stage) -> None:
        """A machine that refuses has longer turns for all: nothing is less safe by that."""
        try:
            process.set_turns(0, self.nanoseconds)
        except OSError as error:
            stage.notes.append(f"no short turns: {error}")


@dataclass(frozen=True, slots=True)
class OwnKeyring:
    """A new session keyring, so that none of the machine's keys is in possession."""

    def describe(self) -> str:
        """One line for people."""
        return "own session keyring"

    def apply(self, stage: Stage) -> None:
        """Kernels without keyrings have no keys to hide."""
        try:
            syscalls.join_session_keyring()
        except OSError as error:
            stage.notes.append(f"no own session keyring: {error}")


@dataclass(frozen=True, slots=True)
class NoNewPrivileges:
    """No program executed from here can gain rights."""

    def describe(self) -> str:
        """One line for people."""
        return "no new privileges"

    def apply(self, stage: Stage) -> None:
        """Also what allows Landlock and seccomp without CAP_SYS_ADMIN."""
        process.set_no_new_privs()


@dataclass(frozen=True, slots=True)
class Restrict:
    """A Landlock domain."""

    ruleset: landlock.Ruleset

    def describe(self) -> str:
        """One line for people."""
        rules = self.ruleset
        files = f"{len(rules.paths)} paths" if rules.handle_files else "no rules for files"
        signals = "signals and " if rules.scope_signals else ""
        return f"Landlock: {files}, {signals}abstract sockets stay inside"

    def apply(self, stage: Stage) -> None:
        """Rules are made for the paths that are there."""
        there = landlock.existing(self.ruleset.paths)
        stage.notes.extend(landlock.restrict(self.ruleset._replace(paths=there)))


_PR_SET_KEEPCAPS = 8
_PR_SET_SECUREBITS = 28
# NOROOT and its lock: uid 0 alone gives a program nothing.
_SECURE_BITS = 0b11


@dataclass(frozen=True, slots=True)
class Identity:
    """The uid, the gids, and exactly these capabilities, in every set."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    capabilities: int

    def describe(self) -> str:
        """One line for people."""
        names = ", ".join(capabilities.names_of(self.capabilities)) or "none"
        return f"uid {self.uid}, gid {self.gid}, capabilities: {names}"

    def apply(self, stage: Stage) -> None:
        """Bounding set first (it needs CAP_SETPCAP), ambient last (it needs the inheritable)."""
        capabilities.drop_bounding(self.capabilities)
        syscalls.prctl(_PR_SET_SECUREBITS, _SECURE_BITS, path="securebits")
        syscalls.prctl(_PR_SET_KEEPCAPS, 1, path="keepcaps")
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        keep = self.capabilities
        capabilities.apply(capabilities.CapabilitySets(keep, keep, keep, keep, keep))
        # The change of uid made the process undumpable, which would hide /proc/self from itself.
        process.set_dumpable(dumpable=True)


@dataclass(frozen=True, slots=True)
class Filter:
    """The seccomp filter; the last step, since it may forbid what the others need."""

    code: bytes = field(repr=False)
    groups: tuple[str, ...] = ()

    def describe(self) -> str:
        """One line for people."""
        return f"seccomp: plugins' calls, with groups: {', '.join(self.groups) or 'none'}"

    def apply(self, stage: Stage) -> None:
        """Load it."""
        seccomp.load(self.code)
