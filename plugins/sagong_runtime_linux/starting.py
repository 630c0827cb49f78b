"""Starting a process: fork into the right pid namespace, hear from the child, give it its go."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from sagong.linux import process
from sagong_runtime_linux import lean
from sagong_runtime_linux.child import run_child
from sagong_runtime_linux.loop import READ, Loop
from sagong_runtime_linux.operations import Stage, StartError
from sagong_runtime_linux.session import Session

__all__ = ["Start", "exit_code", "fork_into"]

# Mounting a dead network volume may hang; the caller has long given up by then.
_START_SECONDS = 60.0
_MESSAGE_SIZE = 64 << 10
_CLONE_NEWPID = 0x20000000


def exit_code(status: int) -> int:
    """A wait status as a shell shows it."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def fork_into(wanted: str | int) -> int:
    """Fork; the child is in a new pid namespace ("new"), in one by descriptor, or in ours ("")."""
    if wanted == "":
        return lean.fork()
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    parent = os.getpid()
    try:
        if isinstance(wanted, int):
            lean.set_namespace(wanted, _CLONE_NEWPID)
        else:
            lean.unshare(_CLONE_NEWPID)
        return lean.fork()
    finally:
        if os.getpid() == parent:
            lean.set_namespace(own, _CLONE_NEWPID)
            os.close(own)


class Start:
    """One attempt to start a process; `done` is told once, with the error or None."""

    def __init__(self, loop: Loop, session: Session, done: Callable[[StartError | None], None]):
        self.pid = 0
        self._loop = loop
        self._session = session
        self._done = done
        self._channel: socket.socket | None = None
        self._error: StartError | None = None
        self._started = 0
        self._executed = False
        self.finished = False
        self._written: Callable[[int, int], None] = lambda pid, started: None

    def fork(
        self,
        stage: Stage,
        request: dict[str, Any],
        pid_namespace: str | int,
        written: Callable[[int, int], None],
    ) -> None:
        """Fork the child; `written(pid, started)` records it durably before it may exec.

        With a user namespace the child forks once more and tells the final pid itself.
        """
        self._written = written
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stage.monitor = theirs
        self.pid = fork_into(pid_namespace)
        if self.pid == 0:
            ours.close()
            run_child(stage, request["plan"], request["session"], theirs)
        theirs.close()
        stage.close()
        ours.setblocking(False)
        self._channel = ours
        self._loop.add(ours.fileno(), READ, lambda _: self._hear())
        self._timer = self._loop.later(_START_SECONDS, self._too_slow)
        if not request.get("user"):
            self.go(self.pid)

    def go(self, pid: int) -> None:
        """Write down who the child is, then let it exec."""
        self.pid = pid
        self._started = lean.start_ticks(pid)
        self._written(pid, self._started)
        if self._channel is not None:
            try:
                self._channel.send(b"go")
            except OSError:
                return  # It ended; the end of its channel tells the rest.

    def _hear(self) -> None:
        while self._channel is not None:
            try:
                data, descriptors = process.receive_descriptors(self._channel, _MESSAGE_SIZE, 2)
            except BlockingIOError:
                return
            except ConnectionResetError:
                # It ended without reading our "go": told once, ahead of what it said before.
                continue
            except OSError:
                data, descriptors = b"", ()
            if not data:
                self._finish()
                return
            self._message(json.loads(data), descriptors)

    def _message(self, message: dict[str, Any], descriptors: tuple[int, ...]) -> None:
        if "tty" in message and len(descriptors) == 2:
            self._session.use_terminal(*descriptors)
        elif "pid" in message:
            self.go(message["pid"])
        elif "exec" in message:
            self._executed = True
        elif "error" in message:
            error = message["error"]
            self._error = StartError(error["code"], error["message"])

    def reaped(self) -> None:
        """The child has ended, perhaps before we heard all it said."""
        if self._channel is not None:
            self._channel.setblocking(True)
            self._channel.settimeout(1.0)
            self._hear()

    def _finish(self) -> None:
        channel, self._channel = self._channel, None
        if channel is None:
            return
        self.finished = True
        self._timer.cancel()
        self._loop.drop(channel.fileno())
        channel.close()
        if self._error is None and not self._executed:
            self._error = StartError(
                "internal", "the process ended before its program was executed (killed?)"
            )
        if self._error is None:
            self._session.begin(self.pid, self._started)
        self._done(self._error)

    def _too_slow(self) -> None:
        self._error = StartError(
            "failed_precondition", f"not started in {_START_SECONDS:.0f} s (a mount that hangs?)"
        )
        self.kill()
        self._finish()

    def kill(self) -> None:
        """End the child; it is reaped like any other."""
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
