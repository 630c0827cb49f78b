"""The deputy: mounts and unmounts below one directory, and sets limits of projects.

It alone has CAP_SYS_ADMIN. Places are named by the last part of their path, directories come as
descriptors that the plugin has opened; its system calls are listed here, one by one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import socket
import stat
from functools import partial
from pathlib import Path

import msgspec

from sagong.deputy import Post, aside, attend
from sagong.linux import mounts, seccomp, syscalls
from sagong.linux.quota import set_blocks

__all__ = ["Drop", "Limit", "Mount", "Pin", "serve"]

_NAME = re.compile(r"volume[A-Za-z0-9@_.-]{1,200}")
_SANDBOX_FLAGS = mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV | mounts.MOUNT_ATTR_NOEXEC


class Mount(msgspec.Struct, frozen=True, tag=True):
    """A filesystem at a place, which is made. Aside: a server may not answer for minutes."""

    name: str
    kind: str
    device: str
    flags: int
    data: str


class Pin(msgspec.Struct, frozen=True, tag=True):
    """The directory or file that comes along, at a place, which is made."""

    name: str


class Drop(msgspec.Struct, frozen=True, tag=True):
    """Unmount a place and take it away; one that isn't there is no error."""

    name: str


class Limit(msgspec.Struct, frozen=True, tag=True):
    """The most bytes of a project on the filesystem of the directory that comes along; 0: any."""

    project: int
    size: int


def serve(channel: socket.socket, post: Post) -> None:
    """Be the mounter until the plugin is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    decoder = msgspec.msgpack.Decoder(Mount | Pin | Drop | Limit)
    attend(channel, decoder.decode, Mounter(post.root / "mounts").work, _RULES)


class Mounter:
    """Works below one directory."""

    def __init__(self, pins: Path) -> None:
        self._pins = pins
        pins.mkdir(mode=0o755, parents=True, exist_ok=True)
        with contextlib.suppress(PermissionError):
            # Without root nothing is mounted: plain volumes are directories.
            mounts.share(str(pins))

    def work(
        self, request: Mount | Pin | Drop | Limit, given: tuple[int, ...], _: list[int]
    ) -> None:
        """Do it."""
        match request:
            case Limit(project, size):
                set_blocks(given[0], project, size)
            case Mount():
                place = self._made(request.name)
                aside(given[0], partial(_mount, place, request), partial(_drop, place))
            case Pin(name):
                directory = stat.S_ISDIR(os.fstat(given[0]).st_mode)
                _attach(given[0], self._made(name, directory=directory))
            case Drop(name):
                _drop(self._place(name))

    def _place(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no place of a volume")
        return str(self._pins / name)

    def _made(self, name: str, *, directory: bool = True) -> str:
        """The place, made if it isn't there; nobody's link."""
        place = self._place(name)
        with contextlib.suppress(FileExistsError):
            if directory:
                os.mkdir(place, 0o700)
            else:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                os.close(os.open(place, flags, 0o600))
        kind = stat.S_IFMT(os.lstat(place).st_mode)
        if kind != (stat.S_IFDIR if directory else stat.S_IFREG):
            raise ValueError(f"{place} is no {'directory' if directory else 'file'}")
        return place


def _mount(place: str, what: Mount) -> None:
    try:
        syscalls.mount(what.device, place, what.kind, what.flags, what.data)
    except OSError:
        os.rmdir(place)
        raise


def _attach(directory: int, place: str) -> None:
    """Mount a directory for containers, who may run programs where the plugin may not.

    Flags are changed before it is attached: what has been passed on to other mount namespaces keeps
    those that it had.
    """
    tree = syscalls.open_tree("", clone=True, directory=directory)
    try:
        syscalls.mount_setattr("", clear=_SANDBOX_FLAGS, directory=tree)
        syscalls.move_mount(tree, place)
    finally:
        os.close(tree)


def _drop(place: str) -> None:
    try:
        syscalls.umount(place, mounts.MNT_DETACH | mounts.UMOUNT_NOFOLLOW)
    except OSError as error:
        # Nothing is mounted there; without root nothing ever was.
        if error.errno not in (errno.EINVAL, errno.ENOENT, errno.EPERM):
            raise
    with contextlib.suppress(FileNotFoundError):
        try:
            os.rmdir(place)
        except NotADirectoryError:
            os.unlink(place)


# All that it calls, beside an interpreter's own: nothing that connects or executes.
_RULES = (
    seccomp.rule_of("mkdir mkdirat rmdir unlink unlinkat"),
    seccomp.rule_of("mount umount2 open_tree mount_setattr move_mount quotactl_fd"),
)
