"""Steps of a sandbox as data: each says what it does by `describe()` and does it by `apply()`.

They run in a freshly forked, single-threaded child that is root until `Identity`.
"""

from __future__ import annotations

import os
import resource
import stat
from dataclasses import dataclass, field
from typing import Protocol

from sagong.linux import capabilities, landlock, mounts, process, seccomp, syscalls
from sagong.linux.cgroup import Cgroup, CgroupLayout
from sagong.linux.cgroup_limits import CgroupLimits

__all__ = ["Operation", "Stage"]


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
class OwnDirectory:
    """A directory of the plugin's own; only the top is given to it, what is below is its own."""

    path: str
    uid: int
    gid: int
    mode: int

    def describe(self) -> str:
        """One line for people."""
        return f"own directory {self.path}, mode {self.mode:04o}, uid {self.uid}"

    def apply(self, stage: Stage) -> None:
        """Make it if missing; a symbolic link in its place is refused."""
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        try:
            os.mkdir(self.path, self.mode)
        except FileExistsError:
            pass
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        directory = os.open(self.path, flags)
        try:
            found = os.fstat(directory)
            if (found.st_uid, found.st_gid) != (self.uid, self.gid):
                os.fchown(directory, self.uid, self.gid)
            if stat.S_IMODE(found.st_mode) != self.mode:
                os.fchmod(directory, self.mode)
        finally:
            os.close(directory)


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
class HoldShared:
    """Take a copy of a mount that stays in its peer group, before all others become slaves."""

    path: str
    optional: bool = False

    def describe(self) -> str:
        """One line for people."""
        return f"hold {self.path} with its mount propagation"

    def apply(self, stage: Stage) -> None:
        """The copy is attached by `Attach`."""
        if self.optional and not os.path.exists(self.path):
            stage.notes.append(f"{self.path} is missing and was left out")
            return
        stage.held[self.path] = syscalls.open_tree(self.path, clone=True, recursive=True)


@dataclass(frozen=True, slots=True)
class NewRoot:
    """An empty root on which the rest is mounted; mounts of the machine become slaves."""

    stage: str

    def describe(self) -> str:
        """One line for people."""
        return f"new root on {self.stage}; mounts from the machine come in, none go out"

    def apply(self, stage: Stage) -> None:
        """The machine's own unmounts still arrive, so this namespace keeps nothing busy."""
        mounts.set_propagation("/", "rslave")
        os.makedirs(self.stage, exist_ok=True)
        flags = mounts.MS_NOSUID | mounts.MS_NODEV
        syscalls.mount("sagong", self.stage, "tmpfs", flags, "mode=755,size=1m,nr_inodes=4096")
        stage.root = self.stage


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link of the new root, such as /bin → usr/bin."""

    path: str
    target: str

    def describe(self) -> str:
        """One line for people."""
        return f"link {self.path} → {self.target}"

    def apply(self, stage: Stage) -> None:
        """Make it."""
        os.symlink(self.target, stage.root + self.path)


def _mount_point(path: str, *, directory: bool) -> None:
    """Make an empty directory or file to mount on, unless something is there."""
    if os.path.lexists(path):
        return
    if directory:
        os.makedirs(path, 0o755)
        return
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))


_ATTRIBUTES = {
    "read": mounts.MOUNT_ATTR_RDONLY | mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV,
    "write": mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV,
    "own": mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV | mounts.MOUNT_ATTR_NOEXEC,
    "device": mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NOEXEC,
}


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or directory of the machine; access "read", "write", "own" (no programs), "device"."""

    source: str
    target: str
    access: str
    optional: bool = False

    def describe(self) -> str:
        """One line for people."""
        place = self.target if self.source == self.target else f"{self.target} from {self.source}"
        return f"{self.access} {place}" + (" if there" if self.optional else "")

    def apply(self, stage: Stage) -> None:
        """Copied detached, restricted, then attached: it is never there unrestricted."""
        try:
            tree = syscalls.open_tree(self.source, clone=True, recursive=True)
        except FileNotFoundError:
            if not self.optional:
                raise
            stage.notes.append(f"{self.source} is missing and was left out")
            return
        try:
            attributes = _ATTRIBUTES[self.access]
            syscalls.mount_setattr("", set_=attributes, recursive=True, directory=tree)
            _attach(tree, stage.root + self.target)
        finally:
            os.close(tree)


def _attach(tree: int, target: str) -> None:
    _mount_point(target, directory=stat.S_ISDIR(os.fstat(tree).st_mode))
    syscalls.move_mount(tree, target)


