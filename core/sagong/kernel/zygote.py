"""The zygote: has the common modules imported, and forks plugins into their sandboxes.

Single-threaded, no ZeroMQ context, no loop: a fork of it is clean. It reads spawn requests from
its socket to the kernel (SOCK_SEQPACKET), one a message, with descriptors attached: first standard
error, then the listeners. It answers `(number, pid)` with a pidfd attached, and tells each exit as
`(0, pid, status)`. It ends when the kernel's end of the socket closes.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import os
import pickle
import select
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from typing import NamedTuple

from sagong.errors import SagongError
from sagong.linux import process
from sagong.process import Launch, configure_logging, run
from sagong.sandbox import Plan

__all__ = ["MESSAGE_LIMIT", "SpawnRequest", "Zygote", "fork_zygote", "main"]

_LOG = logging.getLogger("sagong.kernel")
MESSAGE_LIMIT = 160 << 10
# What every plugin needs anyway: imported once here, its pages are shared by all.
_COMMON = (
    "asyncio.unix_events",
    "concurrent.futures.thread",
    "encodings.idna",
    "sagong.hooks",
    "sagong.contracts.kernel",
    "sagong.linux.landlock",
    "sagong.linux.seccomp",
    "sqlite3",
    "uvloop",
)
_DESCRIPTORS = 64


class SpawnRequest(NamedTuple):
    """A process to be: `plan` is its sandbox, applied after the fork.

    With `command` the program is executed instead of the plugin's class being hosted.
    """

    number: int
    launch: bytes
    title: str
    plan: Plan | None
    command: tuple[str, ...] = ()


class Zygote(NamedTuple):
    """A forked zygote, and the socket on which it is asked."""

    pid: int
    control: socket.socket


def fork_zygote(modules: Sequence[str]) -> Zygote:
    """Prepare this process, which has no loop and no threads yet, and fork a zygote that shares it."""
    _prepare(modules)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        try:
            _close_all_but(theirs.fileno())
            _serve(theirs)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    theirs.close()
    return Zygote(pid, ours)


def main() -> None:
    """Serve fork requests on the inherited socket (argument 1), preload the modules named after."""
    _prepare(sys.argv[2:])
    _serve(socket.socket(fileno=int(sys.argv[1])))


def _prepare(modules: Sequence[str]) -> None:
    """Import modules, and what is wanted of them (`module:attribute`)."""
    for name in (*_COMMON, *modules):
        module, _, attribute = name.partition(":")
        try:
            getattr(importlib.import_module(module), attribute or "__name__")
        except (ImportError, AttributeError) as error:
            # Whoever needs it says so again when it starts; the others do without.
            _LOG.warning("preload %s: %s", name, error)
    gc.collect()
    gc.freeze()


def _close_all_but(kept: int) -> None:
    """What the kernel was given, its keeper's socket and listeners, is not for plugins."""
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))


def _serve(control: socket.socket) -> None:
    process.set_title("sagong-zygote")
    wake, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)

    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wake, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == wake:
                os.read(wake, 4096)
                _reap(control)
                continue
            try:
                received = process.receive_descriptors(control, MESSAGE_LIMIT, _DESCRIPTORS)
            except ConnectionResetError:
                return  # the kernel is gone, and has not read all that was told to it
            if not received.data:
                return
            request = pickle.loads(received.data)
            _spawn(control, request, received.descriptors, (wake, wake_write))


def _reap(control: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        try:
            control.send(pickle.dumps((0, pid, os.waitstatus_to_exitcode(status))))
        except OSError:
            return  # the kernel is gone; the loop ends at the end of its socket


def _spawn(
    control: socket.socket,
    request: SpawnRequest,
    descriptors: tuple[int, ...],
    private: tuple[int, int],
) -> None:
    try:
        pid = os.fork()
        if pid == 0:
            _become(control, request, descriptors, private)
        _tell(control, request.number, pid)
    except OSError as error:
        # If the kernel is gone, the loop ends at the end of its socket.
        with contextlib.suppress(OSError):
            control.send(pickle.dumps((request.number, -1, str(error))))
    finally:
        for fd in descriptors:
            os.close(fd)


def _tell(control: socket.socket, number: int, pid: int) -> None:
    """Of a new process; one that nobody hears of would belong to nobody, and is ended."""
    try:
        pidfd = os.pidfd_open(pid)
        try:
            process.send_descriptors(control, pickle.dumps((number, pid)), (pidfd,))
        finally:
            os.close(pidfd)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        raise


def _become(
    control: socket.socket,
    request: SpawnRequest,
    descriptors: tuple[int, ...],
    private: tuple[int, int],
) -> None:
    """In the child: nothing returns from here, whatever fails."""
    code = 70
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        control.close()
        for fd in private:
            os.close(fd)
        _take_streams(descriptors[0])
        process.set_title(request.title)
        if request.plan is not None:
            request.plan.apply()
        code = _live(request, descriptors[1:])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except SagongError as error:
        print(f"{request.title} can't begin: {error}", file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _take_streams(error: int) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(error, 1)
    os.dup2(error, 2)
    os.close(null)
    os.close(error)
    os.setsid()


def _live(request: SpawnRequest, listeners: tuple[int, ...]) -> int:
    import msgspec

    launch = msgspec.json.decode(request.launch, type=Launch)
    names = list(launch.listeners)
    launch = msgspec.structs.replace(launch, listeners=dict(zip(names, listeners)))
    if request.command:
        for fd in listeners:
            os.set_inheritable(fd, True)
        environment = {**os.environ, "SAGONG_LAUNCH": msgspec.json.encode(launch).decode()}
        os.execvpe(request.command[0], request.command, environment)
    configure_logging()
    return run(launch)


if __name__ == "__main__":
    main()
