"""Operations that only a bundle needs; all else is `runtime_linux`'s own.

The root is entered by chroot while mounts are made (so that every link of the image stays inside),
left again for the hooks, which see the host's paths, and made the real one last.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from typing import Any, NamedTuple

from sagong.linux import capabilities, mounts, overlay, process, syscalls
from sagong.linux.places import standing_at
from sagong.shim import lean
from sagong.shim.failure import NEVER_BEGAN, StartError
from sagong_runtime_linux.device_operations import DEFAULT_LINKS, DEFAULT_NODES, bind_node
from sagong_runtime_linux.oci.hooks import run_hooks
from sagong_runtime_linux.operations import Stage

__all__ = [
    "BecomeRoot",
    "BindRoot",
    "CloseOldRoot",
    "CopyUp",
    "EnterRoot",
    "EnterRootOf",
    "JoinScope",
    "LeaveRoot",
    "MakeNode",
    "OpenRoot",
    "PlaceRootTree",
    "PrepareFilesystem",
    "RunHooks",
    "SupplyDevices",
    "TakeIdentity",
]

_ROOT = "root"
_PR_SET_KEEPCAPS = 8


class BindRoot(NamedTuple):
    """The bundle's root as a mount of its own, at its own place: hooks find it by its path.

    `alone` keeps what is mounted in it from other namespaces, where the tree around is shared.
    """

    source: str
    alone: bool = False

    def describe(self) -> str:
        """For error messages."""
        return f"preparing the root filesystem {self.source}"

    def apply(self, stage: Stage) -> None:
        """mount(2)."""
        flags = mounts.MS_BIND | mounts.MS_REC
        syscalls.mount(self.source, self.source, flags=flags)
        if self.alone:
            mounts.set_propagation(self.source, "rprivate")
        stage.root = self.source


class OpenRoot(NamedTuple):
    """With the host's rights, for a user namespace: a clone of the root, and an empty place for it."""

    source: str

    def describe(self) -> str:
        """For error messages."""
        return f"preparing the root filesystem {self.source}"

    def apply(self, stage: Stage) -> None:
        """The working directory goes along where the mapped root could not walk."""
        stage.trees[_ROOT] = syscalls.open_tree(self.source, clone=True, recursive=True)
        os.chdir(stage.root)


class PlaceRootTree(NamedTuple):
    """In the user namespace: the clone of the root on the working directory."""

    def describe(self) -> str:
        """For error messages."""
        return "mounting the root filesystem"

    def apply(self, stage: Stage) -> None:
        """move_mount(2)."""
        tree = stage.trees.pop(_ROOT)
        try:
            syscalls.move_mount(tree, ".")
            os.fchdir(tree)
        finally:
            os.close(tree)
        stage.root = "."


class PrepareFilesystem(NamedTuple):
    """A filesystem whose source or options are paths of the host, as a tree to be attached inside."""

    name: str
    kind: str
    source: str
    flags: int
    data: str

    def describe(self) -> str:
        """For error messages."""
        return f"mounting {self.kind} for {self.name.partition(':')[2]}"

    def apply(self, stage: Stage) -> None:
        """mount(2) at an empty place of this mount namespace, from which it is taken at once."""
        source = self.source or self.kind
        if self.kind == "overlay":
            overlay.mount_overlay(source, stage.root, self.flags, self.data)
        else:
            syscalls.mount(source, stage.root, self.kind, self.flags, self.data)
        try:
            stage.trees[self.name] = syscalls.open_tree(stage.root, clone=True)
        finally:
            syscalls.umount(stage.root, mounts.MNT_DETACH)


class EnterRoot(NamedTuple):
    """See the container's root as the root while mounts are made; the host stays at hand."""

    def describe(self) -> str:
        """For error messages."""
        return "entering the root filesystem"

    def apply(self, stage: Stage) -> None:
        """chroot(2)."""
        stage.old_root = os.open("/", os.O_DIRECTORY | os.O_CLOEXEC)
        os.chdir(stage.root)
        os.chroot(".")
        os.chdir("/")


class LeaveRoot(NamedTuple):
    """Back to the host's paths, in the container's mount namespace."""

    def describe(self) -> str:
        """For error messages."""
        return "leaving the root filesystem"

    def apply(self, stage: Stage) -> None:
        """The root's own descriptor goes along, since its path may be out of reach."""
        stage.trees[_ROOT] = os.open("/", os.O_DIRECTORY | os.O_CLOEXEC)
        os.fchdir(stage.old_root)
        os.chroot(".")
        os.close(stage.old_root)
        stage.old_root = -1


