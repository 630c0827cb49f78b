"""What the plugin knows of each container, and its part of the files on disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from sagong.contracts.runtime import Container, ContainerState, ExecStatus, Exited, RunSpec
from sagong.errors import ResourceExhausted
from sagong.linux.files import remove_directory, write_all
from sagong.shim.directory import RunDirectory, read_record

__all__ = ["ExecRecord", "Made", "Record", "Records"]

# Whose the containers are that were started before makers were written down.
FIRST_MAKER = "sagong_runtime_linux.starting:LinuxEngine"

_SPEC = msgspec.json.Decoder(RunSpec)


class Made(NamedTuple):
    """By which engine a container was started, and what that one was told."""

    maker: str
    engine: dict[str, Any]


class ExecRecord:
    """An exec'd process."""

    def __init__(self, *, pid: int = 0, code: int | None = None) -> None:
        self.pid = pid
        self.code = code

    def status(self, exec_id: str) -> ExecStatus:
        """For those who ask."""
        running = self.code is None
        return ExecStatus(exec_id=exec_id, running=running, pid=self.pid, code=self.code or 0)


class Record:
    """One run of a container."""

    def __init__(self, spec: RunSpec, key: str, cgroup: str, made: Made) -> None:
        self.spec = spec
        self.made = made
        self.key = key
        self.cgroup = cgroup
        self.pid = 0
        self.started = 0
        self.started_at = 0.0
        self.starting = True
        # It waits for its run to be asked for; `starting` until then.
        self.prepared = False
        self.paused = False
        self.oom_killed = False
        self.exit: Exited | None = None
        self.ended = asyncio.Event()
        self.cleaned = asyncio.Event()
        self.execs: dict[str, ExecRecord] = {}

    def container(self) -> Container:
        """As the contract shows it."""
        state = ContainerState.PAUSED if self.paused else ContainerState.RUNNING
        common = {
            "id": self.spec.id,
            "run": self.spec.run,
            "group": self.spec.group,
            "started_at": self.started_at,
            "cgroup": self.cgroup,
            "labels": self.spec.labels,
        }
        if self.exit is None:
            return Container(state=state, pid=self.pid, oom_killed=self.oom_killed, **common)  # type: ignore[arg-type]
        return Container(
            state=ContainerState.EXITED,
            code=self.exit.code,
            oom_killed=self.exit.oom_killed,
            finished_at=self.exit.finished_at,
            **common,  # type: ignore[arg-type]
        )

    def finish(self, facts: dict[str, Any]) -> None:
        """The run has ended."""
        self.exit = Exited(
            id=self.spec.id,
            run=self.spec.run,
            code=facts["code"],
            oom_killed=facts["oom_killed"],
            finished_at=facts["finished_at"],
            group=self.spec.group,
        )
        self.paused = False
        self.ended.set()


class Records:
    """The containers' directories."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory

    def path(self, container_id: str) -> Path:
        """A container's directory."""
        return Path(self._directory.container(container_id))

    def _file(self, container_id: str, name: str) -> str:
        return f"{self._directory.container(container_id)}/{name}"

    def create(self, spec: RunSpec) -> None:
        """Begin a run: a fresh directory with the spec in it."""
        path = self._directory.container(spec.id)
        content = msgspec.json.encode(spec)
        try:
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                self.remove(spec.id)
                os.mkdir(path, 0o700)
            except FileNotFoundError:
                os.makedirs(path, 0o700)
            with open(f"{path}/spec.json", "wb", buffering=0) as file:
                write_all(file.fileno(), content)
        except OSError as error:
            self.remove(spec.id)
            raise ResourceExhausted(
                f"writing {path}/spec.json: {error.strerror}; make room in {self._directory.base}"
            ) from None

    def remove(self, container_id: str) -> None:
        """Forget a container; unknown is no error."""
        remove_directory(self._directory.container(container_id))

    def mark(self, container_id: str, name: str) -> bool:
        """Set a mark; False when it was set already."""
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            os.close(os.open(self._file(container_id, name), flags, 0o600))
        except FileExistsError:
            return False
        except FileNotFoundError:
            return True
        return True

    def mark_first(self, container_id: str, name: str) -> bool:
        """Whether the mark is not there yet; it is set if there is room for it."""
        try:
            return self.mark(container_id, name)
        except OSError:
            return True

    def unmark(self, container_id: str, name: str) -> None:
        """Take a mark away."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._file(container_id, name))

    def ids(self) -> list[str]:
        """All that have a directory."""
        try:
            return sorted(os.listdir(self._directory.containers))
        except FileNotFoundError:
            return []

    def spec(self, container_id: str) -> RunSpec | None:
        """The spec of a run; None when it was never written whole."""
        try:
            return _SPEC.decode((self.path(container_id) / "spec.json").read_bytes())
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def state(self, container_id: str) -> dict[str, Any] | None:
        """What the monitor wrote at the start."""
        return read_record(self._file(container_id, "state.json"))

    def exit(self, container_id: str) -> dict[str, Any] | None:
        """What the monitor wrote at the end."""
        return read_record(self._file(container_id, "exit.json"))

    def marked(self, container_id: str, name: str) -> bool:
        """Whether a mark is set."""
        return os.path.exists(self._file(container_id, name))

    def execs(self, container_id: str) -> dict[str, ExecRecord]:
        """The exec'd processes."""
        found = {}
        for path in sorted((self.path(container_id) / "execs").glob("*")):
            record = self.execution(container_id, path.name)
            if record is not None:
                found[path.name] = record
        return found

    def execution(self, container_id: str, exec_id: str) -> ExecRecord | None:
        """One of them, if it is there."""
        path = self._directory.execution(container_id, exec_id)
        state, code = read_record(f"{path}/state.json"), read_record(f"{path}/exit.json")
        if state is None:
            return None
        return ExecRecord(pid=state["pid"], code=code["code"] if code else None)

    def load(self, spec: RunSpec, state: dict[str, Any]) -> Record:
        """A run as its files tell it."""
        made = Made(state.get("maker") or FIRST_MAKER, state.get("engine") or {})
        record = Record(spec, state["key"], state["cgroup"], made)
        record.pid, record.started = state["pid"], state["started"]
        record.started_at = state["started_at"]
        record.starting = False
        record.paused = self.marked(spec.id, "paused")
        record.execs = self.execs(spec.id)
        return record

    def withdraw_exec(self, container_id: str, exec_id: str) -> bool:
        """Remove what stands of an exec whose program was never let go; False when it was."""
        path = self._directory.execution(container_id, exec_id)
        if read_record(f"{path}/state.json") is not None:
            return False
        self.remove_exec(container_id, exec_id)
        return True

    def remove_exec(self, container_id: str, exec_id: str) -> None:
        """Forget an exec; unknown is no error."""
        path = self._directory.execution(container_id, exec_id)
        remove_directory(path)
