"""What is done to a platform: kills, swaps, all at once, upgrades, stops, full disks, no power."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.system.chaos.history import Fault, Recorder
from tests.system.chaos.processes import Processes
from tests.system.instance import Instance

__all__ = ["KINDS", "Injector", "no_blocks", "no_inodes"]

# Kind of fault and how often, one against the other.
KINDS = {
    "kill": 8,
    "swap": 4,
    "swaps": 2,
    "stop": 4,
    "full": 2,
    "power": 1,
    "upset": 3,
    "upgrade": 1,
}
_OTHERS = {"scheduler": ("scheduler_kube", "scheduler_binpack")}
_CHUNK = 1 << 20
_KILLED_MEANWHILE = 0.6
# What no platform takes, not on a machine that has much to do either: an upgrade of all that took a
# second a unit took a minute there.
_UP, _LONG = "160", 400.0


class Injector:
    """Chooses by the seed alone, so that a run can be repeated as far as time allows."""

    def __init__(
        self,
        running: Instance,
        recorder: Recorder,
        names: dict[str, str],
        weights: Mapping[str, int] = KINDS,
    ) -> None:
        self._running = running
        self._weights = {kind: weight for kind, weight in weights.items() if weight}
        self._recorder = recorder
        self._processes = Processes(running)
        self._names = names
        self._chance = random.Random(recorder.seed)
        # Units that have not had their turn since all had: of a swap, and of one with a death in it.
        self._turns: dict[str, list[str]] = {"swap": [], "upset": []}
        self._acts: dict[str, Callable[[], None]] = {
            "kill": self._kill,
            "swap": self._swap,
            "swaps": self._swap_two,
            "stop": self._stop,
            "full": self._fill,
            "power": self._cut_power,
            "upset": self._upset,
            "upgrade": self._upgrade,
        }
        # Every kind once, then by chance.
        self._first = sorted(self._weights)
        self._chance.shuffle(self._first)

    @property
    def has_done_all(self) -> bool:
        """Whether every kind of fault was there once."""
        return not self._first

    def act(self) -> str:
        """One fault, from its beginning until all is ready again; what it was."""
        kinds, weights = list(self._weights), list(self._weights.values())
        kind = self._first.pop() if self._first else self._chance.choices(kinds, weights)[0]
        self._acts[kind]()
        fault = self._recorder.faults[-1]
        return f"{fault.kind} {fault.target}: {fault.ended - fault.began:.1f} s {fault.problem}"

    def _kill(self) -> None:
        """One process, or several at once."""
        victims = self._victims()
        count = self._chance.choice((1, 1, 1, 2, 3))
        self.kill(self._chance.sample(sorted(victims), count), victims)

    def kill(self, chosen: list[str], victims: Mapping[str, int]) -> None:
        """These of the processes that there are."""
        began = time.time()
        pids = {victims[name] for name in chosen}
        for pid in pids:
            _signal(pid, signal.SIGKILL)
        problem = ""
        if {"keeper", "kernel"} <= set(chosen):
            # Each starts the other: with both, it is for who supervises the keeper, as systemd does.
            done = self._running.run("up", "--seconds", _UP, check=False)
            problem = f"`up` failed: {done.stderr}{done.stdout}" if done.returncode else ""
        # A monitor comes back when somebody asks for it, the zygote when a process is to be made.
        self._recovered("kill", _all_of(victims, pids), began, pids, problem)

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
        words = self._swapping("swap")
        began = time.time()
        done = self._running.run("swap", *words, check=False)
        problem = "" if done.returncode == 0 else f"swap failed: {done.stderr}{done.stdout}"
        self._recovered("swap", words[:1], began, set(), problem)

    def _swap_two(self) -> None:
        """Two units at once, that may call one another."""
        words = [self._swapping("swap"), self._swapping("swap")]
        began = time.time()
        with ThreadPoolExecutor(2) as beside:
            swaps = [beside.submit(self._running.run, "swap", *w, check=False) for w in words]
            done = [swap.result() for swap in swaps]
        # By chance it is the same one twice, and the second is told so.
        refused = words[0][0] == words[1][0]
        wrong = [d.stderr + d.stdout for d in done if d.returncode]
        problem = f"swap failed: {wrong}" if len(wrong) > refused else ""
        self._recovered("swap", [w[0] for w in words], began, set(), problem)

    def _swapping(self, kind: str) -> list[str]:
        """Every slot's turn comes, in an order by chance."""
        turns = self._turns[kind]
        if not turns:
            status = self._processes.status()
            turns += sorted(u.name for u in status.units) if status else ["scheduler"]
            self._chance.shuffle(turns)
        unit = turns.pop()
        plugin = self._chance.choice(_OTHERS.get(unit, ("",)))
        return [unit, *([plugin] if plugin else [])]

    def _upset(self) -> None:
        """Within a swap somebody is killed: old or new one, who makes it, or who decides it."""
        words = self._swapping("upset")
        unit = words[0]
        victim = self._chance.choice((unit, unit, "kernel", "zygote"))
        began = time.time()
        with ThreadPoolExecutor(1) as beside:
            swap = beside.submit(self._running.run, "swap", *words, check=False)
            # The command itself takes some tenths to begin.
            time.sleep(self._chance.uniform(0.1, 0.8))
            pid = self._chance.choice(sorted(self._processes.of(victim)) or [0])
            if pid:
                _signal(pid, signal.SIGKILL)
            said = swap.result()
        problem = f"swap: {said.stderr}" if "Traceback" in said.stderr else ""
        self._recovered("kill", [victim, unit], began, {pid} - {0}, problem)

    def _upgrade(self) -> None:
        """Everything is replaced, one after the other."""
        began = time.time()
        done = self._running.run("upgrade", "--trial", "0.5", check=False, seconds=_LONG)
        problem = "" if done.returncode == 0 else f"upgrade failed: {done.stderr}{done.stdout}"
        self._recovered("upgrade", ["all"], began, set(), problem)

    def _fill(self) -> None:
        """The disk of its data, or that of its sockets and logs, is full for some seconds: no block is
        free, or no inode.

        Often somebody dies meanwhile: what is decided then can't be written down.
        """
        paths = self._running.paths
        name = self._chance.choice(("data", "run"))
        what, fill = self._chance.choice((("blocks", no_blocks), ("inodes", no_inodes)))
        victims = self._victims()
        victim = self._chance.choice(sorted(victims))
        killed = {victims[victim]} if self._chance.random() < _KILLED_MEANWHILE else set()
        began = time.time()
        with fill(getattr(paths, name)) as take:
            for pid in killed:
                _signal(pid, signal.SIGKILL)
            limit = time.monotonic() + self._chance.uniform(1.0, 4.0)
            while time.monotonic() < limit:
                # What others gave back meanwhile is taken too.
                take()
                time.sleep(0.05)
        self._recovered("full", [f"{name} {what}"], began, killed)
        self._recovered("kill", _all_of(victims, killed), began, killed)

    def _cut_power(self) -> None:
        """Everything but the containers ends at once, and is brought up again."""
        began = time.time()
        ended, problem = self._processes.cut_power()
        done = self._running.run("up", "--seconds", _UP, check=False)
        if done.returncode:
            problem += f"`up` failed: {done.stderr}{done.stdout}"
        self._recovered("power", ["all"], began, ended, problem)

    def _victims(self) -> dict[str, int]:
        known = self._processes
        found = {**known.pids(), **known.workers(), **known.nurseries()}
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


def _all_of(victims: Mapping[str, int], pids: set[int]) -> list[str]:
    """What goes with these processes: a monitor is that of several containers."""
    return sorted(name for name, pid in victims.items() if pid in pids)


@contextlib.contextmanager
def no_blocks(disk: Path) -> Iterator[Callable[[], None]]:
    """No block of a disk is free; what is given takes those that others gave back."""
    filler = disk / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            _fill(file.fileno())
            yield lambda: _fill(file.fileno())
    finally:
        filler.unlink(missing_ok=True)


@contextlib.contextmanager
def no_inodes(disk: Path) -> Iterator[Callable[[], None]]:
    """No inode of a tmpfs is free; what is given takes those that others gave back."""
    most = os.statvfs(disk).f_files

    def take() -> None:
        found = os.statvfs(disk)
        # Between the two calls one may be made: then there are as many as there were.
        _remount(disk, found.f_files - found.f_ffree, check=False)

    take()
    try:
        yield take
    finally:
        _remount(disk, most)


def _remount(disk: Path, inodes: int, *, check: bool = True) -> None:
    options = f"remount,nr_inodes={inodes}"
    subprocess.run(["mount", "-o", options, str(disk)], check=check, capture_output=True)


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