class BecomeRoot(NamedTuple):
    """Make the root filesystem the root for good; the old one stays reachable by a descriptor.

    Ways: "pivot"; "move" over the old one, where the kernel refuses that (an initramfs); "chroot" in
    a mount namespace that others are in, too.
    """

    way: str = "pivot"

    def describe(self) -> str:
        """For error messages."""
        return "changing the root"

    def apply(self, stage: Stage) -> None:
        """pivot_root(".", ".") stacks the old root on the new one; no directory is needed."""
        stage.old_root = os.open("/", os.O_DIRECTORY | os.O_CLOEXEC)
        inside = stage.trees.pop(_ROOT)
        os.fchdir(inside)
        os.close(inside)
        if self.way == "pivot":
            syscalls.pivot_root(".", ".")
        else:
            if self.way == "move":
                _hide_kernel(os.getcwd())
                syscalls.mount(".", "/", flags=mounts.MS_MOVE)
            os.chroot(".")
        os.chdir("/")


def _hide_kernel(root: str) -> None:
    """Take away the host's proc and sysfs: below a root that is only moved they stay in this tree.

    The kernel lets who has a namespace of users mount new ones where others are seen whole.
    """
    for entry in reversed(mounts.mount_table()):
        below = entry.target == root or entry.target.startswith(f"{root}/")
        if entry.kind not in ("proc", "sysfs") or below:
            continue
        mounts.set_propagation(entry.target, "private")
        try:
            syscalls.umount(entry.target, mounts.MNT_DETACH)
        except OSError:
            # Locked together with others of a namespace above.
            syscalls.mount("tmpfs", entry.target, "tmpfs", 0, "size=0k")


class CloseOldRoot(NamedTuple):
    """Forget the host's tree, which stays where it is: below the new root, or around it."""

    def describe(self) -> str:
        """For error messages."""
        return "leaving the old root"

    def apply(self, stage: Stage) -> None:
        """close(2)."""
        os.close(stage.old_root)
        stage.old_root = -1


class EnterRootOf(NamedTuple):
    """The root of the container's first process, where its mount namespace has another."""

    def describe(self) -> str:
        """For error messages."""
        return "entering the root of the container"

    def apply(self, stage: Stage) -> None:
        """chroot(2)."""
        os.fchdir(stage.namespaces["root"])
        os.chroot(".")


def _ask(stage: Stage, what: str) -> int:
    """Have the runtime do its part; it answers with our pid."""
    assert stage.monitor is not None
    stage.monitor.send(b'{"%s":1}' % what.encode())
    word, _, pid = stage.monitor.recv(64).partition(b" ")
    if word != b"go":
        os._exit(NEVER_BEGAN)
    return int(pid)


class JoinScope(NamedTuple):
    """Let the runtime have systemd make the container's scope, with this process in it."""

    unit: str

    def describe(self) -> str:
        """For error messages."""
        return f"joining {self.unit}"

    def apply(self, stage: Stage) -> None:
        """Out here nobody knows our pid but the runtime."""
        _ask(stage, "scope")


class RunHooks(NamedTuple):
    """Let the runtime run its hooks, then run those of one kind in the container's namespaces."""

    kind: str
    hooks: Sequence[dict[str, Any]]
    state: dict[str, Any]

    def describe(self) -> str:
        """For error messages."""
        return f"running {self.kind} hooks"

    def apply(self, stage: Stage) -> None:
        """The runtime answers with the pid, which is another one in here."""
        pid = _ask(stage, "hooks")
        if self.hooks:
            run_hooks(list(self.hooks), self.kind, {**self.state, "pid": pid})


class CopyUp(NamedTuple):
    """A tmpfs that begins with what was at its target (`tmpcopyup`)."""

    target: str
    flags: int
    data: str

    def describe(self) -> str:
        """For error messages."""
        return f"mounting tmpfs at {self.target}"

    def apply(self, stage: Stage) -> None:
        """What is covered is copied from a clone of its mount."""
        with standing_at(self.target):
            below = syscalls.open_tree(".", clone=True)
            mode = stat.S_IMODE(os.stat(".").st_mode)
            data = self.data if "mode=" in self.data else f"{self.data},mode={mode:o}".lstrip(",")
            syscalls.mount("tmpfs", ".", "tmpfs", self.flags & ~mounts.MS_RDONLY, data)
        try:
            with standing_at(self.target, make=False):
                _copy_covered(below, ".")
                if self.flags & mounts.MS_RDONLY:
                    syscalls.mount_setattr(".", set_=mounts.MOUNT_ATTR_RDONLY)
        finally:
            os.close(below)


