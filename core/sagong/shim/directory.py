"""Where the runtime keeps its files: one directory, read by plugin, launcher and monitors.

::

    launcher.sock           the launcher
    root/                   an empty directory: the mount point of every root, each in its own namespace
    s/NUMBER                a monitor's socket (short, since Unix socket paths end at 107 bytes)
    containers/ID/          spec.json    the RunSpec                     written by the plugin
                            plan.json    what a successor monitor needs  written by the plugin
                            paused, emitted                              marks of the plugin
                            state.json   pid, start time, monitor        written by the monitor
                            begun        the program was executed        mark of the monitor
                            exit.json    exit code                       written by the monitor
                            stdin stdout stderr                          FIFOs
    containers/ID/execs/X/  state.json exit.json and FIFOs of an exec
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from typing import Any, NamedTuple

from sagong.linux.files import replace_file
from sagong.shim.failure import StartError

# A short name for any key; a hash would load a cryptographic library into every monitor.
_PRIME = 2**89 - 1

_RESERVED = 4096

__all__ = [
    "RunDirectory",
    "full",
    "read_record",
    "reserve_record",
    "withdraw_record",
    "write_record",
    "write_reserved",
]


class RunDirectory(NamedTuple):
    """Paths below the runtime's run directory."""

    base: str

    @property
    def launcher_socket(self) -> str:
        """Where the launcher listens."""
        return f"{self.base}/launcher.sock"

    @property
    def root(self) -> str:
        """The empty directory on which roots are mounted."""
        return f"{self.base}/root"

    @property
    def containers(self) -> str:
        """The directory of all containers."""
        return f"{self.base}/containers"

    def container(self, container_id: str) -> str:
        """The directory of a container."""
        return f"{self.containers}/{container_id}"

    def execution(self, container_id: str, exec_id: str) -> str:
        """The directory of an exec'd process."""
        return f"{self.container(container_id)}/execs/{exec_id}"

    def monitor_socket(self, key: str) -> str:
        """The socket of the monitor with this key (a group's name or a container's id)."""
        return f"{self.base}/s/{int.from_bytes(key.encode(), 'big') % _PRIME:x}"

    def owner(self) -> int:
        """The plugin's uid: what it keeps is its own."""
        return os.stat(self.containers).st_uid

    def owners(self) -> tuple[int, ...]:
        """Who may ask: root, the plugin, and its successor, to whom the kernel gives the base first."""
        return 0, self.owner(), os.stat(self.base).st_uid

    def hand_over(self) -> None:
        """Give all to the base's new owner, a successor of another plugin; by root.

        What programs write to stays theirs.
        """
        former, owner = self.owner(), os.stat(self.base).st_uid
        if former == owner:
            return
        for place, directories, files in os.walk(self.base):
            for name in (*directories, *files):
                path = f"{place}/{name}"
                found = os.lstat(path)
                if found.st_uid == former and not stat.S_ISFIFO(found.st_mode):
                    os.chown(path, owner, -1, follow_symlinks=False)

    def create(self) -> None:
        """Make what is below the base, the plugin's own; existing directories are no error."""
        for path in (self.root, self.containers, f"{self.base}/s"):
            if not os.path.isdir(path):
                os.makedirs(path, exist_ok=True)
                if os.geteuid() == 0:
                    os.chown(path, os.stat(self.base).st_uid, -1)


def write_record(path: str, record: dict[str, Any]) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a half."""
    replace_file(path, json.dumps(record).encode(), beside=f"{path}.new", mode=0o644)


def reserve_record(path: str) -> None:
    """Take room for a record that must be written later, whatever the disk is like by then."""
    try:
        descriptor = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.posix_fallocate(descriptor, 0, _RESERVED)
        finally:
            os.close(descriptor)
    except OSError as error:
        withdraw_record(path)
        raise full(error, path) from None


def full(error: OSError, path: str) -> StartError:
    """A record could not be written, most likely for want of room."""
    text = f"writing {path}: {error.strerror}; make room there"
    return StartError("resource_exhausted", text)


def write_reserved(path: str, record: dict[str, Any]) -> None:
    """As `write_record`, in the room that was taken for it."""
    content = json.dumps(record).encode()
    descriptor = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.pwrite(descriptor, content, 0)
        os.ftruncate(descriptor, len(content))
    finally:
        os.close(descriptor)
    os.rename(f"{path}.new", path)


def withdraw_record(path: str) -> None:
    """Give the room back."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{path}.new")


def read_record(path: str) -> dict[str, Any] | None:
    """The record, or None when there is none."""
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read())
    except FileNotFoundError:
        return None
    return found if isinstance(found, dict) else None
