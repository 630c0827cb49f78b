"""A container as its monitor knows it: sessions, cgroup, what stands in its directory."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sagong.linux.cgroup import Cgroup
from sagong.shim.directory import (
    reserve_record,
    withdraw_record,
    write_record,
    write_reserved,
)
from sagong.shim.failure import StartError
from sagong.shim.logs import timestamp
from sagong.shim.oom import OomWatch
from sagong.shim.session import Session

if TYPE_CHECKING:
    from sagong.shim.birth import Birth
    from sagong.shim.loop import Loop

__all__ = ["Container"]

_PAUSE = 0.005
# What a successor needs of the request; `engine` is the engine's own.
_KEPT = ("id", "run", "cgroup", "session", "private_pid", "engine", "maker", "group")


class Container:
    """One run of a container."""

    def __init__(self, request: dict[str, Any], directory: str, group: Cgroup) -> None:
        self.request = request
        self.id: str = request["id"]
        self.run: int = request["run"]
        # A monitor of before wrote no group: then its key was the group's name or the id.
        self.group_name: str = request.get("group") or request.get("key") or self.id
        self.directory = directory
        self.group = group
        self.session: Session | None = None
        self.execs: dict[str, Session] = {}
        # While it is being started, or waits for its start to be asked for.
        self.birth: Birth | None = None
        self.oom: OomWatch | None = None
        self.oom_killed = False
        self.started_at = 0.0
        self.finished_at = 0.0
        self.cleaned = False
        self._claim = -1

    def claim(self) -> None:
        """Have the container alone: two monitors would each read half of its output.

        The lock is the process's own, so no fork keeps it; it ends with its holder. It is on the
        spec because nobody in a monitor opens that, and any closing would release the lock.
        """
        self._claim = os.open(f"{self.directory}/spec.json", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.lockf(self._claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.release()
            raise StartError(
                "unavailable", f"another monitor watches container {self.id}"
            ) from None

    @property
    def superseded(self) -> bool:
        """Whether its directory is gone, and what stands at its path is a later run's."""
        return self._claim >= 0 and os.fstat(self._claim).st_nlink == 0

    def release(self) -> None:
        """Give the container up."""
        if self._claim >= 0:
            os.close(self._claim)
            self._claim = -1

    def thaw_group(self) -> None:
        """Where a former run left its group frozen, this one would stand from its first moment on."""
        if self.group.halted():
            with contextlib.suppress(TimeoutError):
                self.group.thaw(seconds=0.0)

    def watch_memory(self, loop: Loop, tell: Callable[[], None]) -> None:
        """Begin to notice out-of-memory kills."""

        def killed() -> None:
            self.oom_killed = True
            tell()

        self.oom = OomWatch(loop, self.group, killed)

    def write_state(self, pid: int, started: int, extra: dict[str, Any]) -> None:
        """What a successor and the plugin need to know; durable before the program runs."""
        if self.superseded:
            raise FileNotFoundError(errno.ENOENT, "it was removed", self.directory)
        now = time.time_ns()
        self.started_at = now / 1e9
        since = timestamp(now)
        if self.session is not None:
            self.session.since = since
        kept = {k: self.request[k] for k in _KEPT if k in self.request}
        write_record(
            f"{self.directory}/state.json",
            {
                **kept,
                **extra,
                "pid": pid,
                "started": started,
                "started_at": self.started_at,
                "since": since,
                "monitor": os.getpid(),
                # Monitors of before did not.
                "marks": True,
            },
        )

    def mark_begun(self) -> None:
        """The program was executed. Without room for that a successor believes it all the same, unless
        its code is that of a child that never became it."""
        with contextlib.suppress(OSError):
            flags = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC
            os.close(os.open(f"{self.directory}/begun", flags, 0o600))

    def reserve_exit(self) -> None:
        """Room for the exit code, before anything runs: later there may be none."""
        reserve_record(f"{self.directory}/exit.json")

    def discard_exit(self) -> None:
        """It never began."""
        withdraw_record(f"{self.directory}/exit.json")

    def write_exit(self, code: int) -> None:
        """Leave the exit code."""
        self.finished_at = time.time()
        if self.oom is not None:
            self.oom.check()
            self.oom.close()
        self.leave(self.directory, self.exit_facts(code))

    def leave(self, directory: str, facts: dict[str, Any]) -> None:
        """The end of its first process or of an exec'd one, in its directory.

        Whoever removed that meanwhile, as a plugin does with a start that its predecessor gave up,
        asks for no code; what stands at the path by then is a later run's.
        """
        if not self.superseded:
            with contextlib.suppress(FileNotFoundError):
                write_reserved(f"{directory}/exit.json", facts)

    def exit_facts(self, code: int) -> dict[str, Any]:
        """The exit as events and files show it."""
        return {
            "id": self.id,
            "run": self.run,
            "code": code,
            "oom_killed": self.oom_killed,
            "finished_at": self.finished_at,
        }

    def kill_rest(self) -> None:
        """After the first process's end: those that a shared pid namespace lets live on."""
        if not self.request["private_pid"]:
            with contextlib.suppress(OSError):
                self.group.kill(seconds=0.0)

    def end_cgroup(self, loop: Loop, done: Callable[[], None], *, attempts: int = 400) -> None:
        """Remove the cgroup with all that is in it, then call `done`; what won't end is left.

        In between others are served: what was killed needs a moment to go.
        """
        try:
            self.group.remove(seconds=0.0)
        except TimeoutError:
            if attempts:
                with contextlib.suppress(OSError):
                    self.group.kill(seconds=0.0)
                again = attempts - 1
                loop.later(_PAUSE, lambda: self.end_cgroup(loop, done, attempts=again))
                return
        except OSError:
            pass  # a group that somebody else removes at this moment
        done()

    def forget_execs(self) -> None:
        """Those that are over: a container that is probed for years has millions."""
        self.execs = {n: s for n, s in self.execs.items() if not s.ended or s.clients}

    @property
    def over(self) -> bool:
        """Whether nothing of it needs a monitor any more."""
        sessions = [self.session, *self.execs.values()]
        return self.cleaned and all(s is None or (s.ended and not s.clients) for s in sessions)
