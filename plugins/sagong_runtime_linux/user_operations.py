"""Operations of containers in a user namespace of their own.

The order matters: cgroup, clones of the host's mounts and given namespaces come with the host's
rights; then the process enters the user namespace, and everything new belongs to it.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from sagong.linux import mounts, syscalls
from sagong.shim import lean
from sagong.shim.failure import StartError
from sagong_runtime_linux.operations import Stage

__all__ = ["BecomeMappedRoot", "ForkIntoPids", "OpenMappedRoot", "PlaceRoot"]

_ROOT = "root"


def _mapped_tree(stage: Stage, path: str, *, recursive: bool = False) -> int:
    """A clone of a mount on which the host's ids show as the container's."""
    tree = syscalls.open_tree(path, clone=True, recursive=recursive)
    try:
        syscalls.mount_setattr(
            "",
            set_=mounts.MOUNT_ATTR_IDMAP,
            user_namespace=stage.namespaces["user"],
            recursive=recursive,
            directory=tree,
        )
    except OSError:
        os.close(tree)
        raise
    return tree


class OpenMappedRoot(NamedTuple):
    """With the host's rights: detached clones, with mapped ids, of what the root is made of.

    The working directory goes along into the next mount namespace, where a mapped root could not
    walk the host's path to it.
    """

    kind: str
    source: str
    data: str = ""

    def describe(self) -> str:
        """For error messages."""
        return f"preparing the root filesystem ({self.kind}) with mapped ids"

    def apply(self, stage: Stage) -> None:
        """Layers are mapped (Linux 5.19), since overlay itself can't be."""
        if self.kind == "bind":
            stage.trees[_ROOT] = _mapped_tree(stage, self.source, recursive=True)
        elif self.kind == "overlay":
            options = _options(self.data)
            for number, path in enumerate(options["lowerdir"].split(":")):
                stage.trees[f"l{number}"] = _mapped_tree(stage, path)
            if "upperdir" in options:
                stage.trees["u"] = _mapped_tree(stage, _common_parent(options))
        os.chdir(stage.root)


def _options(data: str) -> dict[str, str]:
    return dict(option.partition("=")[::2] for option in data.split(","))


def _common_parent(options: dict[str, str]) -> str:
    """Where upper and work lie: they must share one mount."""
    upper, work = (options.get(name, "").rstrip("/") for name in ("upperdir", "workdir"))
    parent = os.path.dirname(upper)
    if os.path.dirname(work) != parent:
        raise StartError(
            "failed_precondition",
            f"a user namespace needs upperdir and workdir in one directory, not {upper} and {work}",
        )
    return parent


class PlaceRoot(NamedTuple):
    """In the user namespace: the root filesystem on the working directory.

    Overlay is mounted by the mapped root: it acts on its layers as who mounted it, and the host's
    root is nobody there.
    """

    kind: str
    source: str
    flags: int = 0
    data: str = ""

    def describe(self) -> str:
        """For error messages."""
        return f"mounting the root filesystem ({self.kind})"

    def apply(self, stage: Stage) -> None:
        """A small tmpfs holds the layers' mount points."""
        if self.kind == "bind":
            self._enter(stage.trees.pop(_ROOT))
        else:
            self._enter(_new_tmpfs())
            os.mkdir("root")
            data = self._attach_layers(stage) if self.kind == "overlay" else self.data
            syscalls.mount(self.source or self.kind, "root", self.kind, self.flags, data)
            os.chdir("root")
        stage.root = "."

    def _enter(self, tree: int) -> None:
        try:
            syscalls.move_mount(tree, ".")
            os.fchdir(tree)
        finally:
            os.close(tree)

    def _attach_layers(self, stage: Stage) -> str:
        options = _options(self.data)
        lowers = [f"l{number}" for number in range(len(options["lowerdir"].split(":")))]
        options["lowerdir"] = ":".join(lowers)
        for name in [*lowers, *(["u"] if "u" in stage.trees else [])]:
            os.mkdir(name)
            tree = stage.trees.pop(name)
            syscalls.move_mount(tree, name)
            os.close(tree)
        for key in ("upperdir", "workdir"):
            if key in options:
                options[key] = "u/" + os.path.basename(options[key].rstrip("/"))
        # trusted.* attributes are the host's alone.
        options.setdefault("userxattr", "")
        return ",".join(f"{key}={value}" if value else key for key, value in options.items())


def _new_tmpfs() -> int:
    context = syscalls.fsopen("tmpfs")
    try:
        syscalls.fsconfig_string(context, "mode", "755")
        syscalls.fsconfig_create(context)
        return syscalls.fsmount(context)
    finally:
        os.close(context)


class BecomeMappedRoot(NamedTuple):
    """After entering the user namespace: its root, instead of a host's id that it does not know."""

    def describe(self) -> str:
        """For error messages."""
        return "becoming root of the user namespace"

    def apply(self, stage: Stage) -> None:
        """The maps must hold 0."""
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)


class ForkIntoPids(NamedTuple):
    """A pid namespace owned by the user namespace takes one more fork; the child tells its pid."""

    def describe(self) -> str:
        """For error messages."""
        return "making a pid namespace"

    def apply(self, stage: Stage) -> None:
        """The parent ends; its child is adopted by the monitor, a subreaper."""
        assert stage.monitor is not None
        syscalls.unshare(syscalls.Namespace.PID)
        pid = lean.fork()
        if pid:
            stage.monitor.send(b'{"pid":%d}' % pid)
            os._exit(0)
