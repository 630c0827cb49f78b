"""The supervisor: starts units' processes, adopts living ones, restarts dead ones, publishes routes."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from sagong.config import Config, Paths
from sagong.contracts.kernel import Order
from sagong.errors import SagongError, Unavailable
from sagong.kernel import directory, journal
from sagong.kernel.cell import Cells
from sagong.kernel.companions import Companions
from sagong.kernel.directory import Serving
from sagong.kernel.journal import Journal, ProcessRecord
from sagong.kernel.listeners import Listeners
from sagong.kernel.population import Population, Process
from sagong.kernel.spawner import Spawner
from sagong.kernel.units import Unit
from sagong.kernel.zygote import SpawnRequest
from sagong.linux.process import start_time
from sagong.process import Launch

__all__ = ["Supervisor", "UnitState"]

_LOG = logging.getLogger("sagong.kernel")
_START_SECONDS = 30.0
_ADOPT_SECONDS = 5.0
_CRASHES, _CRASH_WINDOW = 8, 60.0
_RETRY_FAILED = 30.0


@dataclass
class UnitState:
    """How a unit fares: its crashes of the last minute, and what is wrong with it."""

    crashes: deque[float] = field(default_factory=lambda: deque(maxlen=_CRASHES))
    restarts: int = 0
    problem: str = ""
    failed: bool = False
    swapping: bool = False
    serving: Process | None = None


class Supervisor:
    """Keeps every unit served."""

    def __init__(
        self,
        paths: Paths,
        config: Config,
        units: dict[str, Unit],
        cells: Cells,
        listeners: Listeners,
    ) -> None:
        self.units = units
        self.states = {name: UnitState() for name in units}
        self.paths = paths
        self.boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        self.stopping = False
        self.tracing = False
        self.admit: Callable[[Unit], None] = lambda unit: None
        self.observers: set[asyncio.Queue[tuple[str, ...]]] = set()
        self.spawner = Spawner(config.preload, self._reaped)
        self.companions = Companions(paths, cells, self._save)
        self.population = Population(self._ended, self._save)
        self._cells = cells
        self._listeners = listeners
        self._journal = paths.run / "kernel" / "processes.json"
        self._generation = 0
        self._dead: deque[str] = deque(maxlen=64)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loading = True

    async def begin(self) -> None:
        """Adopt what lives of an earlier kernel, then start what is missing."""
        self._adopt()
        self._loading = False
        self._save()
        for name in self.units:
            if self.states[name].serving is None:
                self._later(self._raise(name))

    def serving(self) -> Mapping[str, Serving]:
        """What serves each unit now."""
        return {
            name: Serving(state.serving.generation, state.serving.record.bus)
            for name, state in self.states.items()
            if state.serving is not None
        }

    async def launch(self, unit: Unit) -> Process:
        """Fork a new generation of a unit; it attends, but does not serve yet."""
        self._generation += 1
        generation = self._generation
        self.admit(unit)
        launch = self._cells.launch(unit, generation)
        if unit.manifest.companion is not None:
            self.companions.ensure(unit)
        names, descriptors = self._listeners.of(unit)
        launch = msgspec.structs.replace(launch, listeners=dict.fromkeys(names, -1))
        log = self._cells.open_log(unit.name)
        try:
            pid, pidfd = await self._fork(unit, launch, [log, *descriptors])
        finally:
            os.close(log)
        record = ProcessRecord(
            unit=unit.name,
            identity=unit.identity,
            plugin=unit.manifest.plugin.name,
            generation=generation,
            pid=pid,
            started=_started(pid),
            since=time.time(),
            state="starting",
            bus=launch.bus,
        )
        process = Process(record, unit, pidfd, "starting")
        self.population.add(process)
        return process

    async def start(self, process: Process, state: bytes = b"") -> None:
        """Let a forked process begin to serve; raises what it reports, after which it is ended."""
        order = Order(id=self.population.order_id(), action="start", state=state)
        try:
            await process.carry_out(order, _START_SECONDS)
        except SagongError:
            self.kill(process)
            raise
        self.population.set_state(process, "ready")

    def publish(self, process: Process) -> None:
        """New calls go to this process from now on."""
        state = self.states[process.unit.name]
        state.serving = process
        state.problem, state.failed = "", False
        self.population.set_state(process, "serving")
        self.broadcast()

    async def wait_attending(self, process: Process) -> None:
        """Until a forked process has all it needs to be started at once; raises if it ends."""
        ended = asyncio.ensure_future(process.exited.wait())
        attended = asyncio.ensure_future(process.attended.wait())
        try:
            await asyncio.wait(
                (ended, attended), timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            ended.cancel()
            attended.cancel()
        if not process.attended.is_set():
            self.kill(process)
            raise Unavailable(f"its process ended or was not ready in {_START_SECONDS:.0f} s")

    async def drain(self, process: Process, *, successor: bool) -> bytes:
        """Let a process finish and let go of what a successor needs; the state it exported."""
        self.population.set_state(process, "draining")
        seconds = process.unit.manifest.restart.drain_seconds
        order = Order(
            id=self.population.order_id(), action="drain", seconds=seconds, successor=successor
        )
        try:
            return await process.carry_out(order, seconds + 10.0)
        except SagongError as error:
            # Its successor begins with what is on disk; better than nobody serving.
            _LOG.warning("drain failed: %s", error, extra={"unit": process.unit.name})
            await self.end(process)
            return b""

    async def retire(self, process: Process, *, successor: bool = False) -> None:
        """Drain a process and end it."""
        await self.drain(process, successor=successor)
        await self.end(process)

    def retire_later(self, process: Process) -> None:
        """Drain a process that has a successor already, and end it, in the background."""
        self.population.set_state(process, "draining")
        self._later(self.retire(process, successor=True))

    def end_later(self, process: Process) -> None:
        """End a drained process in the background."""
        self._later(self.end(process))

    async def end(self, process: Process) -> None:
        """End a drained process; one that does not go is killed."""
        process.tell(Order(id=self.population.order_id(), action="stop"))
        try:
            async with asyncio.timeout(5.0):
                await process.exited.wait()
        except TimeoutError:
            self.kill(process)
            await process.exited.wait()

    def kill(self, process: Process) -> None:
        """End a process at once."""
        import signal

        if not process.exited.is_set():
            signal.pidfd_send_signal(process.pidfd, signal.SIGKILL)

    def broadcast(self) -> None:
        """Tell every process what changed for it: routes, dead paths, accesses."""
        serving, uids = self.serving(), self._cells.uids(self.units.values())
        dead = tuple(self._dead)
        for process in self.population:
            self._inform(process, serving, uids, dead)
        for queue in self.observers:
            queue.put_nowait(dead)
        self._dead.clear()

    def attended(self, process: Process) -> asyncio.Queue[Order]:
        """A process (again) follows orders: begin with all it has to know, and what is pending."""
        process.orders = asyncio.Queue()
        process.routes = process.access = None
        self._inform(process, self.serving(), self._cells.uids(self.units.values()), ())
        if self.tracing:
            process.orders.put_nowait(Order(id=0, tracing=True))
        for order in process.pending.values():
            process.orders.put_nowait(order)
        process.attended.set()
        return process.orders

    async def restart(self, name: str) -> None:
        """Start a unit that was given up, or replace its process by a new one."""
        state = self.states[name]
        state.crashes.clear()
        state.failed, state.problem = False, ""
        if state.serving is None:
            await self._raise(name)

    async def stop(self, seconds: float, *, purge: bool) -> None:
        """Drain and end everything, services first, so that nobody misses what he calls."""
        self.stopping = True
        processes = list(self.population)
        services = [p for p in processes if p.unit.manifest.plugin.kind == "service"]
        plugins = [p for p in processes if p not in services]
        for group in (services, plugins):
            work = (self._stop_one(p, seconds, purge=purge) for p in group)
            await asyncio.gather(*work, return_exceptions=True)
        self.companions.stop()
        self.spawner.close()

    async def _stop_one(self, process: Process, seconds: float, *, purge: bool) -> None:
        try:
            async with asyncio.timeout(seconds):
                if purge:
                    order = Order(id=self.population.order_id(), action="purge")
                    await process.carry_out(order, seconds)
                await self.retire(process)
        except TimeoutError:
            self.kill(process)

    async def _fork(self, unit: Unit, launch: Launch, descriptors: list[int]) -> tuple[int, int]:
        request = SpawnRequest(
            0,
            msgspec.json.encode(launch),
            f"sagong-{unit.name}",
            self._cells.plan(unit, launch, {**self.units, unit.name: unit}),
            unit.manifest.plugin.command,
        )
        for attempt in range(3):
            try:
                return await self.spawner.spawn(request, descriptors)
            except Unavailable:
                if attempt == 2:
                    raise
        raise Unavailable("the zygote does not come up")

    def _inform(
        self,
        process: Process,
        serving: Mapping[str, Serving],
        uids: Mapping[str, int],
        dead: tuple[str, ...],
    ) -> None:
        routes = directory.routes_of(process.unit, self.units, serving)
        access = directory.access_of(process.unit, self.units, uids)
        changed_routes = routes if routes != process.routes else None
        changed_access = access if access != process.access else None
        if changed_routes is None and changed_access is None and not dead:
            return
        process.routes, process.access = routes, access
        if process.orders is not None:
            process.tell(Order(id=0, routes=changed_routes, access=changed_access, dead=dead))

    def _adopt(self) -> None:
        known = journal.read(self._journal, Journal)
        assert isinstance(known, Journal)
        if known.boot != self.boot:
            return
        self._generation = known.generation
        self.companions.adopt(known.companions)
        for record, pidfd in Population.reopen(known):
            unit = self.units.get(record.unit)
            process = Process(record, unit or _orphan(record, self.units), pidfd, record.state)
            self.population.add(process)
            if unit is None or unit.identity != record.identity or record.state != "serving":
                self.kill(process)
                continue
            self.states[record.unit].serving = process
            self._later(self._await_adopted(process))

    async def _await_adopted(self, process: Process) -> None:
        try:
            async with asyncio.timeout(_ADOPT_SECONDS):
                await process.attended.wait()
        except TimeoutError:
            _LOG.warning("%s does not attend after the kernel's restart", process.unit.name)
            self.kill(process)

    async def _raise(self, name: str) -> None:
        """Bring a unit up, with back-off; after too many crashes it is given up for a while."""
        state = self.states[name]
        while state.serving is None and not self.stopping:
            try:
                process = await self.launch(self.units[name])
                await self.start(process)
            except (SagongError, OSError) as error:
                state.problem = str(error)
                _LOG.error("unit does not start", extra={"unit": name, "problem": str(error)})
                await self._back_off(name)
                continue
            self.publish(process)
            _LOG.info("unit serves", extra={"unit": name, "generation": process.generation})

    async def _back_off(self, name: str) -> None:
        state = self.states[name]
        now = time.monotonic()
        state.crashes.append(now)
        recent = sum(1 for t in state.crashes if now - t < _CRASH_WINDOW)
        state.failed = recent >= _CRASHES
        await asyncio.sleep(_RETRY_FAILED if state.failed else min(0.05 * 2**recent, 5.0))

    def _ended(self, process: Process) -> None:
        for future in process.done.values():
            if not future.done():
                future.set_exception(Unavailable(f"{process.unit.name} ended"))
        self._dead.append(process.record.bus)
        asyncio.get_running_loop().call_later(
            0.2, self._cells.forget, process.unit, process.generation
        )
        state = self.states.get(process.unit.name)
        if state is None or state.serving is not process:
            self.broadcast()
            return
        state.serving = None
        if not self.stopping:
            _LOG.warning(
                "unit died",
                extra={"unit": process.unit.name, "pid": process.record.pid},
            )
            state.restarts += 1
            state.problem = f"generation {process.generation} died"
            self._later(self._revive(process.unit.name))
        self.broadcast()

    async def _revive(self, name: str) -> None:
        """Start anew at once; back off only when it dies again and again."""
        state = self.states[name]
        now = time.monotonic()
        state.crashes.append(now)
        if sum(1 for t in state.crashes if now - t < 10.0) > 3:
            await self._back_off(name)
        await self._raise(name)

    def _reaped(self, pid: int, status: int) -> None:
        self.population.note_status(pid, status)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("background work failed", exc_info=task.exception())

    def _save(self) -> None:
        if not self._loading:
            journal.write(
                self._journal,
                Journal(
                    boot=self.boot,
                    generation=self._generation,
                    processes=self.population.records(),
                    companions=self.companions.records(),
                ),
            )


def _started(pid: int) -> int:
    try:
        return start_time(pid)
    except OSError:
        return 0  # it ended already; its pidfd says so in a moment


def _orphan(record: ProcessRecord, units: Mapping[str, Unit]) -> Unit:
    """A unit for a process whose own is no longer configured; it is about to be ended."""
    some = next(iter(units.values()))
    from dataclasses import replace

    return replace(some, name=record.unit)
