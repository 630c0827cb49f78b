"""Starting a process: fork into the right pid namespace, hear from the child, give it its go."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Mapping
from typing import Any

from sagong.linux import process
from sagong.shim import lean
from sagong.shim.container import Container
from sagong.shim.directory import full
from sagong.shim.failure import StartError
from sagong.shim.forking import fork_into
from sagong.shim.jobs import Job
from sagong.shim.loop import READ, Timer
from sagong.shim.starting import Order
from sagong.shim.user_namespace import open_user_namespace
from sagong_runtime_linux.child import run_child
from sagong_runtime_linux.operations import Stage

__all__ = ["LinuxEngine", "Start"]

# Mounting a dead network volume may hang; the caller has long given up by then.
_START_SECONDS = 60.0
_MESSAGE_SIZE = 64 << 10


class LinuxEngine:
    """Starts processes by plans of operations; cgroups suffice for all else."""

    maker = "sagong_runtime_linux.starting:LinuxEngine"
    jobs: Mapping[str, Job] = {}

    def attempt(self, order: Order) -> Start:
        """One attempt."""
        return Start(order)

    def clean(self, container: Container) -> None:
        """A cgroup is all that is left."""


class Start:
    """One attempt to start a process; what it tells is the order's."""

    def __init__(self, order: Order) -> None:
        self.pid = 0
        self._order = order
        self._channel: socket.socket | None = None
        self._timer: Timer | None = None
        self._error: StartError | None = None
        self._started = 0
        self._connected = False
        self._executed = False

    def begin(self) -> None:
        """Fork the child.

        Into a new pid namespace of a user namespace the child forks once more, and tells the final
        pid itself.
        """
        order = self._order
        stage = Stage(order.directory.root, order.session.directory, order.layout)
        try:
            self._fork(stage, self._enter(stage))
        finally:
            stage.close()

    def _enter(self, stage: Stage) -> str | int:
        """Namespaces that the monitor opens for the child; the pid namespace to fork into."""
        request, group = self._order.request, self._order.group
        if self._order.target:
            pidfd = stage.namespaces["container"] = os.pidfd_open(self._order.target)
            return pidfd if request["enter_pid"] else ""
        if request["user"]:
            stage.namespaces["user"] = open_user_namespace(**request["user"])
        group.prepare(request["group_kinds"], stage.namespaces)
        return group.pid_namespace(request["pid"], stage.namespaces)

    def _fork(self, stage: Stage, pid_namespace: str | int) -> None:
        request = self._order.request
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stage.monitor = theirs
        self.pid = fork_into(pid_namespace)
        if self.pid == 0:
            ours.close()
            run_child(stage, request["plan"], request["session"], theirs)
        theirs.close()
        ours.setblocking(False)
        self._channel = ours
        loop = self._order.loop
        loop.add(ours.fileno(), READ, lambda _: self._hear())
        self._timer = loop.later(_START_SECONDS, self._too_slow)
        self._connected = not request["session"]["tty"]
        self._order.forked(self.pid)
        if not request.get("forks"):
            self._go()

    def _go(self) -> None:
        """Let it be written down who the child is, then let it exec.

        Not before its terminal has come, which must outlive this process from the first moment on.
        """
        if not self._connected:
            return
        self._started = lean.start_ticks(self.pid)
        try:
            self._order.started(self.pid, self._started)
        except OSError as error:
            self._error = full(error, f"{self._order.session.directory}/state.json")
            self._kill()
            self._finish()
            return
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
            self._order.session.use_terminal(*descriptors)
            self._connected = True
            self._go()
        elif "pid" in message:
            self.pid = message["pid"]
            self._go()
        elif "exec" in message:
            self._executed = True
        elif "error" in message:
            error = message["error"]
            self._error = StartError(error["code"], error["message"])

    def reaped(self, pid: int, status: int) -> None:
        """The child has ended, perhaps before we heard all it said."""
        if self._channel is not None:
            self._channel.setblocking(True)
            self._channel.settimeout(1.0)
            self._hear()

    def _finish(self) -> None:
        channel, self._channel = self._channel, None
        if channel is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._order.loop.drop(channel.fileno())
        channel.close()
        if self._error is None and not self._executed:
            self._error = StartError(
                "internal", "the process ended before its program was executed (killed?)"
            )
        if self._error is None:
            self._order.session.begin(self.pid, self._started)
        self._order.done(self._error)

    def _too_slow(self) -> None:
        self._error = StartError(
            "failed_precondition", f"not started in {_START_SECONDS:.0f} s (a mount that hangs?)"
        )
        self._kill()
        self._finish()

    def _kill(self) -> None:
        """End the child; it is reaped like any other."""
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