def _copy_covered(below: int, target: str) -> None:
    """Files with owners, modes and links."""
    source = f"{target}/.covered"
    os.mkdir(source, 0o700)
    try:
        syscalls.move_mount(below, source)
        try:
            for name in os.listdir(source):
                _copy_entry(f"{source}/{name}", f"{target}/{name}")
        finally:
            syscalls.umount(source, mounts.MNT_DETACH)
    finally:
        os.rmdir(source)


def _copy_file(source: str, target: str) -> None:
    given = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    made = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        while os.sendfile(made, given, None, 1 << 30):
            continue
    finally:
        os.close(given)
        os.close(made)


def _copy_entry(source: str, target: str) -> None:
    found = os.lstat(source)
    if stat.S_ISDIR(found.st_mode):
        os.mkdir(target)
        for name in os.listdir(source):
            _copy_entry(f"{source}/{name}", f"{target}/{name}")
    elif stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISREG(found.st_mode):
        _copy_file(source, target)
    else:
        os.mknod(target, found.st_mode, found.st_rdev)
    os.chown(target, found.st_uid, found.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        os.chmod(target, stat.S_IMODE(found.st_mode))


class SupplyDevices(NamedTuple):
    """What every container has in /dev, where the image or its mounts lack it; `bind` as below."""

    directory: str
    bind: bool = False

    def describe(self) -> str:
        """For error messages."""
        return f"making devices in {self.directory}"

    def apply(self, stage: Stage) -> None:
        """mknod(2), symlink(2)."""
        links = dict(DEFAULT_LINKS)
        if os.path.exists("/proc/kcore"):
            links["core"] = "/proc/kcore"
        with standing_at(self.directory):
            lacking = [node for node in DEFAULT_NODES if not os.path.lexists(node[0])]
            for name, target in links.items():
                with contextlib.suppress(FileExistsError):
                    os.symlink(target, name)
        for name, major, minor in lacking:
            MakeNode(f"{self.directory}/{name}", "c", major, minor, bind=self.bind).apply(stage)


class MakeNode(NamedTuple):
    """A device by its numbers; in a user namespace the host's node of the same path is bound."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0
    bind: bool = False

    def describe(self) -> str:
        """For error messages."""
        return f"making device {self.path}"

    def apply(self, stage: Stage) -> None:
        """mknod(2)."""
        if self.bind:
            bind_node(stage, self.path, self.path)
            return
        kinds = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
        if self.kind not in kinds:
            raise StartError("invalid_argument", f"device {self.path}: type {self.kind!r} unknown")
        directory, name = os.path.split(self.path)
        numbers = 0 if self.kind == "p" else os.makedev(self.major, self.minor)
        with standing_at(directory):
            if not self._there(name, kinds[self.kind], numbers):
                os.mknod(name, kinds[self.kind] | self.mode, numbers)
            os.chmod(name, self.mode)
            os.chown(name, self.uid, self.gid, follow_symlinks=False)

    def _there(self, name: str, kind: int, numbers: int) -> bool:
        """Whether it is there already; another file in its place is an error (config-linux.md)."""
        try:
            found = os.lstat(name)
        except FileNotFoundError:
            return False
        if (stat.S_IFMT(found.st_mode), found.st_rdev) != (kind, numbers):
            text = f"linux.devices: {self.path} of the image is another file"
            raise StartError("failed_precondition", text)
        return True


class TakeIdentity(NamedTuple):
    """Become the user with exactly these sets, in the order of /proc/PID/status."""

    uid: int
    gid: int
    groups: Sequence[int]
    inheritable: int
    permitted: int
    effective: int
    bounding: int
    ambient: int

    def describe(self) -> str:
        """For error messages."""
        return f"becoming user {self.uid}:{self.gid}"

    def apply(self, stage: Stage) -> None:
        """The bounding set goes first, while CAP_SETPCAP is there."""
        lean.reduce_bounding_set(self.bounding, capabilities.last_capability())
        syscalls.prctl(_PR_SET_KEEPCAPS, 1)
        try:
            os.setgroups(list(self.groups))
        except PermissionError:
            # In a user namespace whose maps its user wrote himself nobody may leave a group.
            if self.groups:
                raise
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        syscalls.prctl(_PR_SET_KEEPCAPS, 0)
        capabilities.apply(capabilities.CapabilitySets(*self[3:]))
        process.set_dumpable(dumpable=False)
