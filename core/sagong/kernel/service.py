"""The contract `kernel` as processes and the operator's tools call it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

from sagong import __version__
from sagong.call import current
from sagong.config import Config, UnitConfig
from sagong.contracts.kernel import (
    Attendance,
    DisableRequest,
    Done,
    Flood,
    Idle,
    Order,
    PartRef,
    ProcessStatus,
    ReportQuery,
    RouteEntry,
    RouteTable,
    SpanList,
    SpanQuery,
    StatusQuery,
    StopSystem,
    SwapRequest,
    SwapStep,
    SystemReport,
    SystemStatus,
    Tracing,
    UnitRef,
    UnitSpec,
    UnitStatus,
    Waking,
)
from sagong.errors import FailedPrecondition, NotFound, PermissionDenied, Unavailable
from sagong.kernel import directory, happenings, outages
from sagong.kernel.cell import Cells
from sagong.kernel.enabling import as_before, check_unused, disable, enable, wish
from sagong.kernel.life import Life
from sagong.kernel.population import Process
from sagong.kernel.prerequisites import ranks
from sagong.kernel.renewal import Renewal
from sagong.kernel.restraint import Restraint
from sagong.kernel.sight import Sight
from sagong.kernel.succession import Succession, check_versions
from sagong.kernel.supervisor import Supervisor
from sagong.kernel.swap import restart, swap
from sagong.kernel.units import Unit, laid

__all__ = ["KernelService"]


class KernelService:
    """Answers for the kernel; only root may change anything."""

    def __init__(
        self,
        supervisor: Supervisor,
        cells: Cells,
        config: Config,
        succession: Succession,
        renewal: Renewal,
        stop: Callable[[float, bool], None],
    ) -> None:
        self._supervisor = supervisor
        self._cells = cells
        self._config = config
        self._succession = succession
        self._renewal = renewal
        self._stop = stop
        self._started = time.time()
        self.sight = Sight(supervisor)
        self.restraint = Restraint(supervisor.population, cells, lambda: supervisor.units)

    async def attend(self, attendance: Attendance) -> AsyncIterator[Order]:
        """Orders for a process that is what it says."""
        await self._supervisor.wait_launched(attendance.unit, attendance.generation)
        process = self._known(attendance.unit, attendance.generation)
        orders = self._supervisor.attended(process, health=attendance.health)
        while (order := await orders.get()) is not None:
            yield order
        raise Unavailable("orders were missed; attend again")

    def done(self, done: Done) -> None:
        """An order was carried out."""
        process = self._known(done.unit, done.generation)
        process.pending.pop(done.order, None)
        future = process.done.get(done.order)
        if future is None or future.done():
            return
        if done.error:
            future.set_exception(FailedPrecondition(done.error))
        else:
            future.set_result(done)

    def flooded(self, flood: Flood) -> None:
        """A caller floods whoever asks."""
        self.restraint.accused(current().uid, flood.uid, flood.seconds)

    def idle(self, idle: Idle) -> None:
        """One that starts on demand may be let go."""
        process = self._known(idle.unit, idle.generation)
        self._supervisor.feed(idle.unit, happenings.Idle(process.generation))

    def wake(self, waking: Waking) -> None:
        """Only by those with whom it leaves word."""
        unit, uid, units = self._unit(waking.unit), current().uid, self._supervisor.units
        wakers = {self._cells.uid(units[name]) for name in directory.wakers(unit, units)}
        if uid not in (0, os.geteuid(), *wakers):
            raise PermissionDenied(f"uid {uid} is none of those in [life] wakes_on of {unit.name}")
        self._supervisor.feed(unit.name, happenings.Wake())

    def status(self, query: StatusQuery) -> SystemStatus:
        """Everything at a glance."""
        rank = ranks(self._supervisor.units)
        units = tuple(self._unit_status(name, rank[name], query) for name in rank)
        return SystemStatus(
            version=__version__,
            profile=self._config.profile,
            boot=self._supervisor.boot,
            ready=all(unit.state in ("serving", "asleep") for unit in units),
            units=units,
            others=tuple(self._others(query)),
        )

    async def report(self, query: ReportQuery) -> SystemReport:
        """What every process has done."""
        return await self.sight.report(query)

    def trace(self, tracing: Tracing) -> None:
        """Record spans, or stop it."""
        _operator()
        self.sight.trace(tracing)

    async def spans(self, query: SpanQuery) -> SpanList:
        """What was recorded."""
        _operator()
        return await self.sight.spans(query)

    async def routes(self) -> AsyncIterator[RouteTable]:
        """Who serves what, now and at every change."""
        _operator()
        changes: asyncio.Queue[Order] = asyncio.Queue()
        self._supervisor.observers.add(changes)
        try:
            yield self._table(Order(id=0))
            while True:
                yield self._table(await changes.get())
        finally:
            self._supervisor.observers.discard(changes)

    async def swap(self, request: SwapRequest) -> AsyncIterator[SwapStep]:
        """Replace a unit's plugin; the choice is remembered when its trial is over."""
        _operator()
        old = self._unit(request.unit)
        unit = self._succession.of(old, request.plugin)
        check_versions(unit, old, self._supervisor.units)
        seconds = unit.manifest.restart.trial_seconds if request.trial < 0 else request.trial
        async for step in swap(self._supervisor, unit, trial=seconds, wait=request.wait):
            yield step

    async def enable(self, spec: UnitSpec) -> AsyncIterator[SwapStep]:
        """Add a unit, and remember it."""
        _operator()
        before = self._cells.resting(spec.unit)
        own = laid(spec.unit, wish(spec), before)
        configured = self._config.units.get(spec.unit, UnitConfig())
        unit = self._succession.fresh(spec.unit, laid(spec.unit, own, configured))
        remember = partial(self._cells.enable, unit.name, own)
        if before != UnitConfig():
            yield SwapStep(text=as_before(unit.name, before))
        async for step in enable(self._supervisor, unit, remember):
            yield step

    async def disable(self, request: DisableRequest) -> AsyncIterator[SwapStep]:
        """Take a unit away, and remember that; or forget one that was taken away before."""
        _operator()
        name = request.unit
        if name not in self._supervisor.units and self._cells.resting(name) != UnitConfig():
            if not request.forget:
                raise FailedPrecondition(f"{name} is disabled already; --forget what it was given")
            self._cells.disable(name, forget=True)
            yield SwapStep(text="what it was given is forgotten", finished=True)
            return
        unit = self._unit(name)
        if not request.force:
            check_unused(self._supervisor, unit)
        self._cells.disable(name, forget=request.forget)
        async for step in disable(self._supervisor, unit):
            yield step

    async def restart(self, unit: UnitRef) -> None:
        """Replace the process, or start again what was given up."""
        _operator()
        await restart(self._supervisor, self._succession.of(self._unit(unit.unit)))

    async def renew(self, part: PartRef) -> None:
        """Replace a part that is no unit."""
        _operator()
        await self._renewal.renew(part.part)

    def stop(self, request: StopSystem) -> None:
        """Stop the system."""
        _operator()
        self._stop(request.seconds, request.purge)

    def _table(self, gone: Order) -> RouteTable:
        serving = self._supervisor.serving()
        return RouteTable(
            dead=gone.dead,
            deserted=gone.deserted,
            down=tuple(outages.all_of(self._supervisor.units, self._supervisor.lives)),
            routes=tuple(
                RouteEntry(
                    slot=slot,
                    version=version,
                    instance=unit.instance,
                    generation=serving[unit.name].generation,
                    path=serving[unit.name].path,
                )
                for unit in self._supervisor.units.values()
                if unit.name in serving
                for slot, version in unit.manifest.provided()
            ),
        )

    def _known(self, unit: str, generation: int) -> Process:
        process = self._supervisor.population.find(unit, generation)
        if process is None:
            raise NotFound(f"no process {unit} of generation {generation}; end yourself")
        uid = current().uid
        if uid not in (0, os.geteuid(), self._cells.uid(process.unit)):
            raise PermissionDenied(f"uid {uid} is not {unit}")
        return process

    def _unit(self, name: str) -> Unit:
        unit = self._supervisor.units.get(name)
        if unit is None:
            known = ", ".join(sorted(self._supervisor.units))
            raise NotFound(f"no unit {name}; there are {known or 'none'}")
        return unit

    def _unit_status(self, name: str, rank: int, query: StatusQuery) -> UnitStatus:
        unit, life = self._supervisor.units[name], self._supervisor.lives[name]
        word = _word(life)
        trial = life.trial
        return UnitStatus(
            name=name,
            plugin=unit.manifest.plugin.name,
            kind=unit.manifest.plugin.kind,
            instance=unit.instance,
            slots=tuple(f"{slot}/{v}" for slot, v in unit.manifest.provided()),
            state=word,
            trial=trial.back.manifest.plugin.name if trial else "",
            trial_seconds=max(trial.until - time.monotonic(), 0.0) if trial else 0.0,
            rank=rank,
            restarts=life.restarts,
            problem=life.problem if word not in ("serving", "asleep") else "",
            lacks=directory.lacks_of(unit, self._supervisor.units),
            processes=tuple(
                ProcessStatus(
                    unit=name,
                    plugin=p.record.plugin,
                    generation=p.generation,
                    pid=p.record.pid,
                    uid=self._cells.uid(p.unit),
                    state=p.state,
                    started=p.record.since,
                    memory=self._memory(p) if query.memory else 0,
                )
                for p in self._supervisor.population.of(name)
            ),
        )

    def _keeper(self) -> int:
        """The keeper's pid, which another one than our parent may be by now; 0 if there is none."""
        try:
            return int((self._supervisor.paths.run / "keeper.pid").read_text())
        except (OSError, ValueError):
            return 0

    def _memory(self, process: Process) -> int:
        """Of a process and of what it forked."""
        forked = self._cells.pids(process.unit, process.generation)
        return sum(map(_pss, {process.record.pid, *forked}))

    def _others(self, query: StatusQuery) -> list[ProcessStatus]:
        own = [("kernel", os.getpid()), ("keeper", self._keeper())]
        if self._supervisor.spawner.pid:
            own.append(("zygote", self._supervisor.spawner.pid))
        own += [(f"{r.unit}-companion", r.pid) for r in self._supervisor.companions.records()]
        return [
            ProcessStatus(
                unit=name,
                plugin="",
                generation=0,
                pid=pid,
                uid=0,
                state="running",
                started=self._started,
                memory=_pss(pid) if query.memory else 0,
            )
            for name, pid in own
        ]


def _operator() -> None:
    if current().uid not in (0, os.geteuid()):
        raise PermissionDenied("only root may do this")


def _word(life: Life) -> str:
    if life.serving:
        return "serving"
    if life.asleep:
        return "asleep"
    return "stopping" if life.leaving else "down" if life.down else "starting"


def _pss(pid: int) -> int:
    """Bytes of a process; 0 if it is gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 0