@dataclass(frozen=True, slots=True)
class Attach:
    """Put a held mount into the new root; what is mounted in it is seen by the machine."""

    path: str

    def describe(self) -> str:
        """One line for people."""
        return f"write {self.path}, shared with the machine"

    def apply(self, stage: Stage) -> None:
        """Nothing to do for an optional one that was missing."""
        tree = stage.held.pop(self.path, None)
        if tree is None:
            return
        try:
            _attach(tree, stage.root + self.path)
        finally:
            os.close(tree)


@dataclass(frozen=True, slots=True)
class PrivateTmp:
    """A bounded /tmp of its own."""

    size: int

    def describe(self) -> str:
        """One line for people."""
        return f"private /tmp of {self.size} bytes"

    def apply(self, stage: Stage) -> None:
        """Mount it."""
        flags = mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC
        _mount_point(stage.root + "/tmp", directory=True)
        options = f"mode=1777,size={self.size},nr_inodes=65536"
        syscalls.mount("tmp", stage.root + "/tmp", "tmpfs", flags, options)


@dataclass(frozen=True, slots=True)
class HiddenProc:
    """A read-only /proc that shows only one's own processes."""

    def describe(self) -> str:
        """One line for people."""
        return "read-only /proc without others' processes"

    def apply(self, stage: Stage) -> None:
        """Each mount of proc has options of its own since Linux 5.8."""
        flags = mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC | mounts.MS_RDONLY
        _mount_point(stage.root + "/proc", directory=True)
        syscalls.mount("proc", stage.root + "/proc", "proc", flags, "hidepid=invisible")


_NODES = (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9))


@dataclass(frozen=True, slots=True)
class MinimalDev:
    """/dev with null, zero, full, random, urandom and the links to one's descriptors."""

    make_nodes: bool

    def describe(self) -> str:
        """One line for people."""
        return "minimal /dev: " + ", ".join(name for name, _ in _NODES)

    def apply(self, stage: Stage) -> None:
        """Made where CAP_MKNOD allows it, which is cheaper than five mounts."""
        top = stage.root + "/dev"
        _mount_point(top, directory=True)
        flags = mounts.MS_NOSUID | mounts.MS_NOEXEC
        syscalls.mount("dev", top, "tmpfs", flags, "mode=755,size=64k,nr_inodes=256")
        for name, minor in _NODES:
            if self.make_nodes:
                os.mknod(f"{top}/{name}", 0o666 | stat.S_IFCHR, os.makedev(1, minor))
                os.chmod(f"{top}/{name}", 0o666)
            else:
                Bind(f"/dev/{name}", f"/dev/{name}", "device").apply(stage)
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            os.symlink(f"/proc/self/fd/{number}", f"{top}/{name}")
        os.symlink("/proc/self/fd", f"{top}/fd")
        os.symlink("/tmp", f"{top}/shm")


@dataclass(frozen=True, slots=True)
class GrantDevice:
    """A device of the machine as a node that belongs to the process; others can't open it."""

    path: str
    uid: int
    gid: int
    make_node: bool
    optional: bool = False

    def describe(self) -> str:
        """One line for people."""
        return f"device {self.path}" + (" if there" if self.optional else "")

    def apply(self, stage: Stage) -> None:
        """A new node with its own mode: the machine's is often root's alone. Else a bind mount."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            if not self.optional:
                raise
            stage.notes.append(f"{self.path} is missing and was left out")
            return
        kind = stat.S_IFMT(found.st_mode)
        if kind not in (stat.S_IFCHR, stat.S_IFBLK):
            raise OSError(22, "not a device node", self.path)
        if not self.make_node:
            Bind(self.path, self.path, "device").apply(stage)
            return
        os.makedirs(os.path.dirname(stage.root + self.path), 0o755, exist_ok=True)
        os.mknod(stage.root + self.path, 0o600 | kind, found.st_rdev)
        os.chown(stage.root + self.path, self.uid, self.gid)


@dataclass(frozen=True, slots=True)
class SealRoot:
    """Make the new root read-only, enter it, and let the old one go."""

    read_only: tuple[str, ...] = ("", "/dev")

    def describe(self) -> str:
        """One line for people."""
        return "seal the root, pivot into it, detach the old one"

    def apply(self, stage: Stage) -> None:
        """pivot_root(".", ".") stacks the old root on the new one, from where it is detached."""
        for path in self.read_only:
            syscalls.mount_setattr(stage.root + path, set_=mounts.MOUNT_ATTR_RDONLY)
        os.chdir(stage.root)
        syscalls.pivot_root(".", ".")
        syscalls.umount(".", mounts.MNT_DETACH)
        os.chdir("/")
        stage.root = ""


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
