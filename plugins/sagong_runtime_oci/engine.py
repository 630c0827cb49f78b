"""The engine of launcher and monitors: processes come to be by the runtime's binary.

A run is `create`, then the pid is written down, then `start`; an exec is one call. What the binary
leaves running is orphaned to the monitor, a subreaper, which so learns its exit code.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Any

from sagong.linux import process
from sagong.linux.cgroup import CgroupLayout
from sagong.shim import lean
from sagong.shim.container import Container
from sagong.shim.directory import RunDirectory
from sagong.shim.failure import StartError, failed
from sagong.shim.jobs import Job
from sagong.shim.loop import READ, Loop, Timer
from sagong.shim.starting import Order
from sagong.shim.user_namespace import open_user_namespace
from sagong_runtime_oci import bundle
from sagong_runtime_oci.binary import command, error_of, execute, reset_child
from sagong_runtime_oci.jobs import OCI_JOBS, delete, status

__all__ = ["OciEngine"]

_START_SECONDS = 60.0
_FAILED = 127


class OciEngine:
    """Starts processes by the binary that each request names."""

    maker = "sagong_runtime_oci.engine:OciEngine"
    exec_plan = "sagong_runtime_oci.planning:exec_request"
    jobs: Mapping[str, Job] = OCI_JOBS

    def expect_starts(self, loop: Loop, directory: RunDirectory, layout: CgroupLayout) -> None:
        """What starts a container is executed anew each time."""

    def attempt(self, order: Order) -> OciAttempt:
        """One attempt."""
        return OciAttempt(order)

    def began(self, request: dict[str, Any]) -> bool:
        """As the runtime says; of what it does not know another one is the maker."""
        with contextlib.suppress(StartError):
            return status(request) != "created"
        return True

    def clean(self, container: Container) -> None:
        """The runtime forgets it, and runs its last hooks."""
        if container.request.get("engine"):
            delete(container.request["engine"], container.id)


class Console:
    """Where the runtime hands over the terminal it made in the container."""

    def __init__(self, order: Order, path: str) -> None:
        self._order = order
        self._path = path
        self.received = False
        self._channel: socket.socket | None = None
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        os.chmod(path, 0o600)
        self._listener.listen(1)
        self._listener.setblocking(False)
        order.loop.add(self._listener.fileno(), READ, lambda _: self.receive())

    def receive(self) -> None:
        """Take the master if it is there; who has connected may send it later."""
        with contextlib.suppress(BlockingIOError):
            if self._channel is None:
                self._channel, _ = self._listener.accept()
                self._channel.setblocking(False)
                self._order.loop.add(self._channel.fileno(), READ, lambda _: self.receive())
            _, descriptors = process.receive_descriptors(self._channel, 4096, 1)
            self._leave()
            if descriptors and not self.received:
                self.received = True
                self._order.session.use_terminal(descriptors[0])

    def _leave(self) -> None:
        """The connection has brought all that it may bring."""
        channel, self._channel = self._channel, None
        if channel is not None:
            self._order.loop.drop(channel.fileno())
            channel.close()

    def close(self) -> None:
        """No terminal is expected any more."""
        self._leave()
        self._order.loop.drop(self._listener.fileno())
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)


class OciAttempt:
    """One attempt, helper by helper; what it tells is the order's."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._engine: dict[str, Any] = order.request["engine"]
        self._directory = order.session.directory
        self._helper = 0
        self._pid = 0
        self._ticks = 0
        self._over = False
        self._wanted = not order.ahead
        self._console: Console | None = None
        self._timer: Timer | None = None
        self._then: Callable[[], None] = self._created

    def begin(self) -> None:
        """Call `create`, or `exec` with a target."""
        order = self._order
        self._timer = order.loop.later(_START_SECONDS, self._too_slow)
        if order.request["session"]["tty"]:
            path = order.directory.monitor_socket(f"{self._directory}/console")
            self._console = Console(order, path)
        held: dict[str, int] = {}
        try:
            if not order.target:
                self._hold_namespaces(held)
            self._fork(lambda: self._become_first(held))
        except (OSError, StartError):
            self._close()
            raise
        finally:
            for descriptor in held.values():
                os.close(descriptor)

    def _hold_namespaces(self, held: dict[str, int]) -> None:
        request, group = self._order.request, self._order.group
        if request["user"]:
            held["user"] = open_user_namespace(**request["user"])
        kinds = [kind for kind in request["group_kinds"] if kind != "pid"]
        group.prepare(kinds, held)
        if "pid" in request["group_kinds"]:
            group.pid_namespace("group", held)

    # -- in the forked child -------------------------------------------------------------------

    def _become_first(self, held: dict[str, int]) -> None:
        request, directory = self._order.request, self._directory
        words = ["--pid-file", f"{directory}/pid"]
        if self._console is not None:
            words += ["--console-socket", self._console_path]
        if self._order.target:
            with open(f"{directory}/process.json", "w", encoding="utf-8") as file:
                file.write(request["plan"])
            words = ["exec", "--detach", "--process", f"{directory}/process.json", *words]
        else:
            bundle.lay_out(request, directory, self._order.directory.root, held)
            words = ["create", "--bundle", directory, *words]
        if self._console is None:
            self._connect()
        else:
            self._connect_null()
        execute(command(self._engine, *words, request["id"], log=self._log))

    def _become_start(self) -> None:
        self._connect_null()
        execute(command(self._engine, "start", self._order.request["id"], log=self._log))

    @property
    def _console_path(self) -> str:
        return self._order.directory.monitor_socket(f"{self._directory}/console")

    @property
    def _log(self) -> str:
        return f"{self._directory}/runtime.log"

    def _connect(self) -> None:
        """FIFOs that the program itself holds open both ways: no dead monitor can break them."""
        directory = self._directory
        stdin = self._order.request["session"]["stdin"]
        source = os.open(f"{directory}/stdin" if stdin else "/dev/null", os.O_RDONLY | os.O_NOCTTY)
        outputs = [
            os.open(f"{directory}/{name}", os.O_RDWR | os.O_NOCTTY) for name in ("stdout", "stderr")
        ]
        for number, descriptor in enumerate((source, *outputs)):
            os.dup2(descriptor, number)
            os.set_inheritable(descriptor, False)

    def _connect_null(self) -> None:
        null = os.open("/dev/null", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        for number in range(3):
            os.dup2(null, number)

    # -- in the monitor ------------------------------------------------------------------------

    def _fork(self, become: Callable[[], None]) -> None:
        pid = lean.fork()
        if pid == 0:
            try:
                gc.disable()
                reset_child()
                os.setsid()
                become()
            except StartError as error:
                self._leave(error.code, error.message)
            except OSError as error:
                found = failed(error, "preparing the bundle")
                self._leave(found.code, found.message)
            except BaseException as error:  # This process must end here whatever happened.
                self._leave("internal", f"{type(error).__name__}: {error}")
            os._exit(_FAILED)
        self._helper = pid
        self._order.forked(pid)

    def _leave(self, code: str, message: str) -> None:
        """In the child: the error, as the monitor will read it."""
        with open(f"{self._directory}/failure.json", "w", encoding="utf-8") as file:
            json.dump({"code": code, "message": message}, file)

    def reaped(self, pid: int, status: int) -> None:
        """A helper has ended; the container's own processes are the session's."""
        if pid != self._helper or self._over:
            return
        self._helper = 0
        if status:
            self._finish(self._failure(status))
        else:
            self._step(self._then)

    def _step(self, step: Callable[[], None]) -> None:
        try:
            step()
        except (OSError, ValueError) as error:
            self._finish(StartError("internal", f"{type(error).__name__}: {error}"))

    def _failure(self, status: int) -> StartError:
        try:
            with open(f"{self._directory}/failure.json", encoding="utf-8") as file:
                told = json.load(file)
            os.unlink(f"{self._directory}/failure.json")
            return StartError(told["code"], told["message"])
        except FileNotFoundError:
            pass
        text = ""
        with contextlib.suppress(OSError), open(self._log, encoding="utf-8") as file:
            text = file.read()
        return error_of(text, self._engine["binary"], status)

    def _created(self) -> None:
        """The process is there: it is written down, then its program may run."""
        if self._console is not None:
            self._console.receive()
            if not self._console.received:
                raise ValueError(f"{self._engine['binary']} gave no terminal")
        with open(f"{self._directory}/pid", encoding="ascii") as file:
            self._pid = int(file.read())
        with contextlib.suppress(OSError):
            self._ticks = lean.start_ticks(self._pid)
        if self._wanted:
            self._start()

    def proceed(self) -> None:
        """Its program is wanted now, or as soon as the process is there."""
        self._wanted = True
        if self._pid:
            self._step(self._start)

    def _start(self) -> None:
        self._order.started(self._pid, self._ticks)
        if self._order.target:
            self._finish(None)
            return
        self._then = lambda: self._finish(None)
        self._fork(self._become_start)

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._console is not None:
            self._console.close()

    def _finish(self, error: StartError | None) -> None:
        if self._over:
            return
        self._over = True
        self._close()
        if error is None:
            self._order.session.begin(self._pid, self._ticks)
        self._order.done(error)

    def _too_slow(self) -> None:
        text = f"not started in {_START_SECONDS:.0f} s (a mount that hangs?)"
        self.give_up(StartError("failed_precondition", text))

    def give_up(self, error: StartError) -> None:
        """End the helper, if one is at work; what it made is cleaned away after."""
        if self._helper:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._helper, signal.SIGKILL)
        self._finish(error)
