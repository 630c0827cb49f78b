"""Seccomp filters that ask a program outside: the descriptor that it answers on, handed to it.

The process can't send that descriptor itself: the call could be one that it is asked about. So it
tells the number before, and the runtime takes it out of the process once it is there.
"""

from __future__ import annotations

import base64
import json
import os
import select
import socket
from typing import Any, NamedTuple

from sagong.linux import process, seccomp, syscalls
from sagong.shim.failure import NEVER_BEGAN, StartError
from sagong_runtime_linux.oci.containers import VERSION
from sagong_runtime_linux.operations import Stage

__all__ = ["FlaggedFilter", "NotifyingFilter", "hand_listener", "take_listener"]

_NEW_LISTENER = 8
_KIND = "anon_inode:seccomp notify"


class FlaggedFilter(NamedTuple):
    """A compiled filter, as base64, with the flags that its configuration names."""

    code: str
    flags: int

    def describe(self) -> str:
        """For error messages."""
        return "loading the seccomp filter"

    def apply(self, stage: Stage) -> None:
        """seccomp(2)."""
        seccomp.load(base64.b64decode(self.code), self.flags)


class NotifyingFilter(NamedTuple):
    """A compiled filter, as base64, some of whose answers a program outside gives."""

    code: str
    flags: int

    def describe(self) -> str:
        """For error messages."""
        return "loading the seccomp filter"

    def apply(self, stage: Stage) -> None:
        """seccomp(2) gives the lowest free number."""
        assert stage.monitor is not None
        code = base64.b64decode(self.code)
        number = os.dup(0)
        os.close(number)
        stage.monitor.send(b'{"notify":%d}' % number)
        seccomp.load(code, self.flags | _NEW_LISTENER)
        if stage.monitor.recv(64).partition(b" ")[0] != b"go":
            os._exit(NEVER_BEGAN)
        os.close(number)


def take_listener(pid: int, number: int, channel: socket.socket) -> int:
    """The listener of a process that is about to have it; -1 when something came by the channel."""
    pidfd = os.pidfd_open(pid)
    try:
        while not select.select([channel], [], [], 0.001)[0]:
            try:
                found = syscalls.pidfd_getfd(pidfd, number)
            except OSError:
                continue
            if os.readlink(f"/proc/self/fd/{found}") == _KIND:
                return found
            os.close(found)
    finally:
        os.close(pidfd)
    return -1


def hand_listener(listener: int, seccomp: dict[str, Any], state: dict[str, Any], pid: int) -> None:
    """To who listens at `listenerPath`, with the specification's container process state."""
    told: dict[str, Any] = {"ociVersion": VERSION, "fds": ["seccompFd"], "pid": pid, "state": state}
    if seccomp.get("listenerMetadata"):
        told["metadata"] = seccomp["listenerMetadata"]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.connect(seccomp["listenerPath"])
            process.send_descriptors(channel, json.dumps(told).encode(), (listener,))
    except OSError as error:
        text = f"linux.seccomp.listenerPath {seccomp['listenerPath']}: {error.strerror}"
        raise StartError("failed_precondition", text) from None
