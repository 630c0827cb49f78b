"""What a process really has, read back from /proc, and held against what it should have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from sagong.linux import capabilities, process
from sagong.linux.cgroup import Cgroup, layout_of_machine
from sagong.linux.cgroup_statistics import statistics
from sagong.linux.listening import listening
from sagong.linux.mounts import mount_table
from sagong.sandbox.machine import Machine
from sagong.sandbox.rights import Rights

__all__ = ["Effective", "SeenMount", "companions", "differences", "effective"]

_NAMESPACES = ("mnt", "net", "ipc", "uts", "pid", "user", "cgroup")


@dataclass(frozen=True, slots=True)
class SeenMount:
    """A mount: where, what, whether writable, and how mounts propagate ("private", "shared"…)."""

    path: str
    kind: str
    writable: bool
    propagation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """The powers of a process. Names of capabilities per set; `own_namespaces` differ from ours.

    Landlock domains are not visible from outside: the kernel does not tell of them.
    """

    pid: int
    uids: tuple[int, ...]
    gids: tuple[int, ...]
    groups: tuple[int, ...]
    effective: tuple[str, ...]
    permitted: tuple[str, ...]
    inheritable: tuple[str, ...]
    bounding: tuple[str, ...]
    ambient: tuple[str, ...]
    no_new_privs: bool
    seccomp_mode: int
    seccomp_filters: int
    own_namespaces: tuple[str, ...]
    mounts: tuple[SeenMount, ...]
    open_files: int
    file_size: int
    cgroups: tuple[str, ...]
    limits: tuple[str, ...] = ()
    listens: tuple[str, ...] = ()

    def describe(self) -> str:
        """A table for people."""
        filters = {0: "off", 1: "strict", 2: f"{self.seccomp_filters} filters"}
        rows = [
            ("pid", str(self.pid)),
            ("uid", "/".join(map(str, self.uids))),
            ("gid", "/".join(map(str, (*self.gids, *self.groups)))),
            ("capabilities", ", ".join(self.effective) or "none"),
            ("bounding set", ", ".join(self.bounding) or "none"),
            ("no new privileges", "yes" if self.no_new_privs else "no"),
            ("seccomp", filters.get(self.seccomp_mode, "?")),
            ("own namespaces", ", ".join(self.own_namespaces) or "none"),
            ("open files", str(self.open_files)),
            ("size of a file", _size(self.file_size)),
            ("cgroups", ", ".join(self.cgroups) or "none"),
            ("limits", ", ".join(self.limits) or "none"),
            *(("listens on", address) for address in self.listens),
            *(("mount", _mount_line(mount)) for mount in self.mounts),
        ]
        return "\n".join(f"{key:<18} {value}" for key, value in rows)


def _mount_line(mount: SeenMount) -> str:
    access = "rw" if mount.writable else "ro"
    return f"{access} {mount.path} ({mount.kind}, {mount.propagation})"


def _propagation(tags: tuple[str, ...]) -> str:
    kinds = [tag.split(":")[0] for tag in tags]
    known = {"shared": "shared", "master": "slave", "unbindable": "unbindable"}
    return "+".join(known[kind] for kind in kinds if kind in known) or "private"


def _seen_mounts(pid: int) -> tuple[SeenMount, ...]:
    return tuple(
        SeenMount(
            entry.target,
            entry.kind,
            not entry.read_only and "ro" not in entry.super_options,
            _propagation(entry.propagation),
        )
        for entry in mount_table(pid)
    )


def _namespace(pid: int | str, name: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/{name}")
    except FileNotFoundError:
        return ""


def _size(size: int) -> str:
    """Bytes for people; -1 is without a limit."""
    return "unlimited" if size < 0 else f"{size / (1 << 20):g} MiB"


def _soft_limit(pid: int, name: str) -> int:
    """A line of /proc/PID/limits (proc(5)); -1 is without a limit."""
    with open(f"/proc/{pid}/limits", encoding="ascii") as file:
        for line in file:
            if line.startswith(name):
                word = line[len(name) :].split()[0]
                return -1 if word == "unlimited" else int(word)
    return -1


def _limits(pid: int) -> tuple[str, ...]:
    """What the process's control group really bounds, in words."""
    layout = layout_of_machine()
    path = _own_group(pid)
    if not path:
        return ()
    group = Cgroup(layout, path, ("memory", "pids", "cpu"))
    found = statistics(group)
    words = [
        f"memory {_size(found.memory_limit or -1)}",
        f"processes {found.pids_limit or 'unlimited'}",
        *_processor(group.directory("cpu")),
    ]
    return tuple(words)


