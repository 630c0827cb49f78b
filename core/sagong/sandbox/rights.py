"""What a plugin's process may do: one frozen value; everything that it does not name is denied."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from sagong.errors import InvalidArgument
from sagong.linux import capabilities
from sagong.sandbox.syscall_groups import GROUPS

__all__ = ["DeviceGrant", "PathGrant", "ProcessLimits", "Rights"]


class PathGrant(NamedTuple):
    """A path seen at its own place. `shared` keeps mount propagation with the machine, both ways.

    A missing `optional` path is left out, a missing other one is an error.
    """

    path: str
    access: str = "read"
    shared: bool = False
    optional: bool = False


class DeviceGrant(NamedTuple):
    """A device node, readable and writable."""

    path: str
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessLimits:
    """Sizes in bytes, processes with threads, CPU shares (1024 is normal), open files.

    `cores` is how many of them it may use at once, 0 for all. `file_size` is how large it may make
    a single file, 0 for as large as it likes.
    """

    memory: int = 256 << 20
    pids: int = 64
    cpu_shares: int = 1024
    cores: float = 0.0
    files: int = 4096
    tmp: int = 64 << 20
    file_size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """The rights of one process.

    `data` and `run` are its own directories (made if missing, owned by `uid`). `sockets` are
    directories of other processes whose sockets it may connect to; `lobby` is a directory and the
    place where it is seen, in which more of them may be shown later. `network` is "none" (a
    namespace of its own without interfaces) or "host". `seccomp` names groups of `GROUPS`,
    `syscalls` single calls. `capabilities` are kept as ambient ones, so a uid other than 0 has them
    and passes them to programs it executes. `cgroup` is the path of its control group, "" for none.
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    capabilities: tuple[str, ...] = ()
    data: str = ""
    run: str = ""
    paths: tuple[PathGrant, ...] = ()
    sockets: tuple[str, ...] = ()
    lobby: tuple[str, str] | None = None
    devices: tuple[DeviceGrant, ...] = ()
    network: str = "none"
    seccomp: tuple[str, ...] = ()
    syscalls: tuple[str, ...] = ()
    limits: ProcessLimits = field(default_factory=ProcessLimits)
    cgroup: str = ""

    def __post_init__(self) -> None:
        problems = _problems(self)
        if problems:
            raise InvalidArgument(f"rights of {self.name}: " + "; ".join(problems))

    @property
    def mounts(self) -> bool:
        """Whether it may mount, which excludes Landlock's rules for files."""
        return "mount" in self.seccomp or "mount" in self.syscalls


def _plain_path(path: str) -> bool:
    """Whether it says by itself what it is below; `/.` and `//` are the whole machine, too."""
    parts = [part for part in path.split("/") if part]
    known = bool(parts) and "." not in parts and ".." not in parts
    return known and path.startswith("/") and "\0" not in path


def _problems(rights: Rights) -> list[str]:
    problems = []
    named = [grant.path for grant in rights.paths] + [device.path for device in rights.devices]
    for path in (*named, *rights.sockets, *filter(None, (rights.data, rights.run))):
        if not _plain_path(path):
            problems.append(
                f"path {path!r} must be absolute, without '.' and '..', and not / itself"
            )
    for path in (grant.path for grant in rights.devices):
        if not path.startswith("/dev/"):
            problems.append(f"device {path!r} must be below /dev")
    for grant in rights.paths:
        if grant.access not in ("read", "write"):
            problems.append(f"access {grant.access!r} to {grant.path}: say read or write")
        elif grant.shared and grant.access != "write":
            # Mounts that come later are what they are: nothing would keep them from being written.
            problems.append(f"shared path {grant.path} can't be for reading alone: say write")
    problems += [f"seccomp group {g!r}; known: {', '.join(GROUPS)}" for g in _unknown(rights)]
    for name in rights.capabilities:
        try:
            capabilities.number_of(name)
        except ValueError as error:
            problems.append(str(error))
    if rights.network not in ("none", "host"):
        problems.append(f"network {rights.network!r}: say none or host")
    if rights.uid < 0 or rights.gid < 0:
        problems.append("uid and gid must not be negative")
    return problems


def _unknown(rights: Rights) -> list[str]:
    return [group for group in rights.seccomp if group not in GROUPS]
