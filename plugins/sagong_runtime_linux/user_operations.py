"""Operations of containers in a user namespace of their own.

The order matters: cgroup, clones of the host's mounts and given namespaces come with the host's
rights; then the process enters the user namespace, and everything new belongs to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from sagong.linux import overlay, syscalls
from sagong.shim import lean
from sagong.shim.failure import StartError
from sagong_runtime_linux.operations import Stage

__all__ = ["BecomeMappedRoot", "ForkInside", "ForkIntoPids", "OpenMappedRoot", "PlaceRoot"]

_ROOT = "root"


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
        user = stage.namespaces["user"]
        if self.kind == "bind":
            stage.trees[_ROOT] = overlay.mapped_tree(self.source, user, recursive=True)
        elif self.kind == "overlay":
            try:
                stage.trees.update(overlay.mapped_layers(self.data, user))
            except ValueError as error:
                raise StartError("failed_precondition", str(error)) from None
        os.chdir(stage.root)


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
            self._enter(overlay.new_tmpfs())
            os.mkdir("root")
            if self.kind == "overlay":
                data = overlay.attach_layers(stage.trees, self.data)
                overlay.mount_overlay(self.source, "root", self.flags, data)
            else:
                syscalls.mount(self.source or self.kind, "root", self.kind, self.flags, self.data)
            os.chdir("root")
        stage.root = "."

    def _enter(self, tree: int) -> None:
        try:
            syscalls.move_mount(tree, ".")
            os.fchdir(tree)
        finally:
            os.close(tree)


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


class ForkInside(NamedTuple):
    """Into the pid namespace that was entered for children; the parent's parent gets the child.

    Who is in there and may trace finds a process that is the container's from its first moment on:
    its root and, by the place of this in a plan, its rights (ADR 461).
    """

    def describe(self) -> str:
        """For error messages."""
        return "forking into the container's pid namespace"

    def apply(self, stage: Stage) -> None:
        """clone(2) with CLONE_PARENT."""
        _go_on_as(lean.fork_sibling, stage)


class ForkIntoPids(NamedTuple):
    """A pid namespace owned by the user namespace takes one more fork; the child tells its pid."""

    def describe(self) -> str:
        """For error messages."""
        return "making a pid namespace"

    def apply(self, stage: Stage) -> None:
        """The parent ends; its child is adopted by the monitor, a subreaper."""
        syscalls.unshare(syscalls.Namespace.PID)
        _go_on_as(lean.fork, stage)


def _go_on_as(fork: Callable[[], int], stage: Stage) -> None:
    """Return in the child, of which the monitor has been told before it says anything itself."""
    assert stage.monitor is not None
    ended, until = os.pipe()
    pid = fork()
    if pid:
        stage.monitor.send(b'{"pid":%d}' % pid)
        os._exit(0)
    os.close(until)
    os.read(ended, 1)
    os.close(ended)
    # Only a session's leader can be given a terminal.
    os.setsid()
