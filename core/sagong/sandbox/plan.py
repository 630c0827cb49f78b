"""From rights and a machine to the steps of a sandbox: a pure function, and what it leaves out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sagong.errors import FailedPrecondition
from sagong.linux import capabilities
from sagong.linux.cgroup_limits import UNLIMITED, CgroupLimits
from sagong.linux.landlock import EXECUTE, READ, WRITE, PathRule, Ruleset, handled_rights
from sagong.sandbox import filesystem as fs
from sagong.sandbox import operations as op
from sagong.sandbox.machine import Machine
from sagong.sandbox.rights import Rights
from sagong.sandbox.syscall_groups import compiled_policy

__all__ = ["Plan", "cores_limits", "plan", "turns"]

_MOUNT_API = (5, 12)  # open_tree, move_mount and mount_setattr
_PROC_OPTIONS = (5, 8)  # options of proc for each mount
_TURNS = (6, 12)  # turns of ordinary processes by sched_setattr
_SHORT, _LONG = 100_000, 100_000_000  # nanoseconds: the kernel's least and most
_PERIOD, _LEAST_QUOTA = 100_000, 1000  # microseconds of processor time, as the kernel wants them


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in order, and notes on what this machine can't enforce and why."""

    name: str
    operations: tuple[op.Operation, ...]
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """The plan as text, a line for each step and note."""
        lines = [operation.describe() for operation in self.operations]
        return "\n".join([*lines, *(f"left out: {note}" for note in self.notes)])

    def apply(self) -> tuple[str, ...]:
        """Carry it out in a forked child; returns further notes.

        FailedPrecondition names the step that failed: the process must end then, it is half inside.
        """
        stage = op.Stage()
        for operation in self.operations:
            try:
                operation.apply(stage)
            except (OSError, ValueError) as error:
                what = f"sandbox of {self.name}: {operation.describe()}: {error}"
                raise FailedPrecondition(what) from error
        return tuple(stage.notes)


def plan(
    rights: Rights, machine: Machine, *, descriptors: tuple[int, ...] | None = (0, 1, 2)
) -> Plan:
    """The sandbox of a process with these rights on this machine.

    `descriptors` are kept open, None keeps all but directories. Without root, or with a root that
    lacks CAP_SYS_ADMIN, less is enforced, and the notes say what and why.
    """
    steps: list[op.Operation] = []
    notes: list[str] = []
    if descriptors is None:
        steps.append(op.CloseDirectories())
    else:
        steps.append(op.CloseDescriptors(descriptors))
    steps += _limits(rights, machine, notes)
    gap = _why_no_root_of_its_own(machine)
    inside = not gap
    if inside:
        steps += _namespaces(rights, machine)
        steps += _root(rights, machine, notes)
    else:
        notes.append(f"own root, /tmp, /dev, /proc and namespaces: {gap}")
    steps.append(op.NoNewPrivileges())
    steps += _landlock(rights, machine, notes, inside=inside)
    steps.append(op.OwnKeyring())
    steps += _identity(rights, machine, notes)
    steps.append(op.Filter(compiled_policy(rights.seccomp, rights.syscalls), rights.seccomp))
    return Plan(rights.name, tuple(steps), tuple(notes))


def _why_no_root_of_its_own(machine: Machine) -> str:
    """The reason why this machine can't give it namespaces and a root; "" if it can."""
    if not machine.root:
        return "not root"
    if not _has(machine, "SYS_ADMIN"):
        return "this root lacks CAP_SYS_ADMIN"
    if machine.kernel < _MOUNT_API:
        return f"needs Linux 5.12, this is {machine.kernel[0]}.{machine.kernel[1]}"
    return ""


def _has(machine: Machine, *names: str) -> bool:
    mask = capabilities.mask_of(names)
    return machine.capabilities & mask == mask


def _limits(rights: Rights, machine: Machine, notes: list[str]) -> Iterator[op.Operation]:
    if machine.kernel >= _TURNS:
        yield op.ShortTurns(_SHORT)
    yield op.ResourceLimit("core", 0)
    if rights.limits.file_size:
        yield op.ResourceLimit("fsize", rights.limits.file_size)
    files = rights.limits.files
    if files > machine.open_files:
        notes.append(f"{files} open files: the machine's hard limit is {machine.open_files}")
        files = machine.open_files
    yield op.ResourceLimit("nofile", files)
    if not rights.cgroup:
        return
    if not machine.root:
        notes.append("cgroup limits: not root")
        return
    offered = machine.cgroups.versions
    wanted = ("memory", "pids", "cpu")
    found = tuple(name for name in wanted if name in offered)
    notes += [f"cgroup limit {name}: not mounted" for name in wanted if name not in found]
    if "unified" not in found and machine.cgroups.of("unified") is not None:
        found = (*found, "unified")
    if rights.limits.cores and "cpu" in found and not machine.cpu_quotas:
        notes.append("cores: this machine's kernel has no CFS_BANDWIDTH")
    if found:
        limits = _cgroup_limits(rights, found, machine)
        yield op.EnterCgroup(machine.cgroups, rights.cgroup, found, limits)


def _cgroup_limits(rights: Rights, offered: tuple[str, ...], machine: Machine) -> CgroupLimits:
    cores = rights.limits.cores if "cpu" in offered and machine.cpu_quotas else 0.0
    memory = rights.limits.memory if "memory" in offered else None
    bounded = cores_limits(cores) if cores else CgroupLimits()
    return CgroupLimits(
        memory=memory,
        memory_swap=memory,
        pids=rights.limits.pids if "pids" in offered else None,
        cpu_shares=rights.limits.cpu_shares if "cpu" in offered else None,
        cpu_quota=bounded.cpu_quota,
        cpu_period=bounded.cpu_period,
    )


