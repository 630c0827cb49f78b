"""Operations that fill a container's /dev: nodes, links, its terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import struct
import termios
from collections.abc import Iterator
from typing import NamedTuple

from sagong.linux import syscalls
from sagong.linux.places import open_file, standing_at
from sagong.shim.failure import StartError
from sagong_runtime_linux.mount_operations import attach
from sagong_runtime_linux.operations import Stage

__all__ = ["DefaultDevices", "HostDevice", "HostDevices", "OpenTerminal"]

# OCI runtime specification, "Default Devices": name, major, minor.
DEFAULT_NODES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
DEFAULT_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
# Of the host's /dev, what a privileged container gets from its own mounts instead.
_NOT_COPIED = frozenset({"pts", "shm", "mqueue", "fd", "ptmx", "console", "stdin", "stdout"})
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441


@contextlib.contextmanager
def _whole_modes() -> Iterator[None]:
    """mknod(2) takes the umask's bits away: of a node that anybody may write to, too."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def bind_node(stage: Stage, source: str, target: str) -> None:
    """Bind a device of the host: in a user namespace the kernel lets nobody make nodes."""
    tree = syscalls.open_tree(source.lstrip("/"), clone=True, directory=stage.old_root)
    try:
        attach(tree, target, "file")
    finally:
        os.close(tree)


class DefaultDevices(NamedTuple):
    """The nodes and links that every container has in /dev; `bind` in user namespaces."""

    directory: str
    bind: bool = False

    def describe(self) -> str:
        """For error messages."""
        return f"making devices in {self.directory}"

    def apply(self, stage: Stage) -> None:
        """mknod(2), symlink(2)."""
        if self.bind:
            for name, _, _ in DEFAULT_NODES:
                bind_node(stage, f"/dev/{name}", f"{self.directory}/{name}")
        with standing_at(self.directory), _whole_modes():
            for name, major, minor in () if self.bind else DEFAULT_NODES:
                os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
            for name, target in DEFAULT_LINKS:
                os.symlink(target, name)
            if os.path.exists("/proc/kcore"):
                os.symlink("/proc/kcore", "core")


class HostDevice(NamedTuple):
    """A device node of the host, or a directory of them, at `target`."""

    source: str
    target: str
    bind: bool = False

    def describe(self) -> str:
        """For error messages."""
        return f"making device {self.target}"

    def apply(self, stage: Stage) -> None:
        """mknod(2) with the host's numbers, owner and mode."""
        try:
            found = stage.stat_on_host(self.source)
        except FileNotFoundError:
            raise StartError(
                "invalid_argument",
                f'error gathering device information while adding custom device "{self.source}": '
                "no such file or directory",
            ) from None
        if stat.S_ISDIR(found.st_mode):
            self._copy_directory(stage)
        elif stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
            self._node(stage, found)
        else:
            raise StartError("invalid_argument", f"{self.source} is not a device node")

    def _node(self, stage: Stage, found: os.stat_result) -> None:
        if self.bind:
            bind_node(stage, self.source, self.target)
            return
        directory, name = os.path.split(self.target)
        with standing_at(directory), _whole_modes():
            if os.path.lexists(name):
                os.unlink(name)
            os.mknod(name, found.st_mode, found.st_rdev)
            os.chown(name, found.st_uid, found.st_gid, follow_symlinks=False)

    def _copy_directory(self, stage: Stage) -> None:
        directory = stage.open_on_host(self.source, os.O_RDONLY | os.O_DIRECTORY)
        try:
            names = os.listdir(directory)
        finally:
            os.close(directory)
        for name in names:
            inner = HostDevice(f"{self.source}/{name}", f"{self.target}/{name}", self.bind)
            try:
                inner.apply(stage)
            except (StartError, FileNotFoundError):
                continue


class HostDevices(NamedTuple):
    """All devices of the host, for privileged containers."""

    directory: str
    bind: bool = False

    def describe(self) -> str:
        """For error messages."""
        return "making the host's devices"

    def apply(self, stage: Stage) -> None:
        """Everything in /dev that is a node, or a directory of nodes."""
        listing = stage.open_on_host("/dev", os.O_RDONLY | os.O_DIRECTORY)
        try:
            names = sorted(os.listdir(listing))
        finally:
            os.close(listing)
        for name in names:
            target = f"{self.directory}/{name}"
            if name in _NOT_COPIED or os.path.lexists(target):
                continue
            try:
                HostDevice(f"/dev/{name}", target, self.bind).apply(stage)
            except (StartError, FileNotFoundError):
                continue


class OpenTerminal(NamedTuple):
    """Open a pseudo terminal in the container's devpts; the master goes to the monitor."""

    multiplexer: str
    console: str = ""
    rows: int = 0
    columns: int = 0
    uid: int = 0
    gid: int = 0

    def describe(self) -> str:
        """For error messages."""
        return "opening a terminal"

    def apply(self, stage: Stage) -> None:
        """The kernel's TIOCGPTPEER opens the slave by descriptor: no path can be forged."""
        master = open_file(self.multiplexer, os.O_RDWR | os.O_NOCTTY)
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        if self.rows or self.columns:
            size = struct.pack("HHHH", self.rows, self.columns, 0, 0)
            fcntl.ioctl(master, termios.TIOCSWINSZ, size)
        os.fchown(slave, self.uid, -1)
        if self.console:
            # By its descriptor: who fills this devpts could have another file at its path.
            tree = syscalls.open_tree("", clone=True, directory=slave)
            try:
                attach(tree, self.console, "file")
            finally:
                os.close(tree)
        stage.terminal = (master, slave)
