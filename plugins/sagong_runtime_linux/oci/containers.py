"""Containers as the state directory knows them: one directory each, made by create, gone by delete.

::

    ROOT/empty               where roots are mounted, each in a mount namespace of its own
    ROOT/filters/HASH        compiled seccomp filters
    ROOT/ID/state.json       pid, start time, bundle, cgroup
    ROOT/ID/config.json      the configuration as it was at create
    ROOT/ID/start            a socket on which the created process waits
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from typing import TYPE_CHECKING, Any

from sagong.linux import process
from sagong.linux.files import replace_file
from sagong.shim.failure import StartError
from sagong_runtime_linux.oci.log import Log

if TYPE_CHECKING:
    from sagong.linux.cgroup import Cgroup

__all__ = ["CREATED", "PAUSED", "RUNNING", "STOPPED", "VERSION", "Container", "Containers"]

VERSION = "1.3.0"
CREATED, RUNNING, PAUSED, STOPPED = "created", "running", "paused", "stopped"
_NAME = re.compile(r"[\w+.-]+")
_STATE = "state.json"


class Container:
    """One container, read from its directory."""

    def __init__(self, directory: str, facts: dict[str, Any]) -> None:
        self.directory = directory
        self.facts = facts

    @property
    def id(self) -> str:
        """Its name."""
        return str(self.facts["id"])

    @property
    def pid(self) -> int:
        """Its first process, as the host sees it."""
        return int(self.facts["pid"])

    @property
    def identity(self) -> process.ProcessId:
        """Its first process for all times."""
        return process.ProcessId(self.pid, self.facts["started"])

    @property
    def waiting(self) -> str:
        """The socket on which the created process waits."""
        return f"{self.directory}/start"

    def config(self) -> dict[str, Any]:
        """The configuration it was created with."""
        with open(f"{self.directory}/config.json", encoding="utf-8") as file:
            return json.load(file)  # type: ignore[no-any-return]

    def cgroup(self) -> Cgroup:
        """Its cgroup."""
        from sagong.linux.cgroup import layout_of_machine
        from sagong.shim.cgroups import container_cgroup

        return container_cgroup(layout_of_machine().derived(), self.facts["cgroup"])

    def alive(self) -> bool:
        """Whether its first process runs; one that nobody has collected does not."""
        pidfd = process.open_identified(self.identity)
        if pidfd is None:
            return False
        os.close(pidfd)
        try:
            with open(f"/proc/{self.pid}/stat", encoding="utf-8", errors="replace") as file:
                return file.read().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False

    def status(self) -> str:
        """In the specification's words, and `paused`."""
        if not self.alive():
            return STOPPED
        if os.path.exists(self.waiting):
            return CREATED
        return PAUSED if self.cgroup().frozen() else RUNNING

    def state(self, status: str = "") -> dict[str, Any]:
        """The specification's state, for `state` and for hooks."""
        found = status or self.status()
        return {
            "ociVersion": VERSION,
            "id": self.id,
            "pid": 0 if found == STOPPED else self.pid,
            "status": found,
            "bundle": self.facts["bundle"],
            "rootfs": self.facts["rootfs"],
            "created": self.facts["created"],
            "annotations": self.facts["annotations"],
        }

    def write(self) -> None:
        """Keep what is known."""
        path = f"{self.directory}/{_STATE}"
        replace_file(
            path, json.dumps(self.facts).encode(), beside=f"{path}.new", mode=0o600, durable=False
        )

    def remove(self) -> None:
        """Forget it."""
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.directory):
                os.unlink(f"{self.directory}/{name}")
            os.rmdir(self.directory)


class Containers:
    """The state directory."""

    def __init__(self, root: str, log: Log | None = None) -> None:
        self.root = os.path.abspath(root)
        self.log = log or Log()

    @property
    def empty(self) -> str:
        """An empty directory."""
        return f"{self.root}/empty"

    def prepare(self) -> None:
        """Make what all share."""
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        for name in ("empty", "filters"):
            with contextlib.suppress(FileExistsError):
                os.mkdir(f"{self.root}/{name}", 0o755)

    def directory(self, name: str) -> str:
        """A container's directory; StartError for a name that can't be one."""
        if not _NAME.fullmatch(name) or name in (".", "..", "empty", "filters"):
            raise StartError(
                "invalid_argument", f"invalid container id {name!r}: letters, digits and _+.- only"
            )
        return f"{self.root}/{name}"

    def claim(self, name: str) -> str:
        """Make a new container's directory."""
        self.prepare()
        path = self.directory(name)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            raise StartError("already_exists", f"container with id {name} exists already") from None
        return path

    def find(self, name: str) -> Container:
        """A known container."""
        path = self.directory(name)
        try:
            with open(f"{path}/{_STATE}", encoding="utf-8") as file:
                return Container(path, json.load(file))
        except FileNotFoundError:
            raise StartError("not_found", f"container {name} does not exist") from None

    def all(self) -> list[Container]:
        """Every known container."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(os.listdir(self.root)):
                with contextlib.suppress(StartError):
                    found.append(self.find(name))
        return found
