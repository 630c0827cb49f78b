"""Cells: where a unit lives (uid, directories, log) and the sandbox around it, from its manifest."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from msgspec.structs import replace

from sagong.config import Config, Paths, UnitConfig
from sagong.deputy import deputation
from sagong.errors import FailedPrecondition
from sagong.kernel import journal
from sagong.kernel.bounds import check_room, cut
from sagong.kernel.directory import reached
from sagong.kernel.journal import Choices
from sagong.kernel.population import Process
from sagong.kernel.programs import Programs
from sagong.kernel.reach import Reach
from sagong.kernel.units import Unit, chosen, with_unit, without_unit
from sagong.kernel.usage import Stance
from sagong.linux.cgroup import Cgroup
from sagong.linux.cgroup_limits import CgroupLimits
from sagong.linux.cgroup_statistics import statistics, usage_file
from sagong.linux.process import set_turns
from sagong.manifest import size_bytes
from sagong.process import Launch
from sagong.sandbox import (
    DeviceGrant,
    PathGrant,
    Plan,
    ProcessLimits,
    Rights,
    cores_limits,
    plan,
    probe,
    turns,
)
from sagong.settings import filled
from sagong.shelf import Shelf

__all__ = ["Cells"]

_LOG = logging.getLogger("sagong.kernel")
_CONTROLLERS = ("memory", "pids", "cpu", "unified")
# What a unit that is held back has: enough to be ended, and to come to its senses.
_HELD_CORES, _HELD_SHARES = 0.01, 2
# A unit that computes has so much less weight than others: an eighth of an ordinary process's. One that
# would get next to nothing by that has as much as an ordinary process.
_LIGHTER, _STARVING = 64, 8


class Cells:
    """Gives every identity its uid and directories, and computes sandbox plans."""

    def __init__(self, paths: Paths, config: Config) -> None:
        self._paths = paths
        self._config = config
        self.programs = Programs(Shelf(paths))
        self._file = paths.data / "kernel" / "choices.json"
        choices = journal.read(self._file, Choices)
        assert isinstance(choices, Choices)
        self._choices = choices
        self._clearing: list[threading.Thread] = []
        stage = paths.run / "kernel" / "stage"
        stage.mkdir(parents=True, exist_ok=True)
        self.reach = Reach(paths.run)
        self._machine = probe(stage=str(stage))

    @property
    def chosen(self) -> dict[str, str]:
        """Plugins that the operator swapped in, by unit."""
        return self._choices.plugins

    @property
    def configured(self) -> dict[str, UnitConfig]:
        """The units to run, as configured and as the operator has changed them since."""
        return chosen(self._config, self._choices)

    def chosen_plugin(self, unit: str) -> str:
        """The plugin that fills a unit: the operator's choice, or what is configured."""
        configured = self.configured.get(unit)
        return self._choices.plugins.get(unit) or (configured and configured.plugin) or unit

    def choose(self, unit: str, plugin: str) -> None:
        """Remember that `plugin` fills `unit`, over restarts and reboots."""
        plugins = {**self._choices.plugins, unit: plugin}
        self._keep(replace(self._choices, plugins=plugins))

    def enable(self, name: str, unit: UnitConfig) -> None:
        """Remember a unit that was added, by what was asked of it."""
        self._keep(with_unit(self._choices, name, unit))

    def disable(self, name: str, *, forget: bool) -> None:
        """Remember that a unit was taken away, and what was asked of it unless that is forgotten."""
        self._keep(without_unit(self._choices, self._config, name, forget=forget))

    def resting(self, name: str) -> UnitConfig:
        """What was asked of a unit that was taken away."""
        return self._choices.resting.get(name, UnitConfig())

    def uid(self, unit: Unit) -> int:
        """The unit's uid, given once and for ever."""
        known = self._choices.uids
        if unit.identity not in known:
            taken = set(known.values())
            free = next(
                uid
                for uid in range(self._config.uid_base, self._config.uid_base + 2000)
                if uid not in taken
            )
            self._keep(replace(self._choices, uids={**known, unit.identity: free}))
        return self._choices.uids[unit.identity]

    def uids(self, units: Iterable[Unit]) -> dict[str, int]:
        """Uids by identity."""
        return {unit.identity: self.uid(unit) for unit in units}

    def slot_directory(self, unit: Unit) -> Path:
        """What callers of the unit may see: its bus sockets and streams."""
        return self._paths.run / "slots" / unit.name

    def run_directory(self, unit: Unit) -> Path:
        """`host.run`."""
        companion = unit.manifest.companion
        shared = companion.directory if companion is not None else ""
        return self.slot_directory(unit) / "run" / (shared or unit.manifest.plugin.name)

    def data_directory(self, unit: Unit) -> Path:
        """`host.data`."""
        return self._paths.data / "plugins" / unit.identity

    def launch(self, unit: Unit, generation: int) -> Launch:
        """What the new process is told; its directories exist afterwards."""
        uid = self.uid(unit)
        check_room(unit.name, unit.manifest, self.own(unit))
        bus = self.slot_directory(unit) / "bus" / str(generation)
        self.slot_directory(unit).mkdir(parents=True, exist_ok=True)
        _owned(bus, uid, 0o711)
        _owned(self.run_directory(unit), uid, 0o711)
        _owned(self.data_directory(unit), uid, 0o700)
        self._give_shared(unit, uid)
        self.reach.prepare(unit.name, generation, [bus, self.run_directory(unit)])
        return Launch(
            unit=unit.name,
            plugin=unit.manifest.plugin.name,
            class_=unit.manifest.plugin.class_,
            generation=generation,
            instance=unit.instance,
            kernel=str(self._paths.run / "kernel" / "bus" / "s"),
            bus=str(bus / "s"),
            data=str(self.data_directory(unit)),
            run=str(self.run_directory(unit)),
            root=str(self._paths.run),
            provides=tuple(unit.manifest.provided()),
            uses=unit.routes(),
            settings=filled(dict(unit.settings), self._paths.places),
            places=self._paths.places,
            hooks=self.programs.hooks(unit),
            deputy=deputation(unit.manifest, confined=self._config.sandbox),
            idle_seconds=unit.idle_seconds,
        )

    def plan(self, unit: Unit, launch: Launch, units: Mapping[str, Unit]) -> Plan | None:
        """The sandbox as a plan that the forked child applies; None where it is switched off."""
        if not self._config.sandbox:
            return None
        rights = self.rights(unit, launch, units)
        return plan(rights, self._machine, descriptors=None)

    def rights(self, unit: Unit, launch: Launch, units: Mapping[str, Unit]) -> Rights:
        """The manifest's rights with this instance's paths, and sockets of what it calls."""
        manifest, uid = unit.manifest, self.uid(unit)
        limits = manifest.limits
        # What rights say of another's data is there, though that unit starts later.
        for other in units.values():
            if not (directory := self.data_directory(other)).exists():
                _owned(directory, self.uid(other), 0o700)
        return Rights(
            name=unit.name,
            uid=uid,
            gid=uid,
            capabilities=tuple(c.name for c in manifest.rights.capabilities),
            data=launch.data,
            run=launch.run,
            paths=(
                PathGrant(str(Path(launch.bus).parent), "write"),
                *(PathGrant(path) for path in self.programs.paths(unit)),
                *(
                    PathGrant(self._paths.expand(p.path), p.access, p.shared, p.optional)
                    for p in manifest.rights.paths
                ),
            ),
            sockets=tuple(self._sockets(unit, launch, units)),
            lobby=(str(self.reach.lobby(unit.name, launch.generation)), str(self.reach.place)),
            devices=tuple(DeviceGrant(d.path, d.optional) for d in manifest.rights.devices),
            network=manifest.rights.network.mode,
            seccomp=tuple(s.group for s in manifest.rights.seccomp),
            limits=ProcessLimits(
                memory=size_bytes(limits.memory),
                pids=limits.pids,
                cpu_shares=self._config.cpu_shares,
                cores=limits.cpu,
                files=limits.files,
                tmp=size_bytes(limits.tmp),
                file_size=self._file_size(size_bytes(limits.disk)),
            ),
            cgroup=self._cgroup(unit, launch.generation),
        )

    def _file_size(self, disk: int) -> int:
        """No file outgrows all its owner may keep; its log is a file of it, too, and cut later."""
        return max(disk, 2 * self._config.log_limit) if disk else 0

    def own(self, unit: Unit) -> tuple[Path, Path]:
        """The directories that `limits.disk` is for."""
        return self.data_directory(unit), self.run_directory(unit)

    def counters(self, unit: Unit, generation: int) -> tuple[str, ...]:
        """Files that count what a generation's control group refused or ended."""
        group = Cgroup(self._machine.cgroups, self._cgroup(unit, generation), _CONTROLLERS)
        pids, memory = group.directory("pids"), group.directory("memory")
        old = self._machine.cgroups.versions.get("memory") == 1
        found = [f"{pids}/pids.events"] if pids else []
        if memory:
            found.append(f"{memory}/{'memory.oom_control' if old else 'memory.events'}")
        return tuple(found)

    def pids(self, unit: Unit, generation: int) -> tuple[int, ...]:
        """Processes of a generation, what it forked among them; none without a control group."""
        return Cgroup(self._machine.cgroups, self._cgroup(unit, generation), ("pids",)).pids()

    def frozen(self, unit: Unit, generation: int) -> bool:
        """Whether somebody has made a generation's control group stand still."""
        return Cgroup(self._machine.cgroups, self._cgroup(unit, generation), ("unified",)).frozen()

    def usage(self, unit: Unit, generation: int) -> str:
        """The file that says how much processor time a generation has used; "" if nothing counts it."""
        group = Cgroup(self._machine.cgroups, self._cgroup(unit, generation), _CONTROLLERS)
        return usage_file(group)

    def allot(self, unit: Unit, generation: int, *, held: bool, stance: Stance) -> bool:
        """Give a generation the processor time of its manifest, or next to none; and its weight.

        False if it has no control group (any more); OSError if the machine's kernel refuses.
        """
        group = Cgroup(self._machine.cgroups, self._cgroup(unit, generation), ("cpu",))
        lighter = _STARVING if stance.starves else _LIGHTER if stance.computes else 1
        shares = self._config.cpu_shares // lighter
        quota = CgroupLimits()
        if self._machine.cpu_quotas:
            quota = cores_limits(_HELD_CORES if held else unit.manifest.limits.cpu)
        elif held:
            shares = _HELD_SHARES
        there = group.exists()
        if there:
            group.limit(quota._replace(cpu_shares=max(shares, _HELD_SHARES)))
        return there

    def set_turns(self, unit: Unit, generation: int, *, computes: bool) -> None:
        """Give way at once to whoever wakes, or have short turns as all others; children inherit it."""
        nanoseconds = turns(self._machine, computes=computes)
        for pid in self.pids(unit, generation) if nanoseconds else ():
            with contextlib.suppress(OSError):  # it ended, or this root may not
                for thread in os.listdir(f"/proc/{pid}/task"):
                    set_turns(int(thread), nanoseconds)

    def _sockets(self, unit: Unit, launch: Launch, units: Mapping[str, Unit]) -> Iterator[str]:
        """The kernel's, and those of every unit that fills what it calls, hears or streams from."""
        yield str(self._paths.run / "kernel" / "bus")
        for name in sorted(reached(unit, units)):
            (self._paths.run / "slots" / name).mkdir(parents=True, exist_ok=True)
            yield str(self.reach.door(unit.name, launch.generation, name))

    def show(self, process: Process, units: Mapping[str, Unit], living: frozenset[str]) -> None:
        """Let a running process see the sockets of all that it may call now, and of no other.

        What it saw is left to it while something of that unit lives: calls may be in flight there.
        """
        wanted = reached(process.unit, units)
        if wanted == process.reach or not self._config.sandbox:
            return
        for name in wanted:
            (self._paths.run / "slots" / name).mkdir(parents=True, exist_ok=True)
        try:
            process.reach = self.reach.change(process, wanted, living)
        except OSError as error:
            _LOG.error("sockets can't be shown: %s", error, extra={"unit": process.unit.name})

    def check_door(self, unit: Unit, path: str) -> None:
        """Whether a provider that says it has started can be called; FailedPrecondition if not."""
        if not unit.manifest.provides:
            return
        try:
            mode = os.stat(path).st_mode
        except OSError:
            raise FailedPrecondition(
                f"{path} is not there: bind it before you say that you have started"
            ) from None
        if mode & 0o666 != 0o666:
            raise FailedPrecondition(f"{path} can't be connected to by others: chmod it 0666")

    def log(self, name: str) -> Path:
        """The log that a process's standard error goes to."""
        return self._paths.run / "log" / f"{name}.log"

    def open_log(self, name: str) -> int:
        """A process's log for writing; cut when it has grown too long."""
        path = self.log(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(path, flags, 0o640)
        cut(path, self._config.log_limit)
        return fd

    def forget(self, unit: Unit, generation: int) -> None:
        """Take away what only this generation had: processes that it left, sockets, its group."""
        group = Cgroup(self._machine.cgroups, self._cgroup(unit, generation), _CONTROLLERS)
        if statistics(group).oom_kills:
            memory = unit.manifest.limits.memory
            _LOG.warning("out of memory", extra={"unit": unit.name, "limits_memory": memory})
        # What is held back would die slowly.
        eased = cores_limits(0) if self._machine.cpu_quotas else CgroupLimits()
        # Waiting for the dying is nothing for the kernel's loop.
        work = threading.Thread(target=_clear, args=(group, unit.name, eased), daemon=True)
        self._clearing = [*(other for other in self._clearing if other.is_alive()), work]
        work.start()
        shutil.rmtree(self.slot_directory(unit) / "bus" / str(generation), ignore_errors=True)
        self.reach.forget(unit.name, generation)

    def wait_cleared(self, seconds: float) -> None:
        """Until what dead processes left behind has ended, too, for as long at most; blocks."""
        limit = time.monotonic() + seconds
        for work in self._clearing:
            work.join(max(limit - time.monotonic(), 0.0))

    def forget_unit(self, unit: Unit) -> None:
        """Take away where a unit was called that is no more. What it has made stays, as its data."""
        directory = self.slot_directory(unit)
        shutil.rmtree(directory / "bus", ignore_errors=True)
        for empty in (self.run_directory(unit), directory / "run", directory):
            with contextlib.suppress(OSError):
                empty.rmdir()

    def _cgroup(self, unit: Unit, generation: int) -> str:
        return self._paths.unit_group(unit.name, generation)

    def _give_shared(self, unit: Unit, uid: int) -> None:
        """A shared directory of the instance belongs to the plugin that may write it."""
        for right in unit.manifest.rights.paths:
            path = Path(self._paths.expand(right.path))
            if right.shared and right.access == "write" and path.is_relative_to(self._paths.run):
                path.mkdir(parents=True, exist_ok=True)
                os.chown(path, uid, uid)

    def _keep(self, choices: Choices) -> None:
        journal.write(self._file, choices, durable=True)
        self._choices = choices


def _clear(group: Cgroup, unit: str, eased: CgroupLimits) -> None:
    """End what a dead process left behind, children in sessions of their own, and its group."""
    try:
        left = len(group.pids())
        if left:
            group.limit(eased)
            group.kill()
            _LOG.warning("processes left behind were ended", extra={"unit": unit, "count": left})
        group.remove()
    except (OSError, TimeoutError):
        _LOG.info("a control group stays", extra={"cgroup": group.path})


def _owned(directory: Path, uid: int, mode: int) -> None:
    """The directory, made if it is missing, and whose it is."""
    directory.mkdir(parents=True, exist_ok=True)
    os.chown(directory, uid, uid)
    directory.chmod(mode)
