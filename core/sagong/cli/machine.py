"""What this machine lacks of what sagong needs: kernel, control groups, rights, filesystems."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from sagong.linux import capabilities, syscalls
from sagong.linux.cgroup import layout_of_machine

__all__ = ["lacks"]

_RIGHTS = (
    *("CHOWN", "DAC_OVERRIDE", "KILL", "SETGID", "SETUID", "SETPCAP", "SYS_CHROOT", "MKNOD"),
    *("NET_ADMIN", "SYS_PTRACE", "SYS_ADMIN"),
)
_PR_GET_SECCOMP = 21
_HOST = "if this is a container, what runs it has to"
# linux/netfilter/nfnetlink.h, nf_tables.h: NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN.
_NETLINK_NETFILTER, _GET_GENERATION = 12, 10 << 8 | 16
_HEADER, _FAMILY = struct.Struct("=IHHII"), struct.Struct("=BBH")
_NLM_REQUEST, _NLMSG_ERROR = 1, 2
_ANSWER_SECONDS = 1.0


class Need(NamedTuple):
    """Something of the machine: `lack` says what is not so, "" if all is well; for `unit` alone."""

    lack: Callable[[], str]
    unit: str = ""


def lacks(units: Collection[str]) -> Iterator[str]:
    """A line for each thing that the machine lacks and that it, or one of `units`, needs."""
    for need in NEEDS:
        if (not need.unit or need.unit in units) and (text := need.lack()):
            yield f"this machine: {text}"


def _kernel() -> str:
    """mount_setattr(2) is the newest call that nothing goes without."""
    try:
        syscalls.mount_setattr("/", directory=-1)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            return f"its kernel is Linux {os.uname().release}; at least 5.12 is needed"
    return ""


def _seccomp() -> str:
    try:
        syscalls.prctl(_PR_GET_SECCOMP)
    except OSError:
        return (
            "its kernel has no seccomp filters (CONFIG_SECCOMP_FILTER), and no plugin runs without"
        )
    return ""


def _rights() -> str:
    """Only those of root count."""
    given = capabilities.bounding_set() & (syscalls.capget()[1] if os.geteuid() == 0 else -1)
    missing = [
        f"CAP_{name}" for name in _RIGHTS if not given & capabilities.mask_of((f"CAP_{name}",))
    ]
    if not missing:
        return ""
    return f"root lacks {', '.join(missing)} here; {_HOST} give them (as with --privileged)"


def _control_groups() -> str:
    hierarchies = layout_of_machine().hierarchies
    if not hierarchies:
        return "no control groups are mounted; mount -t cgroup2 none /sys/fs/cgroup"
    for hierarchy in hierarchies:
        if _is_read_only(hierarchy.mount):
            return f"{hierarchy.mount} is mounted read-only; {_HOST} mount control groups writable"
    return ""


def _sysctls() -> str:
    if _is_read_only("/proc/sys/net"):
        return (
            f"/proc/sys is mounted read-only, and networks set sysctls; {_HOST} mount it writable"
        )
    return ""


def _overlay() -> str:
    """A module is loaded at the first mount, if there is one."""
    if "\toverlay" in Path("/proc/filesystems").read_text() or _is_module("overlay"):
        return ""
    return "its kernel has no overlayfs (CONFIG_OVERLAY_FS), of which roots of containers are made"


def _nf_tables() -> str:
    try:
        refused = _asked_of_nf_tables()
    except OSError as error:
        refused = error.errno or 0
    if refused in (0, errno.EPERM):
        return ""
    return (
        f"its kernel has no nf_tables ({os.strerror(refused)}; CONFIG_NF_TABLES, modprobe nf_tables), "
        "which networks need"
    )


def _asked_of_nf_tables() -> int:
    """The errno with which the kernel refuses to tell the generation of its rules; 0 if it does not."""
    length = _HEADER.size + _FAMILY.size
    question = _HEADER.pack(length, _GET_GENERATION, _NLM_REQUEST, 1, 0) + _FAMILY.pack(0, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as asked:
        asked.settimeout(_ANSWER_SECONDS)
        asked.send(question)
        answer = asked.recv(4096)
    if _HEADER.unpack_from(answer)[1] != _NLMSG_ERROR:
        return 0
    return -int.from_bytes(answer[_HEADER.size : _HEADER.size + 4], "little", signed=True)


def _is_read_only(path: str) -> bool:
    with contextlib.suppress(OSError):
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    return False


def _is_module(name: str) -> bool:
    """Whether the kernel's modules on disk have one of this name."""
    with contextlib.suppress(OSError):
        listed = Path("/lib/modules", os.uname().release, "modules.dep").read_text()
        return f"/{name}.ko" in listed
    return False


NEEDS = (
    Need(_kernel),
    Need(_seccomp),
    Need(_rights),
    Need(_control_groups),
    Need(_sysctls, "network"),
    Need(_overlay, "image"),
    Need(_nf_tables, "network"),
)
