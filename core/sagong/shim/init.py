"""A minimal first process: reaps orphans, hands signals on, ends with its program's code."""

from __future__ import annotations

import contextlib
import os
import signal
import socket

from sagong.linux import process, syscalls
from sagong.shim import lean

__all__ = ["fork_program", "serve_group"]

# Stopping init itself would stop nothing but init; the rest can't be caught.
_NOT_FORWARDED = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU}
_NOT_FORWARDED |= {signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT}


def fork_program(monitor: socket.socket) -> None:
    """Return in the child, which becomes the program; the caller stays as its init for ever."""
    handled = set(signal.valid_signals()) - _NOT_FORWARDED | {signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, handled)
    child = lean.fork()
    if child == 0:
        os.setpgid(0, 0)
        _take_terminal()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return
    monitor.close()
    with contextlib.suppress(OSError):  # A container may have no /proc.
        process.set_title("sagong-init")
    # No descriptor of the host, and none that would keep the program's output open.
    syscalls.close_range(0)
    os._exit(_serve(child, handled))


def _take_terminal() -> None:
    """The program's group becomes the terminal's, so that ^C reaches it once."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    with contextlib.suppress(OSError):
        if os.isatty(0):
            os.tcsetpgrp(0, os.getpgrp())


def _serve(child: int, handled: set[signal.Signals]) -> int:
    while True:
        number = signal.sigwaitinfo(handled).si_signo
        if number != signal.SIGCHLD:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)
            continue
        code = _reap(child)
        if code is not None:
            return code


def _reap(child: int) -> int | None:
    """Collect all that ended; the exit code when the program is among them."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == child:
                found = os.waitstatus_to_exitcode(status)
    return None if found is None else found if found >= 0 else 128 - found


def serve_group(root: str) -> None:
    """The first process of a pid namespace that a group shares: reaps, holds nothing, never ends."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    os.setsid()
    process.set_title("sagong-init")
    os.chroot(root)
    os.chdir("/")
    syscalls.close_range(0)
    syscalls.capset(0, 0, 0)
    process.set_dumpable(dumpable=False)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        signal.sigwaitinfo({signal.SIGCHLD})
        _reap(-1)
