"""Hooks of the specification: programs that get the container's state on their standard input."""

from __future__ import annotations

import json
import os
import select
import signal
from typing import Any

from sagong.shim import lean
from sagong.shim.failure import StartError

__all__ = ["run_hooks"]


def run_hooks(hooks: list[dict[str, Any]], kind: str, state: dict[str, Any]) -> None:
    """One after the other; StartError for the first that fails or takes too long."""
    for hook in hooks:
        _run(hook, kind, json.dumps(state).encode())


def _run(hook: dict[str, Any], kind: str, given: bytes) -> None:
    path = hook["path"]
    source = os.memfd_create("state", os.MFD_CLOEXEC)
    said = os.memfd_create("said", os.MFD_CLOEXEC)
    os.write(source, given)
    os.lseek(source, 0, os.SEEK_SET)
    pid = lean.fork()
    if pid == 0:
        _become(hook, source, said)
    try:
        status = _wait(pid, hook.get("timeout") or 0)
        if status is None:
            raise StartError("failed_precondition", f"{kind} hook {path} took too long: killed")
        code = os.waitstatus_to_exitcode(status)
        if code:
            text = os.pread(said, 4096, 0).decode("utf-8", "replace").strip()
            how = f"exit {code}" if code > 0 else f"killed by signal {-code}"
            raise StartError("failed_precondition", f"{kind} hook {path}: {how}: {text}")
    finally:
        os.close(source)
        os.close(said)


def _become(hook: dict[str, Any], source: int, said: int) -> None:
    try:
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(source, 0)
        os.dup2(said, 1)
        os.dup2(said, 2)
        environment = dict(entry.partition("=")[::2] for entry in hook.get("env") or ())
        os.execve(hook["path"], hook.get("args") or [hook["path"]], environment)
    except OSError as error:
        os.write(said, str(error).encode())
    finally:
        os._exit(127)


def _wait(pid: int, seconds: float) -> int | None:
    """The wait status; None when it had to be killed."""
    if seconds <= 0:
        return os.waitpid(pid, 0)[1]
    pidfd = os.pidfd_open(pid)
    try:
        ended, _, _ = select.select([pidfd], [], [], seconds)
    finally:
        os.close(pidfd)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    return status if ended else None
