"""The workshop's process: a lean fork server whose children do the work on files.

`python -m sagong_image_overlay.foreman` is started by `workshop` when there is work, with a Unix
socket as standard input: one message is one job (JSON) with its descriptors; the last descriptor is
the job's own stream for JSON lines back. It ends when its socket ends.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from sagong.errors import Internal, InvalidArgument, ResourceExhausted, SagongError
from sagong.linux import process
from sagong_image_overlay import compression, confine, jobs

__all__ = ["main"]

_MESSAGE = 1 << 18


class Foreman:
    """Forks a child for each job and reaps it; kills a job when told so."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._poller = select.poll()
        self._poller.register(control, select.POLLIN)
        self._children: dict[int, tuple[int, int]] = {}

    def run(self) -> None:
        """Serve until the other end is gone."""
        while True:
            for descriptor, _ in self._poller.poll():
                if descriptor != self._control.fileno():
                    self._reap(descriptor)
                elif not self._take():
                    return

    def _take(self) -> bool:
        data, descriptors = process.receive_descriptors(self._control, _MESSAGE)
        if not data:
            return False
        message = json.loads(data)
        if "kill" in message:
            self._kill(message["kill"])
        else:
            self._fork(message, list(descriptors))
        for descriptor in descriptors:
            os.close(descriptor)
        return True

    def _fork(self, job: dict[str, Any], descriptors: list[int]) -> None:
        child = os.fork()
        if child == 0:
            self._work(job, descriptors)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.setpgid(child, child)
        pidfd = os.pidfd_open(child)
        self._children[pidfd] = (child, job["number"])
        self._poller.register(pidfd, select.POLLIN)

    def _work(self, job: dict[str, Any], descriptors: list[int]) -> None:
        """In the child: do the job, tell the result, and never return."""
        try:
            os.setpgid(0, 0)
            process.set_death_signal(signal.SIGKILL)
            self._control.close()
            for pidfd in self._children:
                os.close(pidfd)
            *given, status = descriptors
            _report(status, _result(job, given, status))
        finally:
            os._exit(0)

    def _kill(self, number: int) -> None:
        for child, known in self._children.values():
            if known == number:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(child, signal.SIGKILL)

    def _reap(self, pidfd: int) -> None:
        child, _ = self._children.pop(pidfd)
        self._poller.unregister(pidfd)
        os.close(pidfd)
        # The child is not reaped yet, so its group can't be anybody else's.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _report(status: int, message: dict[str, Any]) -> None:
    data = memoryview(json.dumps(message).encode() + b"\n")
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while data:
            data = data[os.write(status, data) :]


def _result(job: dict[str, Any], descriptors: list[int], status: int) -> dict[str, Any]:
    def report(message: dict[str, Any]) -> None:
        _report(status, message)

    try:
        work: Callable[..., dict[str, Any]] = jobs.JOBS[job["job"]]
        return {"done": work(job, descriptors, report)}
    except SagongError as error:
        return {"error": error.code, "message": error.message}
    except OSError as error:
        return _failed(job["job"], error)
    except MemoryError:
        message = f"{job['job']}: what the archive asks for needs more memory than there may be"
        return {"error": ResourceExhausted.code, "message": message}
    except RecursionError:
        message = f"{job['job']}: directories are nested too deeply"
        return {"error": InvalidArgument.code, "message": message}
    except Exception as error:
        return {"error": Internal.code, "message": f"{job['job']}: {type(error).__name__}: {error}"}


def _failed(name: str, error: OSError) -> dict[str, Any]:
    full = error.errno in (28, 122)
    where = f" {error.filename!r}" if error.filename else ""
    code = ResourceExhausted.code if full else Internal.code
    return {"error": code, "message": f"{name}: {error.strerror}{where}"}


def main() -> None:
    """Serve on standard input."""
    process.set_title("sagong image workshop")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A path has at most 2048 parts, and walking down takes a few frames for each.
    sys.setrecursionlimit(10_000)
    compression.preload()
    confine.preload()
    gc.collect()
    gc.freeze()
    control = socket.socket(fileno=os.dup(0))
    os.set_inheritable(control.fileno(), False)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    Foreman(control).run()


if __name__ == "__main__":
    main()
