"""What runs between fork and exec of a container's process: apply the plan, become the program."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import signal
import socket
import termios
from collections.abc import Iterator
from typing import Any, NoReturn

from sagong.linux import process, syscalls
from sagong.linux.cgroup import CgroupLayout
from sagong.shim import init
from sagong.shim.failure import NEVER_BEGAN, StartError, wrong
from sagong.shim.vforking import Program
from sagong_runtime_linux.operations import Stage, apply_all, apply_last
from sagong_runtime_linux.plan_registry import REGISTRY
from sagong_runtime_linux.program import (
    DEFAULT_PATH,
    environment_of,
    find_program,
    refusal,
    replace_process,
)

__all__ = ["ORDER_SIZE", "Children", "run_child"]

# What goes in one message of a socket with the kernel's usual buffer. A larger buffer here would be
# mapped anew for each order.
ORDER_SIZE = 96 << 10
_DESCRIPTORS = 9


class Children:
    """What a nurse's children do (`sagong.shim.nursery.Upbringing`)."""

    def __init__(self, root: str, layout: CgroupLayout) -> None:
        self._root = root
        self._layout = layout
        self._monitor = -1
        self._path = ""

    def settle(self) -> None:
        """Children that live in this memory share this."""
        _leave_handlers()

    def begin(self, nurse: socket.socket, pid: int) -> Program | None:
        """Never raises. The channel stays open for `refused`."""
        try:
            os.setsid()
            text, descriptors = process.receive_descriptors(nurse, 1 + ORDER_SIZE, _DESCRIPTORS)
            self._monitor, *namespaces = descriptors
        except BaseException:  # The end of its channel tells the rest.
            return None
        monitor = self._channel()
        try:
            return self._prepare(pid, text[1:], tuple(namespaces), monitor)
        finally:
            monitor.detach()

    def _prepare(
        self, pid: int, text: bytes, namespaces: tuple[int, ...], monitor: socket.socket
    ) -> Program | None:
        with _told(monitor):
            monitor.send(b'{"pid":%d}' % pid)
            program = _ready(*self._understood(text, namespaces), monitor)
            self._path = program.path if program is not None else ""
            return program
        return None

    def refused(self, error: OSError) -> None:
        """By the kernel."""
        monitor = self._channel()
        with _told(monitor):
            raise refusal(self._path, error)
        monitor.detach()

    def _channel(self) -> socket.socket:
        return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=self._monitor)

    def grow(self, channel: socket.socket) -> NoReturn:
        """Without an order it ends with its monitor."""
        with _told(channel):
            os.setsid()
            text, descriptors = process.receive_descriptors(channel, ORDER_SIZE, _DESCRIPTORS)
            if not text:
                os._exit(0)
            _become(*self._understood(text, descriptors), channel)
        os._exit(NEVER_BEGAN)

    def _understood(
        self, text: bytes, namespaces: tuple[int, ...]
    ) -> tuple[Stage, str, dict[str, Any]]:
        order, _, plan = text.decode().partition("\n")
        found = json.loads(order)
        stage = Stage(self._root, found["directory"], self._layout)
        stage.namespaces = dict(zip(found["namespaces"], namespaces, strict=True))
        return stage, plan, found["session"]


def run_child(stage: Stage, plan: str, session: dict[str, Any], monitor: socket.socket) -> NoReturn:
    """Never returns: either the program runs, or the monitor is told why not."""
    with _told(monitor):
        gc.disable()
        _leave_handlers()
        os.setsid()
        _become(stage, plan, session, monitor)
    os._exit(NEVER_BEGAN)


def _become(stage: Stage, plan: str, session: dict[str, Any], monitor: socket.socket) -> None:
    program = _ready(stage, plan, session, monitor)
    if program is not None:
        replace_process(*program)


def _ready(
    stage: Stage, plan: str, session: dict[str, Any], monitor: socket.socket
) -> Program | None:
    """All but the execution of the program, and the monitor's leave; None where that does not come."""
    stage.monitor = monitor
    decoded = json.loads(plan)
    program = decoded["program"]
    streams = () if session["tty"] else _open_streams(stage.directory, stdin=session["stdin"])
    apply_all(REGISTRY.decode(decoded["operations"]), stage)
    _connect(stage, streams, monitor)
    if program["init"]:
        init.fork_program(monitor)
    environment = environment_of(program["env"])
    path = find_program(program["args"][0], environment.get("PATH", DEFAULT_PATH))
    # The monitor has written down who we are; if it died before, nobody would ever know us.
    if monitor.recv(16) != b"go":
        return None
    syscalls.close_range(3, flags=syscalls.CLOSE_RANGE_CLOEXEC)
    monitor.send(b'{"exec":1}')
    apply_last(stage)
    return Program(path, program["args"], environment)


@contextlib.contextmanager
def _told(monitor: socket.socket) -> Iterator[None]:
    """Whatever happens, this process goes no further than this, and the monitor hears why."""
    try:
        yield
    except StartError as error:
        _tell(monitor, error.code, error.message)
    except BaseException as error:
        found = wrong(error)
        _tell(monitor, found.code, found.message)


def _tell(monitor: socket.socket, code: str, message: str) -> None:
    with contextlib.suppress(OSError):
        monitor.send(json.dumps({"error": {"code": code, "message": message[:60000]}}).encode())


def _leave_handlers() -> None:
    """Handlers end with exec, but what Python ignores would stay ignored in the program."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    process.set_dumpable(dumpable=False)


def _open_streams(directory: str, *, stdin: bool) -> tuple[int, ...]:
    """FIFOs that the program itself holds open both ways: no dead monitor can break them."""
    source = os.open(
        f"{directory}/stdin" if stdin else "/dev/null", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC
    )
    outputs = [
        os.open(f"{directory}/{name}", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        for name in ("stdout", "stderr")
    ]
    return (source, *outputs)


def _connect(stage: Stage, streams: tuple[int, ...], monitor: socket.socket) -> None:
    if stage.terminal is not None:
        process.send_descriptors(monitor, b'{"tty":1}', stage.terminal)
        slave = stage.terminal[1]
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        streams = (slave, slave, slave)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
