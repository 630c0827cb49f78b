"""Checked system calls: a failed one raises OSError that names the call and the path."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

from sagong.linux.syscall_table import machine, numbers

__all__ = [
    "AT_EMPTY_PATH",
    "AT_RECURSIVE",
    "CLOSE_RANGE_CLOEXEC",
    "ExitInfo",
    "Namespace",
    "call",
    "capget",
    "capset",
    "close_range",
    "exit_info",
    "fsconfig_create",
    "fsconfig_flag",
    "fsconfig_string",
    "fsmount",
    "fsopen",
    "join_session_keyring",
    "memfd",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "pidfd_getfd",
    "pidfd_open",
    "pidfd_send_signal",
    "pivot_root",
    "prctl",
    "sched_setattr",
    "setdomainname",
    "sethostname",
    "setns",
    "umount",
    "unshare",
]

_LIBC = ctypes.CDLL(None, use_errno=True)
_NUMBERS = numbers(machine())
_MOST_ARGUMENTS = 6


def _taking(count: int) -> ctypes._NamedFuncPointer:
    """syscall(2) with so many arguments of a register's width: numbers, addresses, byte strings."""
    function = _LIBC["syscall"]
    function.restype = ctypes.c_long
    function.argtypes = (ctypes.c_long, *(ctypes.c_void_p,) * count)
    return function


# With their types known ctypes converts arguments by itself, in half the time.
_SYSCALLS = tuple(map(_taking, range(_MOST_ARGUMENTS + 1)))

Argument = int | bytes | None | ctypes.Array[ctypes.c_char]

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
CLOSE_RANGE_CLOEXEC = 1 << 2
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40


class Namespace:
    """CLONE_NEW* flags of unshare(2) and setns(2), by the names that /proc/PID/ns uses."""

    MNT = 0x00020000
    CGROUP = 0x02000000
    UTS = 0x04000000
    IPC = 0x08000000
    USER = 0x10000000
    PID = 0x20000000
    NET = 0x40000000
    TIME = 0x00000080


def call(name: str, *arguments: Argument, path: str = "") -> int:
    """Make the system call `name`; its result, or OSError naming the call, the reason and `path`.

    Integers, byte strings (NUL-terminated by ctypes), ctypes buffers and None (NULL) are taken.
    """
    number = _NUMBERS.get(name)
    if number is None:
        raise OSError(38, f"{name}: {machine()} has no such system call", path or None)
    result: int = _SYSCALLS[len(arguments)](number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}", path or None)
    return result


def _encoded(path: str) -> bytes | None:
    return os.fsencode(path) if path else None


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2); `kind` and `data` may be empty for bind, move, remount and propagation changes."""
    raw = os.fsencode(target)
    options = _encoded(data)
    if options is not None and len(options) >= 4096:
        raise OSError(7, "mount: options exceed one page; use the fsopen family", target)
    call("mount", os.fsencode(source), raw, _encoded(kind), flags, options, path=target)


def umount(target: str, flags: int = 0) -> None:
    """umount2(2); flags are `mounts.MNT_DETACH` and the like."""
    call("umount2", os.fsencode(target), flags, path=target)


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2); `(".", ".")` stacks the old root on the new one, to be detached after."""
    call("pivot_root", os.fsencode(new), os.fsencode(old), path=new)


def unshare(flags: int) -> None:
    """unshare(2) with flags of `Namespace`."""
    call("unshare", flags)


def setns(descriptor: int, kind: int = 0, *, path: str = "") -> None:
    """setns(2): enter a namespace by its descriptor, or several of a process by its pidfd."""
    call("setns", descriptor, kind, path=path)


def open_tree(
    path: str, *, clone: bool = False, recursive: bool = False, directory: int = AT_FDCWD
) -> int:
    """open_tree(2): a descriptor of a mount; with `clone` a detached copy that can be moved."""
    flags = OPEN_TREE_CLOEXEC | (OPEN_TREE_CLONE if clone else 0)
    flags |= AT_RECURSIVE if recursive else 0
    flags |= 0 if path else AT_EMPTY_PATH
    return call("open_tree", directory, os.fsencode(path), flags, path=path)


