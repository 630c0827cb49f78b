"""What is done to a platform: kills, swaps, stops, a full disk, a cut of its power."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import time
from collections.abc import Callable

from tests.system.chaos.history import Fault, Recorder
from tests.system.chaos.processes import Processes
from tests.system.instance import Instance

__all__ = ["KINDS", "Injector"]

# Kind of fault and how often, one against the other.
KINDS = {"kill": 8, "swap": 4, "stop": 4, "full": 1, "power": 1}
_OTHERS = {"scheduler": ("scheduler_kube", "scheduler_binpack")}
_CHUNK = 1 << 20


class Injector:
    """Chooses by the seed alone, so that a run can be repeated as far as time allows."""

    def __init__(self, running: Instance, recorder: Recorder, names: dict[str, str]) -> None:
        self._running = running
        self._recorder = recorder
        self._processes = Processes(running)
        self._names = names
        self._chance = random.Random(recorder.seed)
        self._acts: dict[str, Callable[[], None]] = {
            "kill": self._kill,
            "swap": self._swap,
            "stop": self._stop,
            "full": self._fill,
            "power": self._cut_power,
        }
        # Every kind once, then by chance.
        self._first = sorted(KINDS)
        self._chance.shuffle(self._first)

    @property
    def has_done_all(self) -> bool:
        """Whether every kind of fault was there once."""
        return not self._first

    def act(self) -> str:
        """One fault, from its beginning until all is ready again; what it was."""
        kinds, weights = list(KINDS), list(KINDS.values())
        kind = self._first.pop() if self._first else self._chance.choices(kinds, weights)[0]
        self._acts[kind]()
        fault = self._recorder.faults[-1]
        return f"{fault.kind} {fault.target}: {fault.ended - fault.began:.1f} s {fault.problem}"

    def _kill(self) -> None:
        """One process, or several at once."""
        victims = self._victims()
        count = self._chance.choice((1, 1, 1, 2, 3))
        chosen = self._chance.sample(sorted(victims), count)
        began = time.time()
        pids = {victims[name] for name in chosen}
        for pid in pids:
            _signal(pid, signal.SIGKILL)
        # A monitor comes back when somebody asks for it, the zygote when a process is to be made.
        self._recovered("kill", _all_of(victims, pids), began, pids)

    def _stop(self) -> None:
        """A process does nothing for a while."""
        victims = self._victims()
        name = self._chance.choice(sorted(victims))
        seconds = self._chance.uniform(0.5, 5.0)
        began = time.time()
        _signal(victims[name], signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            _signal(victims[name], signal.SIGCONT)
        self._recovered("stop", _all_of(victims, {victims[name]}), began, set())

    def _swap(self) -> None:
        """A unit by itself or by another plugin, where there is one."""
        status = self._processes.status()
        units = sorted(u.name for u in status.units) if status else ["scheduler"]
        unit = self._chance.choice(units)
        plugin = self._chance.choice(_OTHERS.get(unit, ("",)))
        began = time.time()
        done = self._running.run("swap", unit, *([plugin] if plugin else []), check=False)
        problem = "" if done.returncode == 0 else f"swap failed: {done.stderr}{done.stdout}"
        self._recovered("swap", [unit], began, set(), problem)

    def _fill(self) -> None:
        """The disk of its data is full for some seconds."""
        filler = self._running.paths.data / "filler"
        began = time.time()
        try:
            with filler.open("wb", buffering=0) as file:
                _fill(file.fileno())
                limit = time.monotonic() + self._chance.uniform(1.0, 4.0)
                while time.monotonic() < limit:
                    # What others gave back meanwhile is taken too.
                    _fill(file.fileno())
                    time.sleep(0.05)
        finally:
            filler.unlink(missing_ok=True)
        self._recovered("full", ["disk"], began, set())

    def _cut_power(self) -> None:
        """Everything but the containers ends at once, and is brought up again."""
        began = time.time()
        ended = self._processes.cut_power()
        left = self._processes.everything()
        problem = f"{left} did not end" if left else ""
        done = self._running.run("up", "--seconds", "80", check=False)
        if done.returncode:
            problem += f"`up` failed: {done.stderr}{done.stdout}"
        self._recovered("power", ["all"], began, ended, problem)

    def _victims(self) -> dict[str, int]:
        found = {**self._processes.pids(), **self._processes.workers()}
        for container, pid in self._processes.monitors().items():
            if container in self._names:
                found[f"monitor {self._names[container]}"] = pid
        return found

    def _recovered(
        self, kind: str, names: list[str], began: float, gone: set[int], problem: str = ""
    ) -> None:
        problem = problem or self._processes.wait_ready(gone)
        for name in names:
            fault = Fault(kind=kind, target=name, began=began, ended=time.time(), problem=problem)
            self._recorder.fault(fault)


def _all_of(victims: dict[str, int], pids: set[int]) -> list[str]:
    """What goes with these processes: a monitor is that of several containers."""
    return sorted(name for name, pid in victims.items() if pid in pids)


def _fill(fd: int) -> None:
    """Append until nothing more fits, in ever smaller pieces."""
    size = _CHUNK
    while size >= 1:
        try:
            os.write(fd, bytes(size))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            size //= 16


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
