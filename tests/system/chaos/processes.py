"""The processes of an instance: who they are now, and what they leave on the machine."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from sagong.contracts.kernel import SystemStatus
from sagong.errors import SagongError
from sagong.linux.cgroup import CONTROLLERS, Cgroup, layout_of_machine
from tests.system.chaos.places import places
from tests.system.instance import Instance
from tests.system.platform.rig import footprint

__all__ = ["Processes"]

_WELL = ("serving", "asleep")
_MONITOR = "sagong-monitor "
_NURSERY = "sagong-nursery"
_MOST = 6
# To die of a kill, on a machine that has much to do: who is in the midst of a mount ends it first.
_ENDING = 60.0


class Processes:
    """Finds them by the kernel's word, by control group, log and directory, never by name."""

    def __init__(self, running: Instance) -> None:
        self._running = running
        self._paths = running.paths

    def status(self) -> SystemStatus | None:
        """What the kernel says, if it says something."""
        try:
            return self._running.status()
        except (SagongError, OSError, TimeoutError):
            return None

    def pids(self) -> dict[str, int]:
        """Processes by name: units, kernel, keeper, zygote, companions."""
        status = self.status()
        if status is None:
            return {}
        found = [*status.others, *(p for unit in status.units for p in unit.processes)]
        return {p.unit: p.pid for p in found if p.state in ("serving", "running")}

    def wait_ready(self, gone: set[int], seconds: float = 180.0) -> str:
        """Wait until all serve, supervised, and none of `gone` is among them; else what is wrong."""
        limit = time.monotonic() + seconds
        while True:
            status = self.status()
            if status is not None and _is_whole(status) and not gone & _all(status):
                return ""
            if time.monotonic() > limit:
                return f"not ready after {seconds:.0f} s: {_why(status)}"
            time.sleep(0.1)

    def monitors(self) -> dict[str, int]:
        """Monitors by the containers that they watch: one has several."""
        pids = {}
        for pid in self._below_run():
            title = _read(f"/proc/{pid}/cmdline").replace("\0", " ")
            if title.startswith(_MONITOR):
                pids[title.removeprefix(_MONITOR).strip()] = pid
        found = {}
        # Unlike Path's, this search goes on when a directory is removed meanwhile.
        states = glob.iglob(f"{self._paths.run}/slots/*/run/*/containers/*/state.json")
        for path in map(Path, states):
            with contextlib.suppress(FileNotFoundError):
                key = json.loads(path.read_text())["key"]
                if key in pids:
                    found[path.parent.name] = pids[key]
        return found

    def workers(self) -> dict[str, int]:
        """A process that a unit has beside its own: the workshop of images, namespaces' resolvers."""
        own = set(self.pids().values())
        return {f"worker of {name}": pid for name, pid in self._grouped() if pid not in own}

    def nurseries(self) -> dict[str, int]:
        """Those that make first processes, by numbers: they come and go."""
        pids = [pid for pid in sorted(self.everything()) if _comm(pid) == _NURSERY]
        return {f"nursery {number}": pid for number, pid in enumerate(pids)}

    def of(self, name: str) -> set[int]:
        """All processes of a unit, old and new ones; or the kernel, the zygote."""
        named = {pid for part, pid in self.pids().items() if part == name}
        return named | {pid for unit, pid in self._grouped() if unit == name}

    def everything(self) -> set[int]:
        """All that is no container: whose log is ours, or whose control group.

        Titles, arguments and directories change in a process's life. What it was given as standard
        error does not, and is its child's from the fork on; containers have FIFOs and terminals.
        """
        mark, log = f"{self._paths.cgroup}.", f"{self._paths.run}/log/"
        return {
            pid
            for pid in _numbers()
            if _target(f"/proc/{pid}/fd/2").startswith(log) or mark in _read(f"/proc/{pid}/cgroup")
        }

    def cut_power(self, *, containers: bool = False) -> tuple[set[int], str]:
        """End everything at once, whether or not anybody says who it is: all that ended, and what is
        wrong, if something did not."""
        limit = time.monotonic() + _ENDING
        ended: set[int] = set()
        quiet = 0
        # While a list is read one may fork another, and end: twice nothing is nothing.
        while quiet < 2 and time.monotonic() < limit:
            left = self.everything()
            for pid in left:
                _kill(pid)
            ended |= left
            quiet = 0 if left else quiet + 1
            time.sleep(0.05)
        if containers:
            Cgroup(layout_of_machine(), self._paths.cgroup, (*CONTROLLERS, "unified")).kill()
        left = self.everything() if quiet < 2 else set()
        return ended, f"did not end: {'; '.join(map(_described, sorted(left)))} " if left else ""

    def belongings(self) -> dict[str, tuple[str, ...]]:
        """All that the instance has on the machine, in terms that generations don't change."""
        found = {kind: tuple(names) for kind, names in footprint(self._running).items()}
        found["generations"] = self._generations()
        found["processes"] = self._counted()
        found["monitors"] = tuple(sorted(self.monitors()))
        found["places"] = places(self._paths.data / "plugins", 3) + places(self._paths.run, 6)
        return found

    def _generations(self) -> tuple[str, ...]:
        """Directories of sockets, one for each process that serves."""
        slots = (self._paths.run / "slots").iterdir()
        counts = {slot.name: len(list((slot / "bus").glob("[0-9]*"))) for slot in slots}
        # None where a unit is asleep.
        return tuple(f"{name}: {number}" for name, number in sorted(counts.items()) if number > 1)

    def _counted(self) -> tuple[str, ...]:
        """Parts that have more processes than any needs with its workers, by control group."""
        counts = Counter(name for name, _ in self._grouped())
        return tuple(f"{name}: {n}" for name, n in sorted(counts.items()) if n > _MOST)

    def _grouped(self) -> Iterator[tuple[str, int]]:
        """Units and processes in their control groups."""
        mark = f"{self._paths.cgroup}."
        for pid in _numbers():
            group = _read(f"/proc/{pid}/cgroup")
            if mark in group:
                unit = group.partition(mark)[2].split("\n")[0].partition("/")[0]
                yield unit.rpartition(".")[0], pid

    def _below_run(self) -> list[int]:
        below = str(self._paths.run)
        return [pid for pid in _numbers() if _target(f"/proc/{pid}/cwd").startswith(below)]


def _all(status: SystemStatus) -> set[int]:
    found = [*status.others, *(p for unit in status.units for p in unit.processes)]
    return {p.pid for p in found}


def _is_whole(status: SystemStatus) -> bool:
    """Whether every unit serves, and kernel and keeper have each other."""
    names = {p.unit for p in status.others if p.state in ("serving", "running")}
    return status.ready and {"kernel", "keeper"} <= names


def _why(status: SystemStatus | None) -> str:
    if status is None:
        return "the kernel does not answer"
    late = [f"{u.name}: {u.state} {u.problem}" for u in status.units if u.state not in _WELL]
    return "; ".join(late) or "something that was killed is still listed, or there is no keeper"


def _numbers() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _described(pid: int) -> str:
    """Command line, directory, parent, state and control groups of a process."""
    command = _read(f"/proc/{pid}/cmdline").replace("\0", " ").strip()
    facts = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()[:2]
    groups = {line.split(":")[-1] for line in _read(f"/proc/{pid}/cgroup").splitlines()}
    place = _target(f"/proc/{pid}/cwd")
    return f"{pid} {command!r} in {place}, state and parent {facts}, groups {sorted(groups)}"


def _comm(pid: int) -> str:
    return _read(f"/proc/{pid}/comm").strip()


def _target(path: str) -> str:
    """Where a link of /proc goes, "" when its process has gone."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
