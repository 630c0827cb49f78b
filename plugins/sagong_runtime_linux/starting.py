"""Starting a process: fork into the right pid namespace, hear from the child, give it its go."""

from __future__ import annotations

import functools
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
from sagong.shim.lifelines import tell_pages
from sagong.shim.loop import READ, Timer
from sagong.shim.nursery import Newborn, Nursery
from sagong.shim.pages import written
from sagong.shim.starting import Order
from sagong.shim.user_namespace import open_user_namespace
from sagong_runtime_linux.child import await_order, run_child
from sagong_runtime_linux.operations import Stage

__all__ = ["LinuxEngine", "Start"]

# Mounting a dead network volume may hang; the caller has long given up by then.
_START_SECONDS = 60.0
_MESSAGE_SIZE = 64 << 10
# What goes in one message of a socket with the kernel's usual buffer.
_ORDER_SIZE = 96 << 10


class LinuxEngine:
    """Starts processes by plans of operations; cgroups suffice for all else."""

    maker = "sagong_runtime_linux.starting:LinuxEngine"
    jobs: Mapping[str, Job] = {}

    def __init__(self) -> None:
        self._nursery: Nursery | None = None

    def attempt(self, order: Order) -> Start:
        """One attempt."""
        if self._nursery is None:
            grow = functools.partial(await_order, order.directory.root, order.layout)
            self._nursery = Nursery(order.loop, grow, order.pages)
        return Start(order, self._nursery)

    def clean(self, container: Container) -> None:
        """A cgroup is all that is left."""


class Start:
    """One attempt to start a process; what it tells is the order's."""

    def __init__(self, order: Order, nursery: Nursery) -> None:
        self.pid = 0
        self._order = order
        self._nursery = nursery
        self._over = False
        self._channel: socket.socket | None = None
        self._timer: Timer | None = None
        self._error: StartError | None = None
        self._started = 0
        # What the program waits for: its terminal, its final pid, its time, our look at its pages.
        self._connected = not order.request["session"]["tty"]
        self._known = not order.request.get("forks")
        self._wanted = not order.ahead
        self._learning = False
        self._written = False
        self._executed = False

    def begin(self) -> None:
        """Fork the child, or take one that is ready.

        Into a new pid namespace of a user namespace the child forks once more, and tells the final
        pid itself.
        """
        order = self._order
        stage = Stage(order.directory.root, order.session.directory, order.layout)
        try:
            pids = self._enter(stage)
            if pids == "":
                self._fork(stage, pids)
        except BaseException:
            stage.close()
            raise
        if pids == "":
            stage.close()
            return
        self._timer = order.loop.later(_START_SECONDS, self._too_slow)
        then = functools.partial(self._born, stage, pids)
        if isinstance(pids, int):
            self._nursery.take_into(pids, then)
        else:
            self._nursery.take(then)

    def _born(self, stage: Stage, pids: str | int, newborn: Newborn | None) -> None:
        """It gets its order; without one it is forked here."""
        try:
            if self._over:
                return
            if newborn is None or not self._ordered(stage, newborn):
                self._fork(stage, pids)
        except (OSError, ValueError) as error:
            self._error = StartError("internal", f"{type(error).__name__}: {error}")
            self._end()
        finally:
            stage.close()
            if newborn is not None and self._channel is not newborn.channel:
                newborn.channel.close()

    def _ordered(self, stage: Stage, newborn: Newborn) -> bool:
        """Tell a child what to start; False when it has ended or the order is too long for it."""
        request = self._order.request
        first = not self._order.target and "pid" not in stage.namespaces
        order = {
            "session": request["session"],
            "directory": stage.directory,
            "namespaces": list(stage.namespaces),
            "tells": first and self._order.pages.ranges is None,
        }
        text = f"{json.dumps(order)}\n{request['plan']}".encode()
        if len(text) > _ORDER_SIZE:
            return False
        try:
            process.send_descriptors(newborn.channel, text, tuple(stage.namespaces.values()))
        except OSError:
            return False
        self.pid = newborn.pid
        self._learning = order["tells"]
        self._follow(newborn.channel)
        return True

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
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = self._order.request
        self.pid = fork_into(pid_namespace)
        if self.pid == 0:
            try:
                ours.close()
                run_child(stage, request["plan"], request["session"], theirs)
            finally:
                os._exit(1)
        theirs.close()
        self._follow(ours)

    def _follow(self, channel: socket.socket) -> None:
        """Hear from the child; it may go when it is written down."""
        loop = self._order.loop
        channel.setblocking(False)
        self._channel = channel
        loop.add(channel.fileno(), READ, lambda _: self._hear())
        if self._timer is None:
            self._timer = loop.later(_START_SECONDS, self._too_slow)
        self._order.forked(self.pid)
        self._go()

    def proceed(self) -> None:
        """Its time has come."""
        self._wanted = True
        if self._channel is not None:
            self._go()

    def _go(self) -> None:
        """Let it be written down who the child is, then let it exec.

        Not before its terminal has come, which must outlive this process from the first moment on.
        """
        if not (self._connected and self._known and self._wanted) or self._written:
            return
        self._written = True
        self._started = lean.start_ticks(self.pid)
        try:
            self._order.started(self.pid, self._started)
        except OSError as error:
            self._error = full(error, f"{self._order.session.directory}/state.json")
            self._kill()
            self._finish()
            return
        if not self._learning:
            self._let_go()

    def _learn(self) -> None:
        """The child has done all that it does before its program."""
        ranges = self._order.pages.ranges = written(self.pid)
        tell_pages(self._order.directory, ranges)

    def _let_go(self) -> None:
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
            self.pid, self._known = message["pid"], True
            self._go()
        elif "ready" in message:
            self._learn()
            self._learning = False
            if self._written:
                self._let_go()
        elif "exec" in message:
            self._executed = True
        elif "error" in message:
            error = message["error"]
            self._error = StartError(error["code"], error["message"])

    def reaped(self, pid: int, status: int) -> None:
        """The child has ended, perhaps before we heard all it said: also that another one goes on."""
        self._hear()
        if self._channel is not None and pid == self.pid:
            self._channel.setblocking(True)
            self._channel.settimeout(1.0)
            self._hear()

    def _finish(self) -> None:
        channel, self._channel = self._channel, None
        if channel is None:
            return
        self._order.loop.drop(channel.fileno())
        channel.close()
        if self._error is None and not self._executed:
            self._error = StartError(
                "internal", "the process ended before its program was executed (killed?)"
            )
        self._end()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._over = True
        if self._error is None:
            self._order.session.begin(self.pid, self._started)
        self._order.done(self._error)

    def _too_slow(self) -> None:
        text = f"not started in {_START_SECONDS:.0f} s (a mount that hangs?)"
        self.give_up(StartError("failed_precondition", text))

    def give_up(self, error: StartError) -> None:
        """End the child, if there is one."""
        if self._over:
            return
        self._error = error
        if self._channel is None:
            self._end()
            return
        self._kill()
        self._finish()

    def _kill(self) -> None:
        """End the child; it is reaped like any other."""
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
