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
from typing import Any, NoReturn

from sagong.linux import process, syscalls
from sagong.linux.cgroup import CgroupLayout
from sagong.shim import init
from sagong.shim.failure import StartError
from sagong_runtime_linux.operations import Stage, apply_all
from sagong_runtime_linux.plan_registry import REGISTRY
from sagong_runtime_linux.program import (
    DEFAULT_PATH,
    environment_of,
    find_program,
    replace_process,
)

__all__ = ["await_order", "run_child"]

_FAILED = 127
_ORDER_SIZE = 1 << 20
_NAMESPACES = 8


def await_order(root: str, layout: CgroupLayout, monitor: socket.socket) -> NoReturn:
    """In a child that was made ahead: never returns. Without an order it ends with its monitor."""
    try:
        _leave_monitor()
        text, descriptors = process.receive_descriptors(monitor, _ORDER_SIZE, _NAMESPACES)
        if not text:
            os._exit(0)
        order, _, plan = text.decode().partition("\n")
        found = json.loads(order)
        stage = Stage(root, found["directory"], layout)
        stage.namespaces = dict(zip(found["namespaces"], descriptors, strict=True))
    except BaseException as error:  # As below.
        _tell(monitor, "internal", f"{type(error).__name__}: {error}")
        os._exit(_FAILED)
    _become(stage, plan, found["session"], monitor, tells=found["tells"])


def run_child(stage: Stage, plan: str, session: dict[str, Any], monitor: socket.socket) -> NoReturn:
    """Never returns: either the program runs, or the monitor is told why not."""
    try:
        _leave_monitor()
    except BaseException as error:  # As below.
        _tell(monitor, "internal", f"{type(error).__name__}: {error}")
        os._exit(_FAILED)
    _become(stage, plan, session, monitor)


def _leave_monitor() -> None:
    """What can be done before it is known what will run."""
    gc.disable()
    _reset_signals()
    os.setsid()
    process.set_dumpable(dumpable=False)


def _become(
    stage: Stage, plan: str, session: dict[str, Any], monitor: socket.socket, *, tells: bool = False
) -> NoReturn:
    """`tells`: the monitor waits until all is done but the program, to look at it."""
    stage.monitor = monitor
    try:
        decoded = json.loads(plan)
        program = decoded["program"]
        streams = () if session["tty"] else _open_streams(stage.directory, stdin=session["stdin"])
        apply_all(REGISTRY.decode(decoded["operations"]), stage)
        _connect(stage, streams, monitor)
        if program["init"]:
            init.fork_program(monitor)
        environment = environment_of(program["env"])
        path = find_program(program["args"][0], environment.get("PATH", DEFAULT_PATH))
        if tells:
            monitor.send(b'{"ready":1}')
        _wait_go(monitor)
        syscalls.close_range(3, flags=syscalls.CLOSE_RANGE_CLOEXEC)
        monitor.send(b'{"exec":1}')
        replace_process(path, program["args"], environment)
    except StartError as error:
        _tell(monitor, error.code, error.message)
    except BaseException as error:  # This process must end here whatever happened.
        _tell(monitor, "internal", f"{type(error).__name__}: {error}")
    os._exit(_FAILED)


def _tell(monitor: socket.socket, code: str, message: str) -> None:
    with contextlib.suppress(OSError):
        monitor.send(json.dumps({"error": {"code": code, "message": message[:60000]}}).encode())


def _reset_signals() -> None:
    """Handlers end with exec, but what Python ignores would stay ignored in the program."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)


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


def _wait_go(monitor: socket.socket) -> None:
    """The monitor has written down who we are; if it died before, nobody would ever know us."""
    if monitor.recv(16) != b"go":
        os._exit(_FAILED)
