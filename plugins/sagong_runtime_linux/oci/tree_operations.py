"""Operations on parts of the host's tree that a container shows: cloned, changed, attached later."""

from __future__ import annotations

from typing import NamedTuple

from sagong.linux import mounts, syscalls
from sagong_runtime_linux.operations import Stage

__all__ = ["ChangeMount", "ChangeTree", "CloneTree", "MapTree", "SpreadTree"]


class CloneTree(NamedTuple):
    """A part of the host's tree under a name."""

    name: str
    source: str
    recursive: bool = False

    def describe(self) -> str:
        """For error messages."""
        return f"preparing bind mount of {self.source}"

    def apply(self, stage: Stage) -> None:
        """open_tree(2)."""
        stage.trees[self.name] = syscalls.open_tree(
            self.source, clone=True, recursive=self.recursive
        )


class SpreadTree(NamedTuple):
    """Who else sees what is mounted in a tree, and whose mounts are seen in it."""

    name: str
    propagation: str

    def describe(self) -> str:
        """For error messages."""
        return f"making the mount at {self.name.partition(':')[2]} {self.propagation}"

    def apply(self, stage: Stage) -> None:
        """mount_setattr(2). One that is shared with its source's peers stays so."""
        flags = mounts.PROPAGATIONS[self.propagation]
        syscalls.mount_setattr(
            "",
            propagation=flags & ~mounts.MS_REC,
            recursive=bool(flags & mounts.MS_REC),
            directory=stage.trees[self.name],
        )


class MapTree(NamedTuple):
    """Show a tree with the ids of a user namespace, by its name in the stage."""

    name: str
    mapping: str
    recursive: bool = False

    def describe(self) -> str:
        """For error messages."""
        return f"mapping ids of the mount at {self.name.partition(':')[2]}"

    def apply(self, stage: Stage) -> None:
        """mount_setattr(2)."""
        syscalls.mount_setattr(
            "",
            set_=mounts.MOUNT_ATTR_IDMAP,
            user_namespace=stage.namespaces[self.mapping],
            recursive=self.recursive,
            directory=stage.trees[self.name],
        )


class ChangeTree(NamedTuple):
    """Attributes of a tree's first mount, or of all."""

    name: str
    set: int
    clear: int
    recursive: bool = False

    def describe(self) -> str:
        """For error messages."""
        return f"setting attributes of the mount at {self.name.partition(':')[2]}"

    def apply(self, stage: Stage) -> None:
        """mount_setattr(2)."""
        tree = stage.trees[self.name]
        syscalls.mount_setattr(
            "", set_=self.set, clear=self.clear, recursive=self.recursive, directory=tree
        )


class ChangeMount(NamedTuple):
    """Attributes of what is mounted at a place of the container, and of all below it."""

    target: str
    set: int
    clear: int
    recursive: bool = False

    def describe(self) -> str:
        """For error messages."""
        return f"setting attributes of the mount at {self.target}"

    def apply(self, stage: Stage) -> None:
        """mount_setattr(2)."""
        syscalls.mount_setattr(
            self.target, set_=self.set, clear=self.clear, recursive=self.recursive
        )
