"""start and delete: what happens to a created container, and what is left to be said."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from typing import Any

from sagong.linux import process
from sagong.shim.failure import StartError
from sagong_runtime_linux.oci.containers import CREATED, STOPPED, Container

__all__ = ["delete", "start", "warn"]

_KILL_SECONDS = 10.0


def warn(warnings: list[str]) -> None:
    """Tell what went wrong without preventing anything."""
    for text in warnings:
        sys.stderr.write(f"warning: {text}\n")


def start(container: Container) -> list[str]:
    """Let the created process execute its program; warnings of poststart hooks."""
    status = container.status()
    if status != CREATED:
        text = f"cannot start container {container.id}: it is {status}, not created"
        raise StartError("failed_precondition", text)
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
        os.chdir(container.directory)
        channel.connect(os.path.basename(container.waiting))
        os.fchdir(here)
        data = channel.recv(64 << 10)
    os.unlink(container.waiting)
    if data:
        error = json.loads(data)["error"]
        raise StartError(error["code"], error["message"])
    return _lenient_hooks(container, "poststart", container.state("running"))


def _lenient_hooks(container: Container, kind: str, state: dict[str, Any]) -> list[str]:
    """A hook of this kind that fails is a warning, and the others still run."""
    warnings: list[str] = []
    hooks = (container.config().get("hooks") or {}).get(kind)
    if not hooks:
        return warnings
    from sagong_runtime_linux.oci.hooks import run_hooks

    for hook in hooks:
        try:
            run_hooks([hook], kind, state)
        except StartError as error:
            warnings.append(error.message)
    return warnings


def delete(container: Container, *, force: bool) -> list[str]:
    """Forget it; one that runs only by force. Warnings of poststop hooks."""
    status = container.status()
    if status not in (STOPPED, CREATED) and not force:
        raise StartError(
            "failed_precondition",
            f"cannot delete container {container.id}: it is {status}; stop it or use --force",
        )
    group = container.cgroup()
    pidfd = process.open_identified(container.identity)
    if pidfd is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(container.pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        group.kill(seconds=_KILL_SECONDS)
    if pidfd is not None:
        process.wait_ended(pidfd, _KILL_SECONDS)
        os.close(pidfd)
    with contextlib.suppress(OSError):
        group.remove(seconds=_KILL_SECONDS)
    warnings: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        warnings = _lenient_hooks(container, "poststop", container.state(STOPPED))
    container.remove()
    return warnings
