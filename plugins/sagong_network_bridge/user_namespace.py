"""A user namespace with its maps, and a network namespace that belongs to it.

Two forks: the first becomes root (a number that gives it nothing here, but the namespace's owner has
every right in it, and that must not be the plugin's uid), the second makes the namespaces. Maps can
only be written from outside.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import msgspec

from sagong.linux import process, syscalls
from sagong.linux.syscalls import Namespace

__all__ = ["Maps", "made", "processes"]

Lines = tuple[tuple[int, int, int], ...]


class Maps(msgspec.Struct, frozen=True, array_like=True):
    """Ids as (inside, outside, count)."""

    uids: Lines
    gids: Lines


def processes() -> int:
    """A directory of all processes in which maps can be written: a sandbox's own is read-only."""
    try:
        context = syscalls.fsopen("proc")
        try:
            syscalls.fsconfig_string(context, "subset", "pid")
            syscalls.fsconfig_create(context)
            return syscalls.fsmount(context)
        finally:
            os.close(context)
    except OSError:
        return os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def made(maps: Maps, proc: int) -> tuple[int, int]:
    """Descriptors of a new user namespace and of a network namespace that it owns.

    `proc` is what `processes` gave.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            child = _forked(lambda: _become_owner(maps, proc, theirs))
        try:
            data, descriptors = process.receive_descriptors(ours, 4096)
        finally:
            os.waitpid(child, 0)
    if len(descriptors) != 2:
        code, _, text = data.decode(errors="replace").partition(" ")
        raise OSError(int(code or 5), text or "the maker of the user namespace ended")
    return descriptors[0], descriptors[1]


def _forked(work: Callable[[], None]) -> int:
    """A child that does it and ends; an error is its exit status alone."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def _become_owner(maps: Maps, proc: int, channel: socket.socket) -> None:
    try:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        # The change made the process undumpable, which would hide the child's files from it.
        process.set_dumpable(dumpable=True)
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        child = _forked(lambda: _reported(lambda: _make(its, mine, channel), channel))
        its.close()
        if mine.recv(1):
            _write_map(proc, f"{child}/uid_map", maps.uids)
            _write_map(proc, f"{child}/gid_map", maps.gids)
            mine.send(b"x")
        os.waitpid(child, 0)
    except OSError as error:
        _report(error, channel)


def _make(parent: socket.socket, unused: socket.socket, channel: socket.socket) -> None:
    unused.close()  # else the parent's end would not be seen
    syscalls.unshare(Namespace.USER)
    parent.send(b"x")
    if not parent.recv(1):
        return  # the parent has said why
    syscalls.unshare(Namespace.NET)
    found = tuple(
        os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("user", "net")
    )
    process.send_descriptors(channel, b"made", found)


def _reported(work: Callable[[], None], channel: socket.socket) -> None:
    try:
        work()
    except OSError as error:
        _report(error, channel)


def _report(error: OSError, channel: socket.socket) -> None:
    where = f"{error.filename}: " if error.filename else ""
    channel.send(f"{error.errno} {where}{error.strerror}".encode())


def _write_map(proc: int, path: str, lines: Lines) -> None:
    """All lines in one write, as the kernel wants it."""
    text = "\n".join(" ".join(str(number) for number in line) for line in lines)
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"write {text!r}: {error.strerror}", path) from None
    finally:
        os.close(descriptor)
