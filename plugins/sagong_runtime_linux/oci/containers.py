"""Containers as the state directory knows them: one directory each, made by create, gone by delete.

::

    ROOT/empty               where roots are mounted, each in a mount namespace of its own
    ROOT/filters/HASH        compiled seccomp filters
    ROOT/ID/creating.json    the same as state.json, before there is a process
    ROOT/ID/state.json       pid, start time, bundle, cgroup
    ROOT/ID/config.json      the configuration as it was at create
    ROOT/ID/start            a socket on which the created process waits
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
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
_CREATING = "creating.json"


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
        """Its cgroup; who may make none has one in no hierarchy."""
        from sagong.linux.cgroup import Cgroup, layout_of_machine
        from sagong.shim.cgroups import container_cgroup

        if not self.facts["cgroup"]:
            return Cgroup(layout_of_machine(), "", ())
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

    def write(self, name: str = _STATE) -> None:
        """Keep what is known."""
        path = f"{self.directory}/{name}"
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

    def __init__(self, root: str, log: Log | None = None, *, systemd: bool = False) -> None:
        self.root = os.path.abspath(root)
        # Whether cgroups of new containers are scopes of systemd's.
        self.systemd = systemd
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

    def claim(self, name: str, facts: dict[str, Any], config: dict[str, Any]) -> Container:
        """Make a new container's directory, with what `delete` needs if its creator is killed."""
        self.prepare()
        path = self.directory(name)
        pid = os.getpid()
        made = f"{self.root}/.{pid}.{time.monotonic_ns()}"
        container = Container(made, {**facts, "creator": [pid, process.start_time()]})
        os.mkdir(made, 0o700)
        with open(f"{made}/config.json", "w", encoding="utf-8") as file:
            file.write(json.dumps(config))
        container.write(_CREATING)
        try:
            os.rename(made, path)  # over an empty directory at most
        except OSError:
            container.remove()
            raise StartError("already_exists", f"container with id {name} exists already") from None
        container.directory = path
        return container

    def abandoned(self, name: str) -> Container | None:
        """What is left of one whose creator was killed before it was created."""
        path = self.directory(name)
        if os.path.exists(f"{path}/{_STATE}"):
            return None
        try:
            with open(f"{path}/{_CREATING}", encoding="utf-8") as file:
                facts = json.load(file)
        except FileNotFoundError:
            return None
        creator = process.open_identified(process.ProcessId(*facts["creator"]))
        if creator is None:
            return Container(path, facts)
        os.close(creator)
        return None

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