def cores_limits(cores: float) -> CgroupLimits:
    """So many cores at once, and no less than the kernel's least; 0 for as many as there are."""
    quota = max(int(cores * _PERIOD), _LEAST_QUOTA) if cores else UNLIMITED
    return CgroupLimits(cpu_quota=quota, cpu_period=_PERIOD)


def turns(machine: Machine, *, computes: bool) -> int:
    """Nanoseconds that a process runs before who wakes may go first; 0 where the kernel has no such."""
    if machine.kernel < _TURNS:
        return 0
    return _LONG if computes else _SHORT


def _namespaces(rights: Rights, machine: Machine) -> Iterator[op.Operation]:
    if rights.data:
        yield fs.OwnDirectory(rights.data, rights.uid, rights.gid, 0o700)
    if rights.run:
        yield fs.OwnDirectory(rights.run, rights.uid, rights.gid, 0o755)
    names = ("mnt", "ipc", "uts") + (("net",) if rights.network == "none" else ())
    yield op.Unshare(names)
    for grant in rights.paths:
        if grant.shared:
            yield fs.HoldShared(grant.path, grant.optional)


def _root(rights: Rights, machine: Machine, notes: list[str]) -> Iterator[op.Operation]:
    """Fixed parts first, then the rest from outer to inner paths."""
    yield fs.NewRoot(machine.stage)
    for path, target in machine.links:
        yield fs.Link(path, target)
    yield fs.PrivateTmp(rights.limits.tmp)
    if any(grant.path == "/proc" for grant in rights.paths):
        pass
    elif machine.kernel >= _PROC_OPTIONS:
        yield fs.HiddenProc()
    else:
        notes.append("others' processes are visible in /proc: hiding them needs Linux 5.8")
        yield fs.Bind("/proc", "/proc", "read")
    may_mknod = _has(machine, "MKNOD")
    yield fs.MinimalDev(may_mknod)
    for device in rights.devices:
        yield fs.GrantDevice(device.path, rights.uid, rights.gid, may_mknod, device.optional)
    binds = [*_system_binds(machine), *_granted_binds(rights)]
    yield from sorted(binds, key=_place)
    yield fs.SealRoot()
    yield op.HostName(f"sagong-{rights.name}")


def _place(step: fs.Bind | fs.Attach) -> str:
    return step.path if isinstance(step, fs.Attach) else step.target


def _system_binds(machine: Machine) -> Iterator[fs.Bind]:
    for path in (*machine.directories, *machine.python, *machine.sources):
        yield fs.Bind(path, path, "read")
    for place, source in machine.etc:
        yield fs.Bind(source, place, "read", optional=True)


def _granted_binds(rights: Rights) -> Iterator[fs.Bind | fs.Attach]:
    for path in filter(None, (rights.data, rights.run)):
        yield fs.Bind(path, path, "own")
    if rights.lobby is not None:
        yield fs.Bind(*rights.lobby, "read")
    for path in rights.sockets:
        yield fs.Bind(path, path, "read")
    for grant in rights.paths:
        if grant.shared:
            yield fs.Attach(grant.path)
        else:
            yield fs.Bind(grant.path, grant.path, grant.access, grant.optional)


def _landlock(
    rights: Rights, machine: Machine, notes: list[str], *, inside: bool
) -> Iterator[op.Operation]:
    files = not rights.mounts
    if not files:
        notes.append("Landlock's rules for files: they would forbid the granted mounts")
    ruleset = Ruleset(
        paths=tuple(_path_rules(rights, machine, inside=inside)) if files else (),
        handle_files=files,
        scope_signals="CAP_KILL" not in rights.capabilities,
    )
    handled = handled_rights(ruleset, machine.landlock)
    notes += handled.missing
    if handled.files or handled.scopes:
        yield op.Restrict(ruleset)


def _path_rules(rights: Rights, machine: Machine, *, inside: bool) -> Iterator[PathRule]:
    places = [path for path, _ in machine.links]
    for path in (*machine.directories, *places, *machine.python, *machine.sources):
        yield PathRule(path, EXECUTE)
    for path in ["/etc"] if inside else [place for place, _ in machine.etc]:
        yield PathRule(path, READ)
    yield PathRule("/proc", READ)
    for path in filter(None, (rights.data, rights.run, "/tmp" if inside else "")):
        yield PathRule(path, WRITE)
    for path in (*rights.sockets, *(rights.lobby[1:] if rights.lobby and inside else ())):
        yield PathRule(path, READ)
    nodes = ["/dev"] if inside else [f"/dev/{n}" for n in ("null", "zero", "random", "urandom")]
    for path in (*nodes, *(device.path for device in rights.devices)):
        yield PathRule(path, WRITE)
    for grant in rights.paths:
        yield PathRule(grant.path, WRITE if grant.access == "write" else EXECUTE)


def _identity(rights: Rights, machine: Machine, notes: list[str]) -> Iterator[op.Operation]:
    if not machine.root or not _has(machine, "SETUID", "SETGID", "SETPCAP"):
        reason = "this root lacks CAP_SETUID, SETGID or SETPCAP" if machine.root else "not root"
        notes.append(f"own uid and capabilities: {reason}")
        return
    wanted = capabilities.mask_of(rights.capabilities)
    lacking = capabilities.names_of(wanted & ~machine.capabilities)
    notes += [f"{name}: this machine's root lacks it" for name in lacking]
    yield op.Identity(rights.uid, rights.gid, rights.groups, wanted & machine.capabilities)
