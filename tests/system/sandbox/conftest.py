"""A cage for hostile code: runs a function in a sandboxed child and hands its answer back."""

from __future__ import annotations

import errno
import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sagong.linux import process, syscalls
from sagong.linux.cgroup import Cgroup
from sagong.sandbox import Effective, Machine, Rights, effective, plan, probe

UID = 58901


def tried(action: Callable[[], Any]) -> str:
    """ "done", or the name of the errno that refused it."""
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "done"


@dataclass
class Outcome:
    """What a caged function returned, how its process ended, and what it had while it ran."""

    answer: Any
    status: int
    effective: Effective | None
    notes: tuple[str, ...] = ()

    @property
    def killed_by(self) -> int:
        """The signal that ended it, 0 for none."""
        return -self.status if self.status < 0 else 0


@dataclass
class Cage:
    """Where the caged live: directories, and a cgroup for each run."""

    top: Path
    machine: Machine
    runs: list[Cgroup] = field(default_factory=list)

    def rights(self, **changes: Any) -> Rights:
        """Rights of a plugin that was granted nothing but `changes`."""
        number = len(self.runs)
        path = f"sagong-cage-{os.getpid()}/{number}"
        self.runs.append(Cgroup(self.machine.cgroups, path, ("memory", "pids", "cpu", "unified")))
        own = {"data": str(self.top / "lib/caged"), "run": str(self.top / "run/caged")}
        return Rights(**{"name": "caged", "uid": UID, "gid": UID, "cgroup": path, **own, **changes})

    def run(
        self,
        action: Callable[[], Any],
        *,
        look: bool = False,
        seconds: float = 60.0,
        **changes: Any,
    ) -> Outcome:
        """Fork, apply the sandbox, call `action`; its answer comes back as JSON."""
        rights = self.rights(**changes)
        ready, answer, go = os.pipe(), os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            _child(rights, self.machine, action, (ready[1], answer[1], go[0]))
        for end in (ready[1], answer[1], go[0]):
            os.close(end)
        outcome = Outcome(None, 0, None)
        try:
            notes = os.read(ready[0], 65536)
            if notes:
                outcome.notes = tuple(json.loads(notes))
                outcome.effective = effective(pid) if look else None
                os.write(go[1], b"g")
            text = b"".join(iter(lambda: os.read(answer[0], 65536), b""))
            outcome.answer = json.loads(text) if text else None
        finally:
            outcome.status = _reap(pid, seconds)
            for end in (ready[0], answer[0], go[1]):
                os.close(end)
        return outcome


def _reap(pid: int, seconds: float) -> int:
    """The exit code, negative for a signal; a process that does not end is killed."""
    pidfd = syscalls.pidfd_open(pid)
    if not process.wait_ended(pidfd, seconds):
        syscalls.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _child(
    rights: Rights, machine: Machine, action: Callable[[], Any], ends: tuple[int, int, int]
) -> None:
    ready, answer, go = ends
    code = 1
    try:
        notes = plan(rights, machine, descriptors=(0, 1, 2, *ends)).apply()
        os.write(ready, json.dumps(notes).encode())
        os.read(go, 1)
        os.write(answer, json.dumps(action()).encode())
        code = 0
    except BaseException as error:
        os.write(answer, json.dumps(f"{type(error).__name__}: {error}").encode())
    finally:
        os._exit(code)


@pytest.fixture
def cage() -> Iterator[Cage]:
    """A cage with clean directories; everything is removed after."""
    with tempfile.TemporaryDirectory(prefix="sagong-cage-") as name:
        top = Path(name)
        top.chmod(0o755)
        made = Cage(top, probe(stage=str(top / "stage")))
        try:
            yield made
        finally:
            for group in made.runs:
                group.kill()
                group.remove()
            if made.runs:
                parent = Cgroup(made.machine.cgroups, f"sagong-cage-{os.getpid()}")
                Cgroup(parent.layout, parent.path, made.runs[0].controllers).remove()


@pytest.fixture
def attempt() -> Callable[[Callable[[], Any]], str]:
    """The function that names what refused an action."""
    return tried