def move_mount(tree: int, target: str, *, directory: int = AT_FDCWD) -> None:
    """move_mount(2): attach a detached mount at `target` ("" means the directory descriptor)."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if target else MOVE_MOUNT_T_EMPTY_PATH)
    call("move_mount", tree, b"", directory, os.fsencode(target), flags, path=target)


def mount_setattr(
    path: str,
    *,
    set_: int = 0,
    clear: int = 0,
    propagation: int = 0,
    recursive: bool = False,
    user_namespace: int = 0,
    directory: int = AT_FDCWD,
) -> None:
    """mount_setattr(2): MOUNT_ATTR_* to set and clear, below too; idmaps by a user namespace."""
    flags = (AT_RECURSIVE if recursive else 0) | (0 if path else AT_EMPTY_PATH)
    attributes = struct.pack("=QQQQ", set_, clear, propagation, user_namespace)
    raw = ctypes.create_string_buffer(attributes, len(attributes))
    call("mount_setattr", directory, os.fsencode(path), flags, raw, len(attributes), path=path)


def fsopen(kind: str) -> int:
    """fsopen(2): a context in which a new filesystem is configured; close it when done."""
    return call("fsopen", os.fsencode(kind), 1, path=kind)


def fsconfig_string(context: int, key: str, value: str) -> None:
    """Set one `key=value` option; values may be longer than a page allows in mount(2)."""
    call("fsconfig", context, 1, os.fsencode(key), os.fsencode(value), 0, path=f"{key}={value}")


def fsconfig_flag(context: int, key: str) -> None:
    """Set an option without a value."""
    call("fsconfig", context, 0, os.fsencode(key), None, 0, path=key)


def fsconfig_create(context: int) -> None:
    """Create the filesystem that the context describes."""
    call("fsconfig", context, 6, None, None, 0)


def fsmount(context: int, attributes: int = 0) -> int:
    """fsmount(2): a detached mount (descriptor) of the created filesystem."""
    return call("fsmount", context, 1, attributes)


def prctl(option: int, *arguments: Argument, path: str = "") -> int:
    """prctl(2); `path` may say which of its many purposes failed."""
    full = (*arguments, 0, 0, 0, 0)[:4]
    return call("prctl", option, *full, path=path)


_SCHED_ATTR = struct.Struct("=IIQiIQQQ")  # struct sched_attr, version 0


def sched_setattr(policy: int, nice: int, runtime: int, *, thread: int = 0) -> None:
    """sched_setattr(2) of a thread (0: this one), inherited by what it makes, without priorities.

    `runtime` is the length of its turns in nanoseconds (0.1 to 100 ms, 0 for the machine's), of which
    Linux before 6.12 takes no notice.
    """
    raw = _SCHED_ATTR.pack(_SCHED_ATTR.size, policy, 0, nice, 0, runtime, 0, 0)
    call("sched_setattr", thread, ctypes.create_string_buffer(raw, len(raw)), 0)


# Version 3 of the capability ABI: two 32-bit words for each set.
_CAP_HEADER = struct.pack("=Ii", 0x20080522, 0)


def capget() -> tuple[int, int, int]:
    """Bit masks of this process's effective, permitted and inheritable capabilities."""
    header = ctypes.create_string_buffer(_CAP_HEADER, 8)
    data = ctypes.create_string_buffer(24)
    call("capget", header, data)
    low_e, low_p, low_i, high_e, high_p, high_i = struct.unpack("=6I", data.raw)
    return low_e | high_e << 32, low_p | high_p << 32, low_i | high_i << 32


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the three sets by bit masks."""
    words = []
    for shift in (0, 32):
        words += [(mask >> shift) & 0xFFFFFFFF for mask in (effective, permitted, inheritable)]
    header = ctypes.create_string_buffer(_CAP_HEADER, 8)
    call("capset", header, ctypes.create_string_buffer(struct.pack("=6I", *words), 24))


def pidfd_open(pid: int, flags: int = 0) -> int:
    """pidfd_open(2): close-on-exec, readable when the process has ended."""
    return call("pidfd_open", pid, flags, path=f"pid {pid}")


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """pidfd_send_signal(2): cannot hit a stranger that reuses the pid."""
    call("pidfd_send_signal", pidfd, signal, None, 0, path=f"pidfd {pidfd}")


def pidfd_getfd(pidfd: int, descriptor: int) -> int:
    """pidfd_getfd(2): a duplicate of another process's descriptor."""
    return call("pidfd_getfd", pidfd, descriptor, 0, path=f"pidfd {pidfd}")


class ExitInfo:
    """What PIDFD_GET_INFO tells: `status` is a wait status, None while running or unreaped."""

    # Plain, as everything here: what only makes one call should not pay for `typing`.

    def __init__(self, pid: int, parent: int, status: int | None) -> None:
        self.pid = pid
        self.parent = parent
        self.status = status


_INFO = struct.Struct("=QQ11Ii")
_INFO_EXIT = 1 << 3
# _IOWR(0xFF, 11, struct pidfd_info) with the structure's first, 64 byte long version.
_PIDFD_GET_INFO = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11


def exit_info(pidfd: int) -> ExitInfo:
    """Identity and exit status by pidfd, for processes that aren't our children, too.

    Needs Linux 6.13, and 6.15 for the status (which appears when the process has been reaped;
    the pidfd must have been opened before). Older kernels raise OSError ENOTTY or EINVAL.
    """
    buffer = bytearray(_INFO.pack(_INFO_EXIT | 1, 0, *[0] * 11, 0))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, buffer)
    except OSError as error:
        raise OSError(error.errno, f"PIDFD_GET_INFO: {error.strerror}", f"pidfd {pidfd}") from None
    mask, _, pid, _, parent, *_, status = _INFO.unpack(buffer)
    return ExitInfo(pid, parent, status if mask & _INFO_EXIT else None)


def close_range(first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
    """close_range(2); with CLOSE_RANGE_CLOEXEC they are only marked."""
    call("close_range", first, last, flags)


def memfd(name: str, flags: int = 1) -> int:
    """memfd_create(2), close-on-exec by default."""
    return call("memfd_create", os.fsencode(name), flags, path=name)


def sethostname(name: str) -> None:
    """sethostname(2) in this uts namespace."""
    raw = os.fsencode(name)
    call("sethostname", raw, len(raw), path=name)


def setdomainname(name: str) -> None:
    """setdomainname(2) in this uts namespace."""
    raw = os.fsencode(name)
    call("setdomainname", raw, len(raw), path=name)


def join_session_keyring(name: str = "") -> int:
    """keyctl(KEYCTL_JOIN_SESSION_KEYRING): a new anonymous session keyring, or the named one."""
    return call("keyctl", 1, _encoded(name), 0, 0, 0, path=name)
