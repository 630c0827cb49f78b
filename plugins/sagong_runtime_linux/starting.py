"""Starting a process: fork into the right pid namespace, hear from the child, give it its go."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from typing import Any

from sagong.linux import overlay, process
from sagong.linux.cgroup import CgroupLayout
from sagong.shim import lean
from sagong.shim.container import Container
from sagong.shim.directory import RunDirectory, full
from sagong.shim.failure import StartError, wrong
from sagong.shim.forking import fork_into
from sagong.shim.jobs import Job
from sagong.shim.loop import READ, Loop, Timer
from sagong.shim.nursery import Newborn, Nurse, Nursery
from sagong.shim.starting import Order
from sagong.shim.user_namespace import open_user_namespace
from sagong_runtime_linux.child import ORDER_SIZE, Children, run_child
from sagong_runtime_linux.operations import Stage

__all__ = ["LinuxEngine", "Start"]

# Mounting a dead network volume may hang; the caller has long given up by then.
_START_SECONDS = 60.0
_LAST_WORDS_SECONDS = 1.0
_MESSAGE_SIZE = 64 << 10


class LinuxEngine:
    """Starts processes by plans of operations; cgroups suffice for all else."""

    maker = "sagong_runtime_linux.starting:LinuxEngine"
    exec_plan = "sagong_runtime_linux.planning:exec_request"
    jobs: Mapping[str, Job] = {}

    def __init__(self) -> None:
        self._nursery: Nursery | None = None

    def expect_starts(self, loop: Loop, directory: RunDirectory, layout: CgroupLayout) -> None:
        """A nurse is forked now: neither it nor this monitor copies what the other one touches."""
        self._nursery_of(loop, directory, layout).ready()

    def attempt(self, order: Order) -> Start:
        """One attempt."""
        return Start(order, self._nursery_of(order.loop, order.directory, order.layout))

    def _nursery_of(self, loop: Loop, directory: RunDirectory, layout: CgroupLayout) -> Nursery:
        if self._nursery is None:
            self._nursery = Nursery(loop, Children(directory.root, layout))
        return self._nursery

    def began(self, request: dict[str, Any]) -> bool:
        """Who is not let go hears of that, and ends."""
        return True

    def clean(self, container: Container) -> None:
        """A cgroup is all that is left, and what an overlay was marked by."""
        workdir = container.request.get("volatile")
        if workdir:
            overlay.discard_mark(workdir)


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
        # What the program waits for: its terminal, its final pid, its time.
        self._connected = not order.request["session"]["tty"]
        self._known = False
        self._wanted = not order.ahead
        self._written = False
        self._executed = False

    def begin(self) -> None:
        """Have a nurse make the child, or fork it.

        Into a new pid namespace of a user namespace the child forks once more, and tells the final
        pid itself; so does a nurse's first process.
        """
        stage = self._stage()
        try:
            pids = self._enter(stage)
            forked = pids == "" or (pids == "new" and self._order.request.get("init", True))
            if forked:
                self._fork(stage, pids)
        except BaseException:
            stage.close()
            raise
        if forked:
            stage.close()
            return
        self._timer = self._order.loop.later(_START_SECONDS, self._too_slow)
        if isinstance(pids, int):
            self._nursery.take_into(pids, functools.partial(self._born, stage, pids))
        else:
            self._nursery.take(functools.partial(self._nursed, stage))

    def _stage(self) -> Stage:
        order = self._order
        return Stage(order.directory.root, order.session.directory, order.layout)

    def _nursed(self, stage: Stage, nurse: Nurse | None) -> None:
        """A nurse gets its order; without one it is forked here."""
        with self._carefully(stage):
            if self._over:
                return
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                text = self._text(stage)
                rights = (theirs.fileno(), *stage.namespaces.values())
                ahead = self._order.ahead
                if nurse and len(text) <= ORDER_SIZE and nurse.order(text, rights, ahead=ahead):
                    self._follow(ours)
                    return
            ours.close()
            self._fork(stage, "new")

    def _born(self, stage: Stage, space: int, newborn: Newborn | None) -> None:
        """A child in a pid namespace that exists gets its order; without one it is forked here."""
        with self._carefully(stage):
            if self._over:
                if newborn is not None:
                    newborn.channel.close()
            elif newborn is None or not self._ordered(stage, newborn):
                self._fork(stage, space)

    @contextlib.contextmanager
    def _carefully(self, stage: Stage) -> Iterator[None]:
        """The start has failed if this does; the stage is left."""
        try:
            yield
        except (OSError, ValueError) as error:
            self._error = wrong(error)
            self._end()
        finally:
            stage.close()

    def _text(self, stage: Stage) -> bytes:
        """What a child is told to start."""
        request = self._order.request
        order = {
            "session": request["session"],
            "directory": stage.directory,
            "namespaces": list(stage.namespaces),
        }
        return f"{json.dumps(order)}\n{request['plan']}".encode()

    def _ordered(self, stage: Stage, newborn: Newborn) -> bool:
        """False when it has ended or the order is too long for it."""
        text = self._text(stage)
        try:
            if len(text) > ORDER_SIZE:
                raise OSError(errno.EMSGSIZE, "order too long")
            process.send_descriptors(newborn.channel, text, tuple(stage.namespaces.values()))
        except OSError:
            newborn.channel.close()
            return False
        self.pid, self._known = newborn.pid, True
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
        self._known = not request.get("forks")
        self._follow(ours)

    def _follow(self, channel: socket.socket) -> None:
        """Hear from the child; it may go when it is written down."""
        loop = self._order.loop
        channel.setblocking(False)
        self._channel = channel
        loop.add(channel.fileno(), READ, lambda _: self._hear())
        if self._timer is None:
            self._timer = loop.later(_START_SECONDS, self._too_slow)
        if self.pid:
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
        if self._channel is not None:
            # If it ended, the end of its channel tells the rest.
            with contextlib.suppress(OSError):
                self._channel.send(b"go")

    def _hear(self) -> None:
        while self._hear_one():
            continue

    def _hear_one(self) -> bool:
        """One message, if there is one."""
        if self._channel is None:
            return False
        try:
            data, descriptors = process.receive_descriptors(self._channel, _MESSAGE_SIZE, 2)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            # It ended without reading our "go": told once, ahead of what it said before.
            return True
        except OSError:
            data, descriptors = b"", ()
        if data:
            self._message(json.loads(data), descriptors)
        else:
            self._finish()
        return bool(data)

    def _message(self, message: dict[str, Any], descriptors: tuple[int, ...]) -> None:
        if "tty" in message and len(descriptors) == 2:
            self._order.session.use_terminal(*descriptors)
            self._connected = True
            self._go()
        elif "pid" in message and not self._known:
            # Once: who traces the child may speak for it from then on.
            self.pid, self._known = message["pid"], True
            self._order.forked(self.pid)
            self._go()
        elif "exec" in message:
            self._executed = True
        elif "error" in message:
            error = message["error"]
            self._error = StartError(error["code"], error["message"])

    def reaped(self, pid: int, status: int) -> None:
        """The child has ended, perhaps before we heard all it said: also that another one goes on."""
        self._hear()
        if self._channel is not None and pid == self.pid:
            self._channel.settimeout(_LAST_WORDS_SECONDS)
            self._hear()

    def _finish(self) -> None:
        channel, self._channel = self._channel, None
        if channel is None:
            return
        self._order.loop.drop(channel.fileno())
        channel.close()
        if self._error is None and not self.pid:
            # Its nurse has died before it was begun.
            stage = self._stage()
            with self._carefully(stage):
                self._fork(stage, self._enter(stage))
            return
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
        """End the child, which says at once who it is; it is reaped like any other."""
        if self._channel is not None and not self.pid:
            self._channel.settimeout(_LAST_WORDS_SECONDS)
            while not self.pid and self._hear_one():
                continue
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
