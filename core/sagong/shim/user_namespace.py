"""User namespaces with their maps, and what belongs to them, made by short forks."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterable

from sagong.linux import syscalls
from sagong.shim import lean
from sagong.shim.namespaces import FILES, KINDS

__all__ = [
    "become_mapped_root",
    "fork_owned",
    "make_user_namespace",
    "open_user_namespace",
    "owned",
]


def make_user_namespace(uid_map: Iterable[Iterable[int]], gid_map: Iterable[Iterable[int]]) -> int:
    """A descriptor of a new user namespace; only somebody outside may write the maps."""
    made, told = os.pipe2(os.O_CLOEXEC)
    pid = lean.fork()
    if pid == 0:
        try:
            os.close(made)
            syscalls.unshare(syscalls.Namespace.USER)
            _hold(told)
        finally:
            os._exit(1)
    os.close(told)
    try:
        if os.read(made, 1) != b"x":
            raise OSError(1, "unshare: user namespaces are forbidden here")
        for name, table in (("uid_map", uid_map), ("gid_map", gid_map)):
            _write_map(f"/proc/{pid}/{name}", table)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(made)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _hold(told: int) -> None:
    """Say that it is made, and stay until the one who was told ends us or has ended."""
    os.write(told, b"x")
    poll = select.poll()
    poll.register(told, 0)
    poll.poll()  # POLLERR: nobody has the other end any more


def open_user_namespace(
    path: str, uid_map: Iterable[Iterable[int]], gid_map: Iterable[Iterable[int]]
) -> int:
    """A descriptor of the one at a path, or without a path of a new one."""
    if path:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return make_user_namespace(uid_map, gid_map)


def _write_map(path: str, table: Iterable[Iterable[int]]) -> None:
    """All lines in one write, as the kernel wants it."""
    text = "\n".join(" ".join(str(number) for number in line) for line in table)
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def become_mapped_root(namespace: int) -> None:
    """Enter a user namespace and be its root, instead of a host's id that it does not know."""
    syscalls.setns(namespace, syscalls.Namespace.USER)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def owned(kind: str, user: int) -> int:
    """A descriptor of a new namespace that belongs to a user namespace."""
    made, told = os.pipe2(os.O_CLOEXEC)
    pid = lean.fork()
    if pid == 0:
        try:
            os.close(made)
            become_mapped_root(user)
            syscalls.unshare(KINDS[kind])
            _hold(told)
        finally:
            os._exit(1)
    os.close(told)
    try:
        if os.read(made, 1) != b"x":
            raise OSError(1, f"unshare: no {kind} namespace in the user namespace")
        return os.open(f"/proc/{pid}/ns/{FILES[kind]}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(made)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def fork_owned(user: int, directory: str) -> int:
    """Fork; the child is the first of a pid namespace that belongs to a user namespace.

    It begins in `directory`, to which its root could not walk. A process between makes it and ends:
    its child comes to the caller, a subreaper.
    """
    made, told = os.pipe2(os.O_CLOEXEC)
    between = lean.fork()
    if between == 0:
        try:
            os.chdir(directory)
            become_mapped_root(user)
            syscalls.unshare(syscalls.Namespace.PID)
            first = lean.fork()
            if first == 0:
                return 0
            os.write(told, b"%d" % first)
        finally:
            if os.getpid() != 1:
                os._exit(0)
    os.close(told)
    try:
        text = os.read(made, 32)
    finally:
        os.close(made)
        os.waitpid(between, 0)
    if not text:
        raise OSError(1, "unshare: no pid namespace in the user namespace")
    return int(text)
