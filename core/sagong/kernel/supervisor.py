"""The supervisor does what lives decide (`sagong.kernel.life`): it starts, asks, drains and ends.

Whatever happens to a unit is fed to its life as an event; the life answers with actions, whose ends
are events again. Nothing else decides who serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import zmq

from sagong.bus.refusals import Refusals
from sagong.call import carried
from sagong.config import Config, Paths
from sagong.contracts.kernel import Order
from sagong.errors import SagongError
from sagong.kernel import happenings, journal, life
from sagong.kernel.alarms import Alarms
from sagong.kernel.births import Births
from sagong.kernel.cell import Cells
from sagong.kernel.companions import Companions
from sagong.kernel.directory import Serving
from sagong.kernel.endings import ending, last_words
from sagong.kernel.happenings import Action, Event
from sagong.kernel.herald import Herald
from sagong.kernel.journal import Journal, LifeRecord, ProcessRecord
from sagong.kernel.leftovers import sweep
from sagong.kernel.life import Life
from sagong.kernel.listeners import Listeners
from sagong.kernel.orders import ADOPT_SECONDS, Orders, hindered, kill
from sagong.kernel.population import Ended, Population, Process
from sagong.kernel.porters import Porters
from sagong.kernel.prerequisites import prerequisites
from sagong.kernel.resumption import Found, orphan, record_of, resume
from sagong.kernel.rousing import roused
from sagong.kernel.spawner import Spawner
from sagong.kernel.succession import Succession
from sagong.kernel.units import Unit

__all__ = ["Heard", "Supervisor"]

_LOG = logging.getLogger("sagong.kernel")
_GATE_SECONDS = 10.0
# To import all that it needs.
_ATTEND_SECONDS = 60.0
# Until what could not be written is tried again.
_WRITE_SECONDS = 1.0
_PURGE_SECONDS = 30.0
# What a dead generation had stays for those who are just calling it.
_GRAVE_SECONDS = 0.2
# For the killed to die, and those that they have left behind.
_DEATH_SECONDS = 5.0

T = TypeVar("T")
Heard = tuple[Life, tuple[Action, ...]]


class Supervisor:
    """Keeps every unit served."""

    def __init__(
        self,
        paths: Paths,
        config: Config,
        units: dict[str, Unit],
        cells: Cells,
        listeners: Listeners,
        succession: Succession,
        context: zmq.Context[Any],
    ) -> None:
        self.units = units
        self.lives = {name: Life(unit) for name, unit in units.items()}
        self.paths = paths
        self.boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        self.stopping = False
        self.tracing = False
        self.admit: Callable[[Unit], None] = lambda unit: None
        self.expel: Callable[[Unit], None] = lambda unit: None
        self.came: Callable[[], None] = lambda: None
        self.gone: Callable[[Process], None] = lambda process: None
        self.observers: set[asyncio.Queue[Order]] = set()
        self.spawner = Spawner(config.preload, self._reaped)
        self.companions = Companions(paths, cells, self._save)
        self.population = Population(self._ended, lambda: self.spawner.pid)
        self._cells = cells
        self._listeners = listeners
        self.porters = Porters(
            context, paths.run / "slots", listeners, knocked=self._knocked, buried=self._buried
        )
        self._succession = succession
        self._journal = paths.run / "kernel" / "processes.json"
        self._generation = 0
        self._herald = Herald(cells, self.population, self.lives)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._heard: dict[str, set[asyncio.Queue[Heard]]] = {}
        self._alarms = Alarms(self.feed)
        self._births = Births(cells, self.companions, listeners, self.spawner, lambda: self.units)
        self._orders = Orders(self.population, cells, self.lives, feed=self.feed, gate=self._gate)
        self._progress = asyncio.Event()
        self._loading = True
        self._dead: dict[tuple[str, int], Unit] = {}
        self._saving: asyncio.TimerHandle | None = None
        self._refusals = Refusals(_LOG)

    async def begin(self) -> None:
        """Adopt what lives of an earlier kernel, sweep what it left, then start what is missing."""
        actions = self._adopt()
        living = {(p.unit.name, p.generation) for p in self.population}
        sweep(self.paths, living)
        self._loading = False
        self._save()
        for name, todo in actions.items():
            for action in todo:
                self._do(name, action)
        for name, unit in list(self.units.items()):
            if unit.manifest.companion is not None and self.lives[name].members:
                self.companions.ensure(unit)
            self.feed(name, happenings.Begin())

    def add(self, unit: Unit) -> None:
        """Have a unit more, from now on; it comes up at once, also if it may sleep later."""
        self.units[unit.name] = unit
        self.lives[unit.name] = Life(unit)
        self.feed(unit.name, happenings.Begin())
        self.feed(unit.name, happenings.Wake())
        self.broadcast()

    async def remove(self, name: str, seconds: float, *, purge: bool = False) -> None:
        """Send nobody to a unit any more, end it within `seconds`, and forget it; its data stays."""
        unit = self.units.pop(name, None)
        if unit is None:
            return
        self.porters.dismiss(name, at_once=True)
        self._listeners.drop(unit)
        self.broadcast()
        await self._stop_unit(name, seconds, purge=purge)
        self.lives.pop(name)
        self.companions.drop(name)
        self._cells.forget_unit(unit)
        if not any(other.identity == unit.identity for other in self.units.values()):
            self.expel(unit)
        self._save()
        self.broadcast()

    def feed(self, name: str, event: Event) -> None:
        """Something happened to a unit: decide, note it down, tell who must know, act."""
        before = self.lives.get(name)
        if before is None:
            return
        fresh = self._generation + 1
        after, actions = life.step(before, event, time.monotonic(), fresh)
        self.lives[name] = after
        if after.asleep == fresh or any(isinstance(a, happenings.Launch) for a in actions):
            self._generation = fresh
        for action in actions:
            if isinstance(action, happenings.Remember):
                # Before the journal, which says that its trial is over: a new kernel would else end it.
                self._remember(name, action.what.manifest.plugin.name)
        self._settle(name, before, after)
        for action in actions:
            self._do(name, action)
        for queue in self._heard.get(name, ()):
            queue.put_nowait((after, actions))
        self._pulse()

    def _pulse(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()

    @contextlib.contextmanager
    def listening(self, name: str) -> Iterator[asyncio.Queue[Heard]]:
        """What becomes of a unit, step by step."""
        queue: asyncio.Queue[Heard] = asyncio.Queue()
        heard = self._heard.setdefault(name, set())
        heard.add(queue)
        try:
            yield queue
        finally:
            heard.discard(queue)

    def serving(self) -> Mapping[str, Serving]:
        """What serves each unit now."""
        found = {}
        for name, one in self.lives.items():
            process = self.population.find(name, one.serving) if one.serving else None
            if process is not None:
                found[name] = Serving(process.generation, process.record.bus)
            elif (porter := self.porters.serving(name)) is not None:
                found[name] = porter
        return found

    def late(self) -> list[str]:
        """Units that nobody serves now."""
        return [name for name, one in self.lives.items() if not one.serving]

    def broadcast(self) -> None:
        """Tell every process what changed for it: routes, dead paths, accesses, what is down."""
        serving, gone = self.serving(), self._herald.take()
        self.porters.inform(self.units, self._cells.uids(self.units.values()))
        for process in self.population:
            self._herald.tell(process, self.units, serving, gone)
        for queue in self.observers:
            queue.put_nowait(gone)

    async def wait_launched(self, name: str, generation: int) -> None:
        """A forked process may attend before the zygote's answer has been read: wait for that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ADOPT_SECONDS):
                await self._wait(lambda: not self._launching(name, generation))

    def _launching(self, name: str, generation: int) -> bool:
        one = self.lives.get(name)
        member = one.member(generation) if one is not None else None
        known = self.population.find(name, generation)
        return known is None and member is not None and member.stage == "launching"

    def attended(self, process: Process, *, health: bool) -> asyncio.Queue[Order | None]:
        """A process (again) follows orders: begin with all it has to know, and what is pending."""
        orders = process.orders = asyncio.Queue[Order | None]()
        process.routes = process.access = None
        process.down = ()
        process.health = health
        self._herald.tell(process, self.units, self.serving(), self._herald.missed_by(process))
        if self.tracing:
            orders.put_nowait(Order(id=0, tracing=True))
        for order in process.pending.values():
            orders.put_nowait(order)
        process.attended.set()
        return orders

    async def stop(self, seconds: float, *, purge: bool) -> None:
        """Drain and end everything, services first, so that nobody misses what he calls."""
        self.stopping = True
        if purge:  # who sleeps gets up while all that it calls is there
            for name in self.units:
                self.feed(name, happenings.Wake())
            await self._wait_settled(self.units, _PURGE_SECONDS)
        for kind in ("service", "plugin"):
            group = [n for n, u in self.units.items() if u.manifest.plugin.kind == kind]
            work = (self._stop_unit(name, seconds, purge=purge) for name in group)
            await asyncio.gather(*work, return_exceptions=True)
        for name, generation in list(self._dead):
            self._forget(name, generation)
        await asyncio.to_thread(self._cells.wait_cleared, _DEATH_SECONDS)
        await self.porters.close()
        self.companions.stop()
        self.spawner.close()

    async def _purge(self, name: str) -> None:
        """Let a unit take away what it made on the machine; half of that done is worse than a wait."""
        self.feed(name, happenings.Wake())
        await self._wait_settled((name,), _PURGE_SECONDS)
        with contextlib.suppress(TimeoutError, SagongError):
            if (process := self.population.find(name, self.lives[name].serving)) is not None:
                await process.carry_out(self.population.order("purge"), _PURGE_SECONDS)

    async def _stop_unit(self, name: str, seconds: float, *, purge: bool) -> None:
        if purge:
            await self._purge(name)
        try:
            async with asyncio.timeout(seconds):
                self.feed(name, happenings.Leave())
                await self._wait(lambda: not self.lives[name].members)
        except TimeoutError:
            self.feed(name, happenings.Leave())
            for process in self.population.of(name):
                kill(process)
                # It may take longer to die of it than anybody waits; those with it are killed, too.
                self._dead[name, process.generation] = process.unit

    def _forget(self, name: str, generation: int) -> None:
        """Take away what only a dead generation had; once."""
        unit = self._dead.pop((name, generation), None)
        if unit is not None:
            self._cells.forget(unit, generation)

    async def _wait(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._progress.wait()

    def _settle(self, name: str, before: Life, after: Life) -> None:
        for member in after.members:
            process = self.population.find(name, member.generation)
            if process is not None:
                process.state = member.stage
        serving = after.member(after.serving)
        if name in self.units:
            self.units[name] = serving.what if serving is not None else after.what
        self.porters.follow(name, after)
        self._listeners.follow(before, after)
        if not after.asleep:
            self._alarms.drop(name, happenings.Wake)
        elif not after.members:
            self.companions.drop(name)
        self._save()
        told, known = ((one.serving, one.down, one.asleep) for one in (after, before))
        if told != known:
            self.broadcast()
        if after.serving and after.serving != before.serving:
            _LOG.info("unit serves", extra={"unit": name, "generation": after.serving})
        elif after.down and not before.down:
            _LOG.error("unit is down", extra={"unit": name, "problem": after.problem})
        for other, event in roused(name, before, self.units, self.lives):
            asyncio.get_running_loop().call_soon(self.feed, other, event)

    def _knocked(self, name: str) -> None:
        self.feed(name, happenings.Wake())

    def _buried(self, path: str) -> None:
        """Nobody answers there any more."""
        self._herald.deserted.append(path)
        self.broadcast()

    def _do(self, name: str, action: Action) -> None:
        match action:
            case happenings.Launch(generation, what):
                self._later(self._launch(name, generation, what))
            case happenings.Start(generation, state):
                self._with(name, generation, lambda p: self._later(self._orders.start(p, state)))
            case happenings.Drain(generation):
                self._with(name, generation, lambda p: self._later(self._orders.drain(p, action)))
            case happenings.End(generation):
                self._with(name, generation, lambda p: self._later(self._orders.end(p)))
            case happenings.Kill(generation):
                self._with(name, generation, kill)
            case happenings.Watch(generation, seconds):
                self._with(name, generation, lambda p: self._later(self._orders.watch(p, seconds)))
            case happenings.RetryIn(seconds):
                self._alarms.set(name, seconds, happenings.Retry())
            case happenings.WakeIn(seconds):
                self._alarms.set(name, seconds, happenings.Wake())
            case happenings.Say(text):
                _LOG.info(text, extra={"unit": name})
            case happenings.Finish(True, text):
                _LOG.info(text, extra={"unit": name})
            case happenings.Settle(ok, text):
                # What failed is finished and settled at once, in the same words.
                _LOG.log(logging.INFO if ok else logging.WARNING, text, extra={"unit": name})

    def _with(self, name: str, generation: int, act: Callable[[Process], None]) -> None:
        process = self.population.find(name, generation)
        if process is not None:
            act(process)

    def _remember(self, name: str, plugin: str) -> None:
        """What serves is the operator's choice; on a full disk as soon as there is room."""
        if name not in self.units or self._cells.chosen_plugin(name) == plugin:
            return
        try:
            self._cells.choose(name, plugin)
        except OSError as error:
            self._refusals.say("a choice can't be remembered", name, unit=name, problem=str(error))
            self._later(self._remember_again(name, plugin))

    async def _remember_again(self, name: str, plugin: str) -> None:
        await asyncio.sleep(_WRITE_SECONDS)
        if name in self.lives and self.lives[name].what.manifest.plugin.name == plugin:
            self._remember(name, plugin)

    async def _launch(self, name: str, generation: int, unit: Unit) -> None:
        try:
            self.admit(unit)
            process = await self._births.fork(generation, unit)
        except Exception as error:
            known = isinstance(error, SagongError | OSError)
            _LOG.error("can't be launched: %s", error, exc_info=not known, extra={"unit": name})
            # What was made for it until there was no room.
            self._cells.forget(unit, generation)
            self.feed(name, happenings.Failed(generation, str(error) or type(error).__name__))
            return
        self.population.add(process)
        if name not in self.lives or self.lives[name].member(generation) is None:
            kill(process)  # the unit was taken away, and nobody waited for this one
            return
        self.came()
        self._save()
        self._pulse()
        self.broadcast()  # those whom it calls are to know it before it starts
        if await self._attends(process):
            self.feed(name, happenings.Launched(generation))
        else:
            kill(process)

    async def _attends(self, process: Process) -> bool:
        """Whether a process comes as far as attending, with all imported; one that ended does not."""
        waiting = [asyncio.ensure_future(e.wait()) for e in (process.attended, process.exited)]
        try:
            await asyncio.wait(
                waiting, timeout=_ATTEND_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for one in waiting:
                one.cancel()
        return process.attended.is_set()

    async def _gate(self, unit: Unit) -> None:
        """Wait until what the unit calls serves, or has failed once; bounded."""
        wanted = prerequisites({**self.units, unit.name: unit})[unit.name]
        await self._wait_settled(wanted, _GATE_SECONDS)

    async def _wait_settled(self, names: Collection[str], seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wait(
                    lambda: all(x.settled for n, x in self.lives.items() if n in names)
                )

    def _adopt(self) -> dict[str, tuple[Action, ...]]:
        """Take over what lives; what is to be done about it, by unit."""
        known = journal.read(self._journal, Journal)
        assert isinstance(known, Journal)
        if known.boot != self.boot:
            return {}
        self._generation = known.generation
        self.companions.adopt(known.companions)
        reopened = list(Population.reopen(known))
        living = {record.bus for record, _ in reopened}
        dead = tuple(record.bus for record in known.processes if record.bus not in living)
        # Who attends a new kernel may not have heard of these any more.
        missed = Order(id=0, dead=(*known.dead, *dead), deserted=(*known.deserted, *known.porters))
        self._herald.recall(missed)
        found: dict[str, list[Found]] = {}
        for record, pidfd in reopened:
            what = self._what_runs(record)
            unit = what or orphan(record)
            self.population.add(Process(record, unit, pidfd, record.state, missed=missed))
            self.admit(unit)
            found.setdefault(record.unit, []).append(Found(record.generation, record.state, what))
        return {name: self._resume(name, known, found.get(name, [])) for name in self.lives} | {
            name: tuple(happenings.Kill(f.generation) for f in gone)
            for name, gone in found.items()
            if name not in self.lives
        }

    def _resume(self, name: str, known: Journal, found: list[Found]) -> tuple[Action, ...]:
        record = known.lives.get(name, LifeRecord(asleep=True))
        self.lives[name], actions = resume(self.units[name], record, found, time.monotonic())
        serving = self.lives[name].serving
        process = self.population.find(name, serving) if serving else None
        if process is not None:
            self.units[name] = process.unit
            # A successor that was coming is ended; what it would have listened on goes, too.
            self._listeners.withdraw(process.unit)
            self._later(self._await_adopted(process))
        return actions

    def _what_runs(self, record: ProcessRecord) -> Unit | None:
        unit = self.units.get(record.unit)
        if unit is None or unit.identity == record.identity:
            return unit
        try:
            return self._succession.of(unit, record.plugin)
        except SagongError:
            return None

    async def _await_adopted(self, process: Process) -> None:
        excused = hindered(process)
        while not process.attended.is_set() and not process.exited.is_set():
            try:
                async with asyncio.timeout(ADOPT_SECONDS):
                    await process.attended.wait()
            except TimeoutError:
                if not excused():
                    _LOG.warning("%s does not attend after the kernel's restart", process.unit.name)
                    kill(process)
                    return

    def _ended(self, process: Process) -> None:
        if any(future.done() for future in process.done.values()):
            # What it said at last is acted on first, such as why it does not start.
            asyncio.get_running_loop().call_soon(self._ended, process)
            return
        for future in process.done.values():
            if not future.done():
                future.set_exception(Ended(f"{process.unit.name} ended"))
        self.gone(process)
        name, generation = process.unit.name, process.generation
        self._herald.dead.append(process.record.bus)
        self._dead[process.unit.name, generation] = process.unit
        asyncio.get_running_loop().call_later(
            _GRAVE_SECONDS, self._forget, process.unit.name, generation
        )
        one, how = self.lives.get(name), self._ending(process)
        if one is not None and one.serving == generation and not self.stopping:
            facts = {"unit": name, "pid": process.record.pid, "how": how}
            _LOG.warning("unit died", extra=facts)
        self.feed(name, happenings.Exited(generation, how))
        if self._herald.dead:
            self.broadcast()

    def _ending(self, process: Process) -> str:
        log = self._cells.log(process.unit.name)
        # Of a process of an earlier kernel nobody knows what in the log is its own.
        said = last_words(log, process.spoken) if process.parent else ""
        return ending(process.status, said)

    def _reaped(self, pid: int, status: int) -> None:
        self.population.note_status(pid, status)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    async def see_through(self, work: Coroutine[Any, Any, T]) -> T:
        """Work that is finished even if whoever waits for it goes away."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await carried(task)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("background work failed", exc_info=task.exception())

    def _save(self) -> None:
        """Where there is no room now, soon: what is decided is done all the same.

        A kernel that dies before finds the journal of before, and ends those that it does not know.
        """
        if self._loading:
            return
        try:
            journal.write(self._journal, self._record())
        except OSError as error:
            self._refusals.say("the journal can't be written", "", problem=str(error))
            if self._saving is None:
                loop = asyncio.get_running_loop()
                self._saving = loop.call_later(_WRITE_SECONDS, self._save_again)

    def _save_again(self) -> None:
        self._saving = None
        self._save()

    def _record(self) -> Journal:
        gone = self._herald.known()
        return Journal(
            boot=self.boot,
            generation=self._generation,
            lives={name: record_of(one) for name, one in self.lives.items()},
            processes=self.population.records(),
            companions=self.companions.records(),
            porters=self.porters.paths(),
            dead=gone.dead,
            deserted=gone.deserted,
        )
