"""start and delete: what happens to a created container, and what is left to be said."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from typing import Any

from sagong.linux import process
from sagong.shim.failure import StartError, reason
from sagong_runtime_linux.oci.containers import CREATED, STOPPED, Container

__all__ = ["delete", "end_scope", "poststop", "start", "undo_mounts"]

_KILL_SECONDS = 10.0


def start(container: Container) -> None:
    """Let the created process execute its program, then run poststart hooks.

    When one of those fails, or one of startContainer, the container is stopped: what is left of its
    life is up to `delete`, which callers do then.
    """
    status = container.status()
    if status != CREATED:
        text = f"cannot start container {container.id}: it is {status}, not created"
        raise StartError("failed_precondition", text)
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
        os.chdir(container.directory)
        channel.connect(os.path.basename(container.waiting))
        os.fchdir(here)
        data = _answer(channel)
    os.unlink(container.waiting)
    if data:
        _wait(container)
        error = json.loads(data)["error"]
        raise StartError(error["code"], error["message"])
    hooks = (container.config().get("hooks") or {}).get("poststart")
    if not hooks:
        return
    from sagong_runtime_linux.oci.hooks import run_hooks

    try:
        run_hooks(hooks, "poststart", container.state("running"))
    except StartError:
        container.cgroup().kill(seconds=_KILL_SECONDS)
        raise


def _answer(channel: socket.socket) -> bytes:
    """Nothing when the program has been executed, else why not."""
    try:
        return channel.recv(64 << 10)
    except ConnectionResetError:
        text = "the process ended before its program could be executed (killed?)"
        return json.dumps({"error": {"code": "internal", "message": text}}).encode()


def _wait(container: Container) -> None:
    """Until its first process has ended, which has said why it will: `delete` takes none that runs."""
    pidfd = process.open_identified(container.identity)
    if pidfd is not None:
        process.wait_ended(pidfd, _KILL_SECONDS)
        os.close(pidfd)


def poststop(container: Container, config: dict[str, Any]) -> list[str]:
    """Run hooks of what is gone; one that fails is a warning, and the others still run."""
    warnings: list[str] = []
    hooks = (config.get("hooks") or {}).get("poststop")
    if not hooks:
        return warnings
    from sagong_runtime_linux.oci.hooks import run_hooks

    for hook in hooks:
        try:
            run_hooks([hook], "poststop", container.state(STOPPED))
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
    warnings: list[str] = []
    try:
        end_scope(container)
    except StartError as error:
        warnings.append(error.message)
    with contextlib.suppress(OSError):
        group.remove(seconds=_KILL_SECONDS)
    try:
        undo_mounts(container)
    except StartError as error:
        warnings.append(error.message)
    except OSError as error:
        warnings.append(reason(error))
    with contextlib.suppress(FileNotFoundError):
        warnings += poststop(container, container.config())
    container.remove()
    return warnings


def end_scope(container: Container) -> None:
    """Also one that failed, which systemd would keep."""
    unit = container.facts.get("unit")
    if unit:
        from sagong_runtime_linux.oci.systemd import connected

        with connected() as manager:
            manager.stop(unit)


def undo_mounts(container: Container) -> None:
    """Those of a container without a mount namespace of its own, which don't end with it."""
    left = container.facts.get("mounts")
    if left:
        from sagong_runtime_linux.oci.foreign_mounts import unmount_to

        unmount_to(container.facts["rootfs"], *left)
