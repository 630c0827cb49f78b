"""User namespaces with their maps, made by a short fork."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

from sagong.linux import syscalls
from sagong.shim import lean

__all__ = ["make_user_namespace"]


def make_user_namespace(uid_map: Iterable[Iterable[int]], gid_map: Iterable[Iterable[int]]) -> int:
    """A descriptor of a new user namespace; only somebody outside may write the maps."""
    made, told = os.pipe2(os.O_CLOEXEC)
    pid = lean.fork()
    if pid == 0:
        try:
            syscalls.unshare(syscalls.Namespace.USER)
            os.write(told, b"x")
            signal.pause()
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


def _write_map(path: str, table: Iterable[Iterable[int]]) -> None:
    """All lines in one write, as the kernel wants it."""
    text = "\n".join(" ".join(str(number) for number in line) for line in table)
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
