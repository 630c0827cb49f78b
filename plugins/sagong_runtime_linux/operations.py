"""Plans are data: frozen operations with `describe()` and `apply()`, and their way over a socket.

The plugin computes a plan from a `RunSpec`; the launcher's descendants only apply it. Operations
are tuples of JSON's types, so that they travel as lists.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from sagong.shim.failure import failed

if TYPE_CHECKING:
    from sagong.linux.cgroup import CgroupLayout

__all__ = ["Operation", "Registry", "Stage", "apply_all", "apply_last", "encode_operations"]


class Stage:
    """What the operations of one start share. Nothing in it outlives the exec."""

    def __init__(self, root: str, directory: str, layout: CgroupLayout) -> None:
        self.root = root
        self.directory = directory
        self.layout = layout
        self.trees: dict[str, int] = {}
        self.namespaces: dict[str, int] = {}
        self.old_root = -1
        # The group that was made for it, in each hierarchy with controllers, and whether a cgroup
        # namespace was made in there.
        self.cgroup = ""
        self.cgroup_is_root = False
        self.terminal: tuple[int, int] | None = None
        self.monitor: socket.socket | None = None
        # What would hinder the start itself, to be done when only the execution is left.
        self.last: list[Operation] = []

    def close(self) -> None:
        """In the monitor, after the fork: what was opened for the child alone."""
        for descriptor in self.namespaces.values():
            os.close(descriptor)
        self.namespaces.clear()

    def open_on_host(self, path: str, flags: int) -> int:
        """Open a file of the host, before or after the root was changed."""
        if self.old_root < 0:
            return os.open(path, flags | os.O_CLOEXEC)
        return os.open(path.lstrip("/"), flags | os.O_CLOEXEC, dir_fd=self.old_root)

    def stat_on_host(self, path: str) -> os.stat_result:
        """Stat a file of the host, before or after the root was changed."""
        if self.old_root < 0:
            return os.stat(path)
        return os.stat(path.lstrip("/") or ".", dir_fd=self.old_root)


class Operation(Protocol):
    """One step of a plan."""

    def describe(self) -> str:
        """What it does, in the words of an error message: "mounting proc at /proc"."""
        ...

    def apply(self, stage: Stage) -> None:
        """Do it; OSError or StartError when it fails."""
        ...


class Registry:
    """Operations by name, to decode plans."""

    def __init__(self, *kinds: type) -> None:
        self.kinds = {kind.__name__: kind for kind in kinds}

    def decode(self, encoded: Iterable[Sequence[Any]]) -> list[Operation]:
        """Operations from what `encode_operations` made; ValueError for an unknown one."""
        decoded = []
        for name, *fields in encoded:
            kind = self.kinds.get(name)
            if kind is None:
                raise ValueError(f"operation {name!r} is unknown to this launcher: restart it")
            decoded.append(kind(*fields))
        return decoded


def encode_operations(operations: Iterable[Any]) -> list[list[Any]]:
    """Operations as lists for JSON."""
    return [[type(operation).__name__, *operation] for operation in operations]


def apply_last(stage: Stage) -> None:
    """What operations of a plan put off until nothing but the execution is left."""
    last, stage.last = stage.last, []
    apply_all(last, stage)


def apply_all(operations: Iterable[Operation], stage: Stage) -> None:
    """Apply a plan; a failed system call becomes a StartError that says what was being done."""
    for operation in operations:
        try:
            operation.apply(stage)
        except OSError as error:
            raise failed(error, operation.describe()) from error
