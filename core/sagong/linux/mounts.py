"""Mount flags and the mount table: constants of mount(2) and a parser of /proc/PID/mountinfo."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from sagong.linux import syscalls

__all__ = [
    "ATTRIBUTES",
    "FLAGS",
    "PROPAGATIONS",
    "MountEntry",
    "bind",
    "bind_read_only",
    "flags_of",
    "mount_table",
    "parse_mountinfo",
    "set_propagation",
    "share",
]

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_SILENT = 32768
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_I_VERSION = 1 << 23
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25

MNT_FORCE = 1
MNT_DETACH = 2
MNT_EXPIRE = 4
UMOUNT_NOFOLLOW = 8

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

# Option name -> (bits to set, bits to clear) for mount(2).
FLAGS: dict[str, tuple[int, int]] = {
    "ro": (MS_RDONLY, 0),
    "rw": (0, MS_RDONLY),
    "nosuid": (MS_NOSUID, 0),
    "suid": (0, MS_NOSUID),
    "nodev": (MS_NODEV, 0),
    "dev": (0, MS_NODEV),
    "noexec": (MS_NOEXEC, 0),
    "exec": (0, MS_NOEXEC),
    "sync": (MS_SYNCHRONOUS, 0),
    "async": (0, MS_SYNCHRONOUS),
    "dirsync": (MS_DIRSYNC, 0),
    "mand": (MS_MANDLOCK, 0),
    "nomand": (0, MS_MANDLOCK),
    "nosymfollow": (MS_NOSYMFOLLOW, 0),
    "symfollow": (0, MS_NOSYMFOLLOW),
    "remount": (MS_REMOUNT, 0),
    "bind": (MS_BIND, 0),
    "rbind": (MS_BIND | MS_REC, 0),
    "noatime": (MS_NOATIME, 0),
    "atime": (0, MS_NOATIME),
    "nodiratime": (MS_NODIRATIME, 0),
    "diratime": (0, MS_NODIRATIME),
    "relatime": (MS_RELATIME, 0),
    "norelatime": (0, MS_RELATIME),
    "strictatime": (MS_STRICTATIME, 0),
    "nostrictatime": (0, MS_STRICTATIME),
    "lazytime": (MS_LAZYTIME, 0),
    "nolazytime": (0, MS_LAZYTIME),
    "iversion": (MS_I_VERSION, 0),
    "noiversion": (0, MS_I_VERSION),
    "silent": (MS_SILENT, 0),
    "loud": (0, MS_SILENT),
    "defaults": (0, 0),
}

PROPAGATIONS: dict[str, int] = {
    "private": MS_PRIVATE,
    "rprivate": MS_PRIVATE | MS_REC,
    "shared": MS_SHARED,
    "rshared": MS_SHARED | MS_REC,
    "slave": MS_SLAVE,
    "rslave": MS_SLAVE | MS_REC,
    "unbindable": MS_UNBINDABLE,
    "runbindable": MS_UNBINDABLE | MS_REC,
}

# The same options for mount_setattr(2), which can apply them recursively.
ATTRIBUTES: dict[str, int] = {
    "ro": MOUNT_ATTR_RDONLY,
    "nosuid": MOUNT_ATTR_NOSUID,
    "nodev": MOUNT_ATTR_NODEV,
    "noexec": MOUNT_ATTR_NOEXEC,
    "nosymfollow": MOUNT_ATTR_NOSYMFOLLOW,
    "nodiratime": MOUNT_ATTR_NODIRATIME,
}


class ParsedOptions(NamedTuple):
    """Mount options split by who reads them: flags, propagation changes, the filesystem's data."""

    flags: int
    propagations: tuple[int, ...]
    data: str


def flags_of(options: Iterable[str]) -> ParsedOptions:
    """Split options as mount(8) does; unknown ones are the filesystem's own."""
    flags = 0
    propagations: list[int] = []
    data: list[str] = []
    for option in options:
        if option in FLAGS:
            on, off = FLAGS[option]
            flags = (flags | on) & ~off
        elif option in PROPAGATIONS:
            propagations.append(PROPAGATIONS[option])
        elif option:
            data.append(option)
    return ParsedOptions(flags, tuple(propagations), ",".join(data))


class MountEntry(NamedTuple):
    """A line of mountinfo: `device` is "major:minor", `propagation` holds "shared:1" and so on."""

    id: int
    parent: int
    device: str
    root: str
    target: str
    options: tuple[str, ...]
    propagation: tuple[str, ...]
    kind: str
    source: str
    super_options: tuple[str, ...]

    @property
    def read_only(self) -> bool:
        """Whether this mount (not its filesystem) refuses writes."""
        return "ro" in self.options


_ESCAPE = re.compile(r"\\([0-7]{3})")


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def parse_mountinfo(text: str) -> tuple[MountEntry, ...]:
    """The mounts of a mountinfo file, in the order of mounting; see proc_pid_mountinfo(5).

    A path may hold whatever else ends a line elsewhere (\\r, U+2028): only what stands for itself here,
    blanks, newlines and backslashes, is escaped.
    """
    entries = []
    for line in filter(None, text.split("\n")):
        left, _, right = line.partition(" - ")
        number, parent, device, root, target, options, *tags = left.split(" ")
        kind, source, super_options = (*right.split(" "), "", "")[:3]
        entries.append(
            MountEntry(
                int(number),
                int(parent),
                device,
                _unescaped(root),
                _unescaped(target),
                tuple(options.split(",")),
                tuple(tags),
                kind,
                _unescaped(source),
                tuple(super_options.split(",")) if super_options else (),
            )
        )
    return tuple(entries)


def mount_table(pid: int | str = "self") -> tuple[MountEntry, ...]:
    """The mounts that a process sees."""
    with open(f"/proc/{pid}/mountinfo", "rb") as file:
        return parse_mountinfo(os.fsdecode(file.read()))


def bind(source: str, target: str, *, recursive: bool = False) -> None:
    """A writable bind mount."""
    syscalls.mount(source, target, flags=MS_BIND | (MS_REC if recursive else 0))


def share(path: str) -> None:
    """Make a directory a shared mount, unless it is a mount already."""
    if not any(entry.target == path for entry in mount_table()):
        bind(path, path)
        set_propagation(path, "shared")


def bind_read_only(source: str, target: str, *, recursive: bool = True) -> None:
    """A read-only bind mount, below too: detached, restricted, then attached, so never writable."""
    tree = syscalls.open_tree(source, clone=True, recursive=recursive)
    try:
        syscalls.mount_setattr("", set_=MOUNT_ATTR_RDONLY, recursive=recursive, directory=tree)
        syscalls.move_mount(tree, target)
    finally:
        os.close(tree)


def make_read_only_at(place: int) -> None:
    """The same of what a descriptor (O_PATH) stands for, on itself."""
    tree = syscalls.open_tree("", clone=True, recursive=True, directory=place)
    try:
        syscalls.mount_setattr("", set_=MOUNT_ATTR_RDONLY, recursive=True, directory=tree)
        syscalls.move_mount(tree, "", directory=place)
    finally:
        os.close(tree)


def set_propagation(target: str, name: str) -> None:
    """Change propagation by a name of `PROPAGATIONS`."""
    syscalls.mount("none", target, flags=PROPAGATIONS[name])
