"""The contract `kernel` as processes and the operator's tools call it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from sagong import __version__
from sagong.call import current
from sagong.config import Config, UnitConfig
from sagong.contracts.kernel import (
    Attendance,
    Done,
    Order,
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
    UnitStatus,
)
from sagong.errors import FailedPrecondition, NotFound, PermissionDenied
from sagong.kernel.cell import Cells
from sagong.kernel.population import Process
from sagong.kernel.sight import Sight
from sagong.kernel.supervisor import Supervisor
from sagong.kernel.swap import swap
from sagong.kernel.units import Load, Unit, resolve_one

__all__ = ["KernelService"]


class KernelService:
    """Answers for the kernel; only root may change anything."""

    def __init__(
        self,
        supervisor: Supervisor,
        cells: Cells,
        config: Config,
        load: Load,
        stop: Callable[[float, bool], None],
    ) -> None:
        self._supervisor = supervisor
        self._cells = cells
        self._config = config
        self._load = load
        self._stop = stop
        self._started = time.time()
        self.sight = Sight(supervisor)

    async def attend(self, attendance: Attendance) -> AsyncIterator[Order]:
        """Orders for a process that is what it says."""
        process = self._known(attendance.unit, attendance.generation)
        orders = self._supervisor.attended(process)
        while True:
            yield await orders.get()

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
            future.set_result(done.state)

    def status(self, query: StatusQuery) -> SystemStatus:
        """Everything at a glance."""
        measure = _memory if query.memory else _unmeasured
        units = tuple(self._unit_status(name, measure) for name in self._supervisor.units)
        return SystemStatus(
            version=__version__,
            profile=self._config.profile,
            boot=self._supervisor.boot,
            ready=all(unit.state == "serving" for unit in units),
            units=units,
            others=tuple(self._others(measure)),
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
        changes: asyncio.Queue[tuple[str, ...]] = asyncio.Queue()
        self._supervisor.observers.add(changes)
        try:
            yield self._table(())
            while True:
                yield self._table(await changes.get())
        finally:
            self._supervisor.observers.discard(changes)

    async def swap(self, request: SwapRequest) -> AsyncIterator[SwapStep]:
        """Replace a unit's plugin, and remember the choice."""
        _operator()
        unit = self._successor(request)
        async for step in swap(self._supervisor, unit):
            yield step
        self._cells.choose(unit.name, unit.manifest.plugin.name)

    async def restart(self, unit: UnitRef) -> None:
        """Start again what was given up."""
        _operator()
        self._unit(unit.unit)
        await self._supervisor.restart(unit.unit)

    def stop(self, request: StopSystem) -> None:
        """Stop the system."""
        _operator()
        self._stop(request.seconds, request.purge)

    def _table(self, dead: tuple[str, ...]) -> RouteTable:
        serving = self._supervisor.serving()
        return RouteTable(
            dead=dead,
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
                for slot, version in unit.manifest.provides.items()
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
            raise NotFound(f"no unit {name}; there are {known}")
        return unit

    def _successor(self, request: SwapRequest) -> Unit:
        """The unit with another plugin: `binpack` is short for `scheduler_binpack`."""
        unit = self._unit(request.unit)
        slots = list(unit.manifest.provides)
        wanted = request.plugin or unit.manifest.plugin.name
        names = [*(f"{slot}_{wanted}" for slot in slots), wanted]
        settings = dict(unit.settings) if wanted == unit.manifest.plugin.name else {}
        for name in names:
            try:
                config = UnitConfig(
                    plugin=name,
                    instance=unit.instance,
                    settings=settings or self._settings(unit.name, name),
                    listens=dict(unit.listens),
                )
                new = resolve_one(unit.name, config, self._load)
            except NotFound:
                continue
            return _fills(new, unit)
        raise NotFound(f"no plugin {wanted} is installed; see `sagong plugins`")

    def _settings(self, unit: str, plugin: str) -> dict[str, object]:
        configured = self._config.units.get(unit)
        if configured is None or (configured.plugin or unit) != plugin:
            return {}
        return configured.settings

    def _unit_status(self, name: str, measure: Callable[[int], int]) -> UnitStatus:
        unit, state = self._supervisor.units[name], self._supervisor.states[name]
        word = "serving" if state.serving else "failed" if state.failed else "starting"
        return UnitStatus(
            name=name,
            plugin=unit.manifest.plugin.name,
            kind=unit.manifest.plugin.kind,
            slots=tuple(f"{slot}/{v}" for slot, v in unit.manifest.provides.items()),
            state=word,
            restarts=state.restarts,
            problem=state.problem if word != "serving" else "",
            processes=tuple(
                ProcessStatus(
                    unit=name,
                    plugin=p.record.plugin,
                    generation=p.generation,
                    pid=p.record.pid,
                    uid=self._cells.uid(p.unit),
                    state=p.state,
                    started=p.record.since,
                    memory=measure(p.record.pid),
                )
                for p in self._supervisor.population.of(name)
            ),
        )

    def _others(self, measure: Callable[[int], int]) -> list[ProcessStatus]:
        own = [("kernel", os.getpid()), ("keeper", os.getppid())]
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
                memory=measure(pid),
            )
            for name, pid in own
        ]


def _operator() -> None:
    if current().uid not in (0, os.geteuid()):
        raise PermissionDenied("only root may do this")


def _fills(new: Unit, old: Unit) -> Unit:
    """The newcomer must provide what the old one did."""
    for slot, version in old.manifest.provides.items():
        if new.manifest.provides.get(slot) != version:
            raise FailedPrecondition(
                f"{new.manifest.plugin.name} does not provide {slot}/{version}, "
                f"which {old.name} has to"
            )
    return new


def _unmeasured(pid: int) -> int:
    return 0


def _memory(pid: int) -> int:
    """PSS in bytes; 0 if the process is gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 0
