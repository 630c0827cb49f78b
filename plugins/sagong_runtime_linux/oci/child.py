"""What runs between the fork and the program: apply the plan, tell, wait for `start`, become it."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import signal
import socket
import termios
from collections.abc import Callable
from typing import Any, NoReturn

from sagong.linux import process, syscalls
from sagong.shim.failure import NEVER_BEGAN, StartError
from sagong_runtime_linux.oci.hooks import run_hooks
from sagong_runtime_linux.operations import Stage, apply_all, apply_last
from sagong_runtime_linux.program import (
    DEFAULT_PATH,
    environment_of,
    find_program,
    replace_process,
)

__all__ = ["become_created", "become_executed"]


def become_created(
    stage: Stage,
    plan: list[Any],
    config: dict[str, Any],
    state: dict[str, Any],
    listener: socket.socket,
    *,
    preserved: int,
) -> NoReturn:
    """The container's first process: set up, wait for `start`, run startContainer hooks, execute."""
    monitor = stage.monitor
    assert monitor is not None

    def rest() -> None:
        _keep_open(preserved, stage, monitor, listener)
        what = config.get("process")
        path, environment = _prepare(stage, plan, what)
        pid = _ready(monitor)
        monitor.close()
        channel, _ = listener.accept()
        listener.close()
        with _told(channel):
            if not what:
                raise StartError(
                    "failed_precondition", "process is not set: nothing can be started"
                )
            hooks = (config.get("hooks") or {}).get("startContainer") or []
            run_hooks(hooks, "startContainer", {**state, "status": "created", "pid": pid})
            apply_last(stage)
            replace_process(path, what["args"], environment)

    _guarded(monitor, rest)


def become_executed(
    stage: Stage, plan: list[Any], what: dict[str, Any], *, preserved: int
) -> NoReturn:
    """A further process: set up and execute."""
    monitor = stage.monitor
    assert monitor is not None

    def rest() -> None:
        _keep_open(preserved, stage, monitor)
        path, environment = _prepare(stage, plan, what)
        _ready(monitor)
        apply_last(stage)
        replace_process(path, what["args"], environment)

    _guarded(monitor, rest)


def _guarded(monitor: socket.socket, work: Callable[[], None]) -> NoReturn:
    """Never returns: what goes wrong is told to whoever listens."""
    try:
        gc.disable()
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        process.set_dumpable(dumpable=False)
        work()
    except StartError as error:
        _tell(monitor, error.code, error.message)
    except BaseException as error:  # This process must end here whatever happened.
        _tell(monitor, "internal", f"{type(error).__name__}: {error}")
    os._exit(NEVER_BEGAN)


def _tell(channel: socket.socket, code: str, message: str) -> None:
    with contextlib.suppress(OSError):
        channel.send(json.dumps({"error": {"code": code, "message": message[:60000]}}).encode())


@contextlib.contextmanager
def _told(channel: socket.socket) -> Any:
    """Errors go to `start`, which waits for the end of its connection: the exec closes it."""
    try:
        yield
    except StartError as error:
        _tell(channel, error.code, error.message)
        os._exit(NEVER_BEGAN)
    except BaseException as error:  # Nobody else would hear of it.
        _tell(channel, "internal", f"{type(error).__name__}: {error}")
        os._exit(NEVER_BEGAN)


def _prepare(
    stage: Stage, plan: list[Any], what: dict[str, Any] | None
) -> tuple[str, dict[str, str]]:
    """The plan, the terminal, and the program (if there is one) found as a shell would."""
    apply_all(plan, stage)
    assert stage.monitor is not None
    if stage.terminal is not None:
        process.send_descriptors(stage.monitor, b'{"tty":1}', stage.terminal)
        slave = stage.terminal[1]
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        for number in range(3):
            os.dup2(slave, number)
    if not what:
        return "", {}
    environment = environment_of(list(what.get("env") or ()))
    return find_program(what["args"][0], environment.get("PATH", DEFAULT_PATH)), environment


def _ready(monitor: socket.socket) -> int:
    """All is set up: the runtime writes down who we are, and tells us, too."""
    monitor.send(b'{"ready":1}')
    word, _, pid = monitor.recv(64).partition(b" ")
    if word != b"go":
        os._exit(NEVER_BEGAN)
    return int(pid)


def _keep_open(preserved: int, stage: Stage, *channels: socket.socket) -> None:
    """Standard streams, what --preserve-fds names, and until the execution what the plan needs.

    What else the caller left open is closed at once: an image could name it by /proc/self/fd. And
    before the filter, which may forbid the call.
    """
    first = 3 + preserved
    syscalls.close_range(first, flags=syscalls.CLOSE_RANGE_CLOEXEC)
    ours = {channel.fileno() for channel in channels} | set(stage.namespaces.values())
    for kept in sorted(number for number in ours if number >= first):
        if kept > first:
            syscalls.close_range(first, kept - 1)
        first = kept + 1
    syscalls.close_range(first)