def _own_group(pid: int) -> str:
    """The path of the control group that holds a process; "" if that is only the machine's."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        paths = [line.rstrip("\n").split(":", 2)[2] for line in file]
    return max(paths, key=len, default="/").strip("/")


def _processor(directory: str | None) -> Iterator[str]:
    """Cores at once, and the weight beside others."""
    if directory is None:
        return
    quota, period = _word(directory, "cpu.cfs_quota_us"), _word(directory, "cpu.cfs_period_us")
    if not quota:
        quota, _, period = _word(directory, "cpu.max").partition(" ")
    if quota.isdecimal() and period.isdecimal():
        cores = int(quota) / int(period)
        yield f"{cores:g} cores" + (" (held back now)" if cores < _NEXT_TO_NOTHING else "")
    else:
        yield "all cores"
    weight = _word(directory, "cpu.shares") or _word(directory, "cpu.weight")
    if weight:
        yield f"weight {weight}"


# Less than any manifest asks for in earnest: what a unit has that floods.
_NEXT_TO_NOTHING = 0.02


def _word(directory: str, name: str) -> str:
    try:
        with open(f"{directory}/{name}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _cgroups(pid: int) -> tuple[str, ...]:
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        paths = {line.rstrip("\n").split(":", 2)[2] for line in file}
    return tuple(sorted(paths - {"/"}))


def companions(pid: int) -> tuple[int, ...]:
    """The other processes of its control group: its deputy, and what it has forked."""
    layout = layout_of_machine()
    path = _own_group(pid)
    if not path:
        return ()
    return tuple(p for p in Cgroup(layout, path, ("pids",)).pids() if p != pid)


def effective(pid: int) -> Effective:
    """Read back the powers of a process; needs root for those of others. OSError if it ended."""
    facts = process.status_facts(pid)
    sets = capabilities.sets_of(pid)
    own = (n for n in _NAMESPACES if _namespace(pid, n) != _namespace("self", n))
    return Effective(
        pid=pid,
        uids=facts.uids,
        gids=facts.gids,
        groups=facts.groups,
        effective=capabilities.names_of(sets.effective),
        permitted=capabilities.names_of(sets.permitted),
        inheritable=capabilities.names_of(sets.inheritable),
        bounding=capabilities.names_of(sets.bounding),
        ambient=capabilities.names_of(sets.ambient),
        no_new_privs=facts.no_new_privs,
        seccomp_mode=facts.seccomp_mode,
        seccomp_filters=facts.seccomp_filters,
        own_namespaces=tuple(own),
        mounts=_seen_mounts(pid),
        open_files=_soft_limit(pid, "Max open files"),
        file_size=_soft_limit(pid, "Max file size"),
        cgroups=_cgroups(pid),
        limits=_limits(pid),
        listens=listening(pid),
    )


def differences(found: Effective, rights: Rights, machine: Machine) -> tuple[str, ...]:
    """Where a process deviates from its rights, in words; empty when it is exactly as planned."""
    mask = capabilities.mask_of(rights.capabilities) & machine.capabilities
    caps = capabilities.names_of(mask)
    spaces = {"mnt", "ipc", "uts"} | ({"net"} if rights.network == "none" else set())
    checks = [
        ("uids", found.uids, (rights.uid,) * 4),
        ("gids", found.gids, (rights.gid,) * 4),
        ("groups", found.groups, tuple(sorted(rights.groups))),
        *((kind, getattr(found, kind), caps) for kind in _SETS),
        ("no_new_privs", found.no_new_privs, True),
        ("seccomp_mode", found.seccomp_mode, 2),
        ("own_namespaces", set(found.own_namespaces), spaces),
        ("writable mounts", _writable(found, rights), set()),
    ]
    return tuple(f"{what}: {is_}, not {should}" for what, is_, should in checks if is_ != should)


_SETS = ("effective", "permitted", "inheritable", "bounding", "ambient")


def _writable(found: Effective, rights: Rights) -> set[str]:
    """Writable mounts that no right explains."""
    granted = [grant.path for grant in rights.paths if grant.access == "write"]
    granted += ["/tmp", rights.data, rights.run, *(device.path for device in rights.devices)]
    tops = tuple(top for top in granted if top)
    return {
        mount.path
        for mount in found.mounts
        if mount.writable
        and not any(mount.path == top or mount.path.startswith(top + "/") for top in tops)
    }
