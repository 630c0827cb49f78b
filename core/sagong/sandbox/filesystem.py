"""Steps of a sandbox that build its files: own directories, a minimal root, the granted paths."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from sagong.linux import mounts, syscalls
from sagong.sandbox.operations import Stage

__all__ = [
    "Attach",
    "Bind",
    "GrantDevice",
    "HiddenProc",
    "HoldShared",
    "Link",
    "MinimalDev",
    "NewRoot",
    "OwnDirectory",
    "PrivateTmp",
    "SealRoot",
    "restricted_tree",
]


@dataclass(frozen=True, slots=True)
class OwnDirectory:
    """A directory of the plugin's own; what is below is its own affair.

    `mode` is that of a new directory and the most that an existing one may allow.
    """

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
            if stat.S_IMODE(found.st_mode) & ~self.mode:
                os.fchmod(directory, found.st_mode & self.mode)
        finally:
            os.close(directory)


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


def restricted_tree(source: str, access: str) -> int:
    """A detached copy of a mount with no more than `access`; mounts of the machine may come in."""
    tree = syscalls.open_tree(source, clone=True, recursive=True)
    try:
        syscalls.mount_setattr(
            "",
            set_=_ATTRIBUTES[access],
            propagation=mounts.MS_SLAVE,
            recursive=True,
            directory=tree,
        )
    except BaseException:
        os.close(tree)
        raise
    return tree


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
            tree = restricted_tree(self.source, self.access)
        except FileNotFoundError:
            if not self.optional:
                raise
            stage.notes.append(f"{self.source} is missing and was left out")
            return
        try:
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
