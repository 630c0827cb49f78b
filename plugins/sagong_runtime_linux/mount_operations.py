"""Operations that build a container's tree of mounts.

Sources on the host are cloned before the root changes (`OpenTree`), and everything is attached
after it: then the kernel itself keeps every symbolic link of the image inside the container.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Literal, NamedTuple

from sagong.linux import mounts, overlay, syscalls
from sagong.linux.cgroup import CONTROLLERS
from sagong.linux.places import open_place, standing_at
from sagong.shim.failure import StartError
from sagong_runtime_linux.operations import Stage

__all__ = [
    "AttachTree",
    "DetachOldRoot",
    "MaskPath",
    "MountCgroups",
    "MountFilesystem",
    "MountRoot",
    "OpenLent",
    "OpenOverlay",
    "OpenTree",
    "PivotRoot",
    "ReadOnlyPath",
    "ReadOnlyRoot",
    "SetPropagation",
]

_NO_SYMLINKS = ("proc", "sysfs")

_HARMLESS = mounts.MOUNT_ATTR_NODEV | mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NOEXEC


class SetPropagation(NamedTuple):
    """Change propagation of a mount and those below."""

    target: str
    name: str

    def describe(self) -> str:
        """For error messages."""
        return f"making {self.target} {self.name}"

    def apply(self, stage: Stage) -> None:
        """mount(2)."""
        mounts.set_propagation(self.target, self.name)


class OpenTree(NamedTuple):
    """Clone a mount of the host under a name; `attributes` are MOUNT_ATTR_ bits to set, on all of
    what is cloned, `own` those of the mount itself alone.

    `make_source` makes a missing source directory of the host, as `docker run -v` does; `mapped` shows
    the host's ids to the container's user namespace where the filesystem can.
    """

    name: str
    source: str
    recursive: bool = False
    attributes: int = 0
    propagation: str = "rprivate"
    make_source: bool = False
    mapped: bool = False
    own: int = 0

    def describe(self) -> str:
        """For error messages."""
        return f"preparing bind mount of {self.source}"

    def apply(self, stage: Stage) -> None:
        """open_tree(2), mount_setattr(2)."""
        if self.make_source and not os.path.exists(self.source):
            os.makedirs(self.source, exist_ok=True)
        try:
            tree = self._clone(stage)
        except FileNotFoundError:
            raise StartError(
                "invalid_argument",
                'invalid mount config for type "bind": bind source path does not exist: '
                + self.source,
            ) from None
        stage.trees[self.name] = tree
        shared = self.propagation in ("shared", "rshared")
        if shared:
            _require_shared(tree, self.source)
        syscalls.mount_setattr(
            "",
            set_=self.attributes if self.recursive else self.attributes | self.own,
            propagation=0 if shared else mounts.PROPAGATIONS[self.propagation] & ~mounts.MS_REC,
            recursive=self.recursive,
            directory=tree,
        )
        if self.own and self.recursive:
            syscalls.mount_setattr("", set_=self.own, directory=tree)

    def _clone(self, stage: Stage) -> int:
        if self.mapped:
            user = stage.namespaces["user"]
            return overlay.leniently_mapped_tree(self.source, user, recursive=self.recursive)
        return syscalls.open_tree(self.source, clone=True, recursive=self.recursive)


class OpenLent(NamedTuple):
    """Clone a filesystem of another container, that of its mount `namespace`, under its place."""

    name: str
    namespace: str

    def describe(self) -> str:
        """For error messages."""
        return f"sharing {self.name}"

    def apply(self, stage: Stage) -> None:
        """setns(2) there and back, open_tree(2) meanwhile: nobody else sees that container's mounts."""
        own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        other = os.open(self.namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(other, syscalls.Namespace.MNT, path=self.namespace)
            try:
                tree = syscalls.open_tree(self.name, clone=True)
            finally:
                syscalls.setns(own, syscalls.Namespace.MNT, path="/proc/self/ns/mnt")
        finally:
            os.close(own)
            os.close(other)
        stage.trees[self.name] = tree
        syscalls.mount_setattr("", set_=_HARMLESS, propagation=mounts.MS_PRIVATE, directory=tree)


def _require_shared(tree: int, source: str) -> None:
    """As Docker, refuse `shared` where the source's own mount is not shared."""
    entry = _covering(source)
    if entry is None or not any(tag.startswith("shared:") for tag in entry.propagation):
        place = entry.target if entry else "/"
        raise StartError(
            "failed_precondition",
            f"path {source} is mounted on {place} but it is not a shared mount",
        )


def _covering(path: str) -> mounts.MountEntry | None:
    """The mount that holds a path."""
    real = os.path.realpath(path)
    found = None
    for entry in mounts.mount_table():
        below = real == entry.target or real.startswith(entry.target.rstrip("/") + "/")
        if below and (found is None or len(entry.target) >= len(found.target)):
            found = entry
    return found


class MountRoot(NamedTuple):
    """Mount the root filesystem at the stage's mount point."""

    kind: str
    source: str
    flags: int = 0
    data: str = ""

    def describe(self) -> str:
        """For error messages."""
        return f"mounting the root filesystem ({self.kind} {self.source})".replace(" )", ")")

    def apply(self, stage: Stage) -> None:
        """mount(2); a bind needs a second call for its flags."""
        if self.kind == "bind":
            syscalls.mount(self.source, stage.root, flags=mounts.MS_BIND | mounts.MS_REC)
            attributes = self.flags & (mounts.MS_RDONLY | mounts.MS_NOSUID | mounts.MS_NODEV)
            if attributes:
                syscalls.mount_setattr(stage.root, set_=attributes)
            return
        if self.kind == "overlay":
            overlay.mount_overlay(self.source, stage.root, self.flags, self.data)
            return
        syscalls.mount(self.source or self.kind, stage.root, self.kind, self.flags, self.data)


class OpenOverlay(NamedTuple):
    """Mount an overlay of the host's directories, to be attached inside the container."""

    name: str
    flags: int = 0
    data: str = ""

    def describe(self) -> str:
        """For error messages."""
        return f"mounting an overlay for {self.name}"

    def apply(self, stage: Stage) -> None:
        """mount(2) where the root will be, in a tree that passes nothing on; then open_tree(2)."""
        overlay.mount_overlay("overlay", stage.root, self.flags, self.data)
        try:
            stage.trees[self.name] = syscalls.open_tree(stage.root, clone=True)
        finally:
            syscalls.umount(stage.root, mounts.MNT_DETACH)


class PivotRoot(NamedTuple):
    """Make the root filesystem the root; the old one stays reachable by a descriptor."""

    def describe(self) -> str:
        """For error messages."""
        return "changing the root"

    def apply(self, stage: Stage) -> None:
        """pivot_root(".", ".") stacks the old root on the new one; no directory is needed."""
        stage.old_root = os.open("/", os.O_DIRECTORY | os.O_CLOEXEC)
        os.chdir(stage.root)
        syscalls.pivot_root(".", ".")
        os.chdir("/")


class DetachOldRoot(NamedTuple):
    """Give up the host's tree."""

    def describe(self) -> str:
        """For error messages."""
        return "leaving the old root"

    def apply(self, stage: Stage) -> None:
        """Slave first, so that nothing of it is unmounted on the host."""
        os.fchdir(stage.old_root)
        mounts.set_propagation(".", "rslave")
        syscalls.umount(".", mounts.MNT_DETACH)
        os.chdir("/")
        os.close(stage.old_root)
        stage.old_root = -1


class AttachTree(NamedTuple):
    """Attach a cloned mount inside the container; `create` makes a missing target of that kind."""

    name: str
    target: str
    create: str = "directory"

    def describe(self) -> str:
        """For error messages."""
        return f"mounting at {self.target}"

    def apply(self, stage: Stage) -> None:
        """move_mount(2), where a link of the image leads to: by its text, not by what the kernel
        would take a link of /proc for."""
        tree = stage.trees.pop(self.name)
        directory = stat.S_ISDIR(os.fstat(tree).st_mode)
        try:
            attach(tree, self.target, "directory" if directory else "file")
        except NotADirectoryError:
            raise StartError(
                "failed_precondition",
                f'error mounting "{self.name}" to rootfs at "{self.target}": not a directory: '
                "Are you trying to mount a directory onto a file (or vice-versa)? Check if the "
                "specified host path exists and is the expected type",
            ) from None
        finally:
            os.close(tree)


def attach(tree: int, target: str, kind: Literal["directory", "file"]) -> None:
    """move_mount(2) to a path of the container, which is made with its parents when it is missing."""
    place, _ = open_place(target, kind)
    try:
        syscalls.move_mount(tree, "", directory=place)
    except OSError as error:
        error.filename = target
        raise
    finally:
        os.close(place)


class MountFilesystem(NamedTuple):
    """Mount a new filesystem (proc, sysfs, tmpfs, devpts, mqueue…) inside the container."""

    kind: str
    source: str
    target: str
    flags: int = 0
    data: str = ""

    def describe(self) -> str:
        """For error messages."""
        return f"mounting {self.kind} at {self.target}"

    def apply(self, stage: Stage) -> None:
        """mount(2). A link in place of /proc would lead masks and read-only paths astray."""
        if self.kind in _NO_SYMLINKS and os.path.realpath(self.target) != self.target:
            raise StartError(
                "failed_precondition", f"{self.target} of the image is a symbolic link: refused"
            )
        with standing_at(self.target) as made:
            self._mount_here(stage, made=made)

    def _mount_here(self, stage: Stage, *, made: bool) -> None:
        data = self.data
        if self.kind == "tmpfs" and "mode=" not in data:
            if made:
                # Nothing says who may write there; a later start finds it so, too.
                os.chmod(".", 0o1777)
            mode = stat.S_IMODE(os.stat(".").st_mode)
            data = f"{data},mode={mode:o}".lstrip(",")
        try:
            syscalls.mount(self.source or self.kind, ".", self.kind, self.flags, data)
        except PermissionError:
            if self.kind != "sysfs" or stage.old_root < 0:
                raise
            # In a user namespace with a network namespace made outside, as runc does.
            self._bind_from_host(stage)

    def _bind_from_host(self, stage: Stage) -> None:
        path = self.target.lstrip("/")
        tree = syscalls.open_tree(path, clone=True, recursive=True, directory=stage.old_root)
        try:
            syscalls.mount_setattr(
                "", set_=mounts.MOUNT_ATTR_RDONLY, recursive=True, directory=tree
            )
            syscalls.move_mount(tree, ".")
        finally:
            os.close(tree)


class MountCgroups(NamedTuple):
    """Show the container its own cgroups: (version, mount point, v1 option) of each hierarchy.

    `path` is bound from the host's mounts; without it the roots of the container's cgroup namespace
    are: the group that was made for it, elsewhere that of who starts it. To mount a hierarchy anew the
    kernel looks through all groups of the machine, so that is done for unknown groups alone.
    """

    target: str
    flags: int
    hierarchies: Sequence[Sequence[str]]
    path: str = ""

    def describe(self) -> str:
        """For error messages."""
        return f"mounting cgroups at {self.target}"

    def apply(self, stage: Stage) -> None:
        """One mount for v2, a small tmpfs of mounts for v1."""
        single = all(version == "2" for version, _, _ in self.hierarchies)
        with standing_at(self.target):
            if single:
                for _, mount, _ in self.hierarchies:
                    self._show(stage, "cgroup2", "", ".", mount)
            else:
                flags = self.flags & ~mounts.MS_RDONLY
                syscalls.mount("tmpfs", ".", "tmpfs", flags, "mode=755")
        with standing_at(self.target, make=False):
            if not single:
                self._show_each(stage)
            # What is bound has attributes of its own until now; nobody is here to see it.
            syscalls.mount_setattr(
                ".", set_=self.flags & 0xF, propagation=mounts.MS_PRIVATE, recursive=True
            )

    def _show_each(self, stage: Stage) -> None:
        for version, mount, option in self.hierarchies:
            name = mount.rpartition("/")[2]
            os.mkdir(name, 0o755)
            kind = "cgroup" if version == "1" else "cgroup2"
            try:
                self._show(stage, kind, option, name, mount)
            except FileNotFoundError:
                # Hierarchies without controllers hold no group of ours to show; somebody may mount his.
                continue
            self._link_names(name)

    def _show(self, stage: Stage, kind: str, option: str, place: str, mount: str) -> None:
        group = self.path or _root_of_namespace(stage, mount)
        if group is None:
            syscalls.mount("cgroup", place, kind, self.flags, option)
        else:
            self._bind(stage, f"{mount}/{group}", place)

    def _bind(self, stage: Stage, group: str, place: str) -> None:
        source = group.rstrip("/").lstrip("/")
        tree = syscalls.open_tree(source, clone=True, directory=stage.old_root)
        try:
            syscalls.move_mount(tree, place)
        finally:
            os.close(tree)

    def _link_names(self, name: str) -> None:
        """Controllers mounted together are found by each one's name."""
        if "," in name:
            for single in name.split(","):
                os.symlink(name, single)


def _root_of_namespace(stage: Stage, mount: str) -> str | None:
    """The group that the cgroup namespace has as its root in this hierarchy, if that is known."""
    if not stage.cgroup_is_root:
        return None
    layout = stage.layout
    found = next((h for h in layout.hierarchies if h.mount == mount), None)
    if found is None:
        return None
    return stage.cgroup if found in layout.select(CONTROLLERS) else found.own.lstrip("/")


class ReadOnlyPath(NamedTuple):
    """Make a path of the container read-only; a missing one is no error."""

    path: str

    def describe(self) -> str:
        """For error messages."""
        return f"making {self.path} read-only"

    def apply(self, stage: Stage) -> None:
        """Bind it on itself without ever being writable."""
        try:
            place, _ = open_place(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            mounts.make_read_only_at(place)
        finally:
            os.close(place)


class MaskPath(NamedTuple):
    """Hide a path of the container: a file by /dev/null, a directory by an empty one."""

    path: str

    def describe(self) -> str:
        """For error messages."""
        return f"masking {self.path}"

    def apply(self, stage: Stage) -> None:
        """The host's /dev/null is used, since the image's may be anything."""
        try:
            place, _ = open_place(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            self._mask(stage, place)
        finally:
            os.close(place)

    def _mask(self, stage: Stage, place: int) -> None:
        if stat.S_ISDIR(os.fstat(place).st_mode):
            os.fchdir(place)
            syscalls.mount("tmpfs", ".", "tmpfs", mounts.MS_RDONLY, "size=0k")
            os.chdir("/")
            return
        tree = syscalls.open_tree("dev/null", clone=True, directory=stage.old_root)
        try:
            syscalls.move_mount(tree, "", directory=place)
        finally:
            os.close(tree)


class ReadOnlyRoot(NamedTuple):
    """Make the root itself read-only; mounts below keep what they have."""

    def describe(self) -> str:
        """For error messages."""
        return "making the root read-only"

    def apply(self, stage: Stage) -> None:
        """mount_setattr(2)."""
        syscalls.mount_setattr("/", set_=mounts.MOUNT_ATTR_RDONLY)
