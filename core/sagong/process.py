"""A plugin's process: attends the kernel, follows its orders, hosts the plugin's one class.

States::

    attending ──start──► serving ──drain──► drained ──stop──► (exit)
                  │                                    ▲
                  └── the class failed: done(error), exit
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
import zmq

from sagong.bus import Access, Branches, Provider, Route, Switchboard, proxy
from sagong.bus.events import ASLEEP, Emitter, Word, events_spec, word_of
from sagong.bus.watch import wait_disconnected
from sagong.call import carried, current, detached
from sagong.contract import Message, conforms, filling, slot_of
from sagong.contracts import find as find_contract
from sagong.contracts.kernel import (
    AccessEntry,
    Attendance,
    Done,
    Flood,
    Idle,
    Kernel,
    Order,
    ProcessReport,
    SpanList,
    Waking,
)
from sagong.deputy import Appointed, Deputation, Post, appoint
from sagong.errors import (
    DeadlineExceeded,
    Gone,
    InvalidArgument,
    NotFound,
    SagongError,
    Unavailable,
)
from sagong.failures import tell
from sagong.hooks import points, wrapped
from sagong.patience import PATIENCE
from sagong.report import GaugeReader, account
from sagong.settings import decoded
from sagong.tracing import RECORDER

__all__ = ["Launch", "ProcessHost", "configure_logging", "import_all", "run"]

_KERNEL = ("kernel", 1, "")
_ALONE_SECONDS = 5.0
# How long callers may take to hear of a successor.
_DESERTED_SECONDS = 3.0
# What calls have to give back that were in flight longer than a drain may last.
_UNDO_SECONDS = 2.0
# To import a hook and make it.
_HOOK_SECONDS = 20.0
S = TypeVar("S")
C = TypeVar("C", bound=msgspec.Struct)
M = TypeVar("M", bound=Message)


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """All that a new process is told; also in the environment variable SAGONG_LAUNCH as JSON."""

    unit: str
    plugin: str
    class_: str
    generation: int
    instance: str = ""
    kernel: str
    bus: str
    data: str
    run: str
    root: str
    provides: tuple[tuple[str, int], ...] = ()
    uses: tuple[tuple[str, int, str], ...] = ()
    settings: dict[str, Any] = {}
    places: dict[str, str] = {}
    listeners: dict[str, int] = {}
    hooks: tuple[tuple[str, str], ...] = ()  # (package:Class, directory to import it from or "")
    deputy: Deputation | None = None
    idle_seconds: float = 0.0  # after this long without work the kernel is told; 0: never


class _LineFormatter(logging.Formatter):
    """One line per event: time, level, unit, message, then facts as key=value."""

    _KNOWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record).replace("\n", "\n    ")
        facts = {k: v for k, v in vars(record).items() if k not in self._KNOWN}
        if cause := current().cause:
            facts.setdefault("request", cause)
        return line + "".join(f" {k}={json.dumps(v, default=str)}" for k, v in facts.items())


def configure_logging() -> None:
    """Facts with fields on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _LineFormatter("%(asctime)s.%(msecs)03d %(levelname)s %(name)s %(message)s", "%FT%T")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


class ProcessHost:
    """The `Host` of a plugin in its own process (see `sagong.host.Host` for what each part means)."""

    def __init__(self, launch: Launch, deputy: Appointed | None = None) -> None:
        self.name = launch.unit
        self.instance = launch.instance
        self.data = Path(launch.data)
        self.run = Path(launch.run)
        self.root = Path(launch.root)
        self.log = logging.getLogger(f"sagong.{launch.unit}")
        self._launch = launch
        self._deputy = deputy
        self._context: zmq.Context[Any] = zmq.Context()
        self._kernel = Route(self._context, "kernel")
        self._routes = Switchboard(self._context, launch.uses, {_KERNEL: self._kernel})
        self._provider: Provider | None = None
        self._emitter = Emitter(self._summon)
        # How far events were dealt with, by where they come from and their kind; 0: not known now.
        self._positions: dict[tuple[Route, str], int] = {}
        self._hooks: tuple[object, ...] = ()
        self._gauges: dict[str, GaugeReader] = {}
        self._plugin: Any = None
        self._former: Any = None
        self._access: dict[int, Access] = {}
        self._letting_go: asyncio.Task[tuple[bytes, float]] | None = None
        self._obeyed: set[int] = set()
        self._succeeded = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._orders: set[asyncio.Task[None]] = set()
        self._started = 0.0
        self._ended = asyncio.Event()
        self._code = 0

    def config(self, kind: type[C]) -> C:
        """The unit's settings as the plugin's own struct."""
        return decoded(kind, self._launch.settings, self.name, self._launch.places)

    def use(self, protocol: type[S], instance: str = "") -> S:
        """A proxy; only what the manifest's [uses] names."""
        return proxy(protocol, self._route(protocol, instance, "uses"))

    def providers(self, protocol: type) -> Branches:
        """The instances of a slot whose every one is granted."""
        spec = slot_of(protocol)
        branches = self._routes.branches(spec)
        if branches is None:
            raise InvalidArgument(
                f"{self._launch.plugin}: plugin.toml's [uses] does not name every instance of "
                f'{spec.wire_name}: write instance = "*"'
            )
        return branches

    def emit(self, event: Message) -> None:
        """Tell all listeners."""
        self._emitter.emit(event)

    async def hear(
        self, protocol: type, kind: type[M], instance: str = ""
    ) -> AsyncIterator[M | None]:
        """Events, over the provider's restarts; None whenever some may have been missed."""
        route = self._route(protocol, instance, "hears")
        spec = events_spec(slot_of(protocol))
        decoder = msgspec.msgpack.Decoder(kind)
        known, place = False, (route, kind.__name__)
        while True:
            try:
                with detached():
                    async for item in route.stream(spec, None):
                        position = self._positions.get(place, 0) + 1
                        self._positions[place] = 0
                        if item.number == 0:
                            # One that fell asleep has let nothing be missed.
                            if item.name != ASLEEP or not known:
                                yield None
                            known, position = True, item.position
                        elif item.name == kind.__name__:
                            yield decoder.decode(item.body)
                        self._positions[place] = position
            except (Unavailable, Gone):
                if route.withdrawn:
                    return
                await asyncio.sleep(0.02)
                await route.wait_served()

    async def leave_word(self, protocol: type, instance: str = "") -> None:
        """Have this unit woken by the next event that `hear` has not dealt with."""
        route = self._route(protocol, instance, "hears")
        spec = slot_of(protocol)
        heard = (position for place, position in self._positions.items() if place[0] is route)
        word = Word(position=min(heard, default=0))
        await route.call(word_of(spec.name, spec.version), word)

    def _summon(self, units: Iterable[str]) -> None:
        for unit in units:
            self._background(self.wake(unit))

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._orders.add(task)
        task.add_done_callback(self._orders.discard)

    async def wake(self, unit: str) -> None:
        """Tell the kernel; where it is away its successor brings up all who wait for something."""
        try:
            await proxy(Kernel, self._kernel).wake(Waking(unit=unit))
        except SagongError as error:
            self.log.info("can't wake %s: %s", unit, error.message)

    def gauge(self, name: str, read: Callable[[], float], help: str) -> None:
        """A figure of the plugin's own, read whenever a report is asked for."""
        self._gauges[name] = GaugeReader(name, read, help)

    @property
    def has_hooks(self) -> bool:
        """Whether this process has any."""
        return bool(self._launch.hooks)

    def hooks(self, kind: type[S]) -> S:
        """What all hooks say of an extension point."""
        return points(cast(type, kind), self._hooks)

    def listener(self, name: str) -> socket.socket:
        """A socket that the kernel opened and the keeper holds."""
        fd = self._launch.listeners.get(name)
        if fd is None:
            raise NotFound(f"{self.name} has no listener {name}; see [listens] of its plugin.toml")
        sock = socket.socket(fileno=os.dup(fd))
        sock.setblocking(False)
        return sock

    def deputy(self) -> socket.socket:
        """The socket to the unit's deputy."""
        if self._deputy is None:
            raise NotFound(f"{self.name} has no deputy; see [deputy] of its plugin.toml")
        return self._deputy.channel

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Background work; its failure ends the process, so that the supervisor sees it."""
        with detached():
            task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._work_ended)
        return task

    async def live(self) -> int:
        """Attend the kernel until told to stop; the exit status."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._ended.set)
        if self._deputy is not None:
            loop.add_reader(os.pidfd_open(self._deputy.pid), self._deputy_ended)
        attending = loop.create_task(self._attend(), name="attending the kernel")
        attending.add_done_callback(self._work_ended)
        await self._ended.wait()
        attending.cancel()
        await asyncio.gather(attending, return_exceptions=True)
        await self._close()
        return self._code

    def _route(self, protocol: type, instance: str, table: str) -> Route:
        spec = slot_of(protocol)
        route = self._routes.find(spec, instance)
        if route is None:
            raise InvalidArgument(
                f"{self._launch.plugin}: plugin.toml's [{table}] does not name {spec.wire_name}"
                + (f" instance {instance}" if instance else "")
            )
        return route

    def _work_ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        tell(self.log, task.get_name(), self.name, error)
        self._end(1)

    def _deputy_ended(self) -> None:
        """What it held is lost to this process: only a new one has it again."""
        if not self._ended.is_set():
            self.log.error("the deputy ended")
            self._end(1)

    def _end(self, code: int) -> None:
        self._code = self._code or code
        self._ended.set()

    async def _attend(self) -> None:
        attendance = Attendance(
            unit=self.name, generation=self._launch.generation, pid=os.getpid(), health=True
        )
        while True:
            link = self._kernel.renew(self._launch.kernel)
            monitor = asyncio.get_running_loop().create_task(wait_disconnected(link))
            try:
                async for order in proxy(Kernel, self._kernel).attend(attendance):
                    self._follow(order)
            except Unavailable:
                pass
            except SagongError as error:
                self.log.error("the kernel refuses this process: %s", error)
                self._end(3)
                return
            finally:
                monitor.cancel()
            await asyncio.sleep(0.05)

    def _follow(self, order: Order) -> None:
        for path in order.dead:
            self._routes.bury(path)
        for path in order.deserted:
            self._routes.bury(path, executed=False)
        if order.routes is not None:
            self._routes.take(order.routes)
        if order.down is not None:
            self._routes.mark_down(order.down)
        if order.access is not None:
            self._grant(order.access)
        if order.tracing is not None:
            RECORDER.switch(on=order.tracing)
        # Who attends anew in the midst of an action is ordered it again, and reports its one end.
        if order.action and order.id not in self._obeyed:
            self._obeyed.add(order.id)
            self._background(self._obey(order))

    def _grant(self, entries: tuple[AccessEntry, ...]) -> None:
        self._access = {e.uid: Access(e.name, frozenset(e.methods), e.rules) for e in entries}
        if self._provider is not None:
            self._provider.grant(self._access)

    async def _obey(self, order: Order) -> None:
        error, state, until = "", b"", 0.0
        try:
            if order.action == "start":
                await self._start(order.state)
            elif order.action == "drain":
                state, until = await self._drain(order)
            elif order.action == "report":
                state = msgspec.msgpack.encode(self._account())
            elif order.action == "spans":
                state = msgspec.msgpack.encode(SpanList(spans=RECORDER.of(order.state.decode())))
            elif order.action in ("health", "purge"):
                await self._hook(order.action)
            elif order.action == "stop":
                self._end(0)
                return
        except Exception as failure:
            # Of what others did not do the kernel tells the words: where we asked helps nobody.
            told = tell(self.log, order.action, self.name, failure)
            error = f"{type(told).__name__}: {told}"
        await self._report(order, state, error, until)
        self._obeyed.discard(order.id)
        if error and order.action == "start":
            self._end(1)

    def _account(self) -> ProcessReport:
        """What this process has done, for the order "report"."""
        found = account(self.name, self._launch.plugin, self._launch.generation, self._provider)
        gauges = tuple(gauge.read() for gauge in self._gauges.values())
        return msgspec.structs.replace(found, gauges=gauges, troubles=PATIENCE.troubles())

    async def _report(self, order: Order, state: bytes, error: str, until: float) -> None:
        done = Done(
            unit=self.name,
            generation=self._launch.generation,
            order=order.id,
            state=state,
            error=error,
            until=until,
        )
        with contextlib.suppress(SagongError):
            await proxy(Kernel, self._kernel).done(done)

    async def _start(self, state: bytes) -> None:
        if self._plugin is not None:
            return  # the kernel died between our start and our report, and orders it again
        self._emitter.hold()
        asyncio.get_running_loop().call_later(_DESERTED_SECONDS, self._emitter.release)
        self._hooks = tuple(self._load_hook(*hook) for hook in self._launch.hooks)
        plugin = _class(self._launch.class_)(self)
        self._plugin = plugin
        if state:
            await self._hook("restore", state)
        await self._hook("start")
        if self._launch.provides:
            self._serve(plugin)
        self._started = time.monotonic()
        if self._launch.idle_seconds:
            self._look_again(self._launch.idle_seconds)

    def _look_again(self, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        """Whether there was nothing to do for long enough; the kernel decides what follows."""
        if self._plugin is None:
            return
        now, used = time.monotonic(), self._started
        if self._provider is not None:
            used = max(used, self._provider.used)
            used = now if self._provider.engaged else used
        if _is_busy(self._plugin):
            used = self._started = now
        left = used + self._launch.idle_seconds - now
        self._look_again(left if left > 0 else self._launch.idle_seconds)
        if left <= 0:
            self._background(self._say_idle())

    async def _say_idle(self) -> None:
        idle = Idle(unit=self.name, generation=self._launch.generation)
        with contextlib.suppress(SagongError):
            await proxy(Kernel, self._kernel).idle(idle)

    def _load_hook(self, class_: str, directory: str) -> object:
        if directory and directory not in sys.path:
            sys.path.append(directory)  # behind all that is the platform's own
        who, made = f"hook {class_}", lambda: _class(class_)(self)
        return cast(object, PATIENCE.step(who, "its making", made, _HOOK_SECONDS))

    def _serve(self, plugin: Any) -> None:
        provider = Provider(self._context, self._launch.bus, self._flooded)
        for slot, version in self._launch.provides:
            protocol = find_contract(slot, version)
            implementation = filling(plugin, protocol)
            conforms(protocol, implementation)
            provider.serve(protocol, wrapped(slot_of(protocol), implementation, self._hooks))
            events = events_spec(slot_of(protocol))
            provider.add(events, self._emitter.listen, passive=True)
            provider.add(word_of(slot, version), self._emitter.word, passive=True)
        provider.grant(self._access)
        provider.bind()
        self._provider = provider

    def _flooded(self, uid: int, seconds: float) -> None:
        """The kernel may do more against a caller than shut it out."""
        told = proxy(Kernel, self._kernel).flooded(Flood(uid=uid, seconds=seconds))
        self._background(_quietly(told))

    async def _drain(self, order: Order) -> tuple[bytes, float]:
        """Once: a new kernel, which has not heard of it, orders it again, also in the midst of it."""
        if self._letting_go is None:
            self._letting_go = asyncio.get_running_loop().create_task(self._let_go(order))
        return await carried(self._letting_go)

    async def _let_go(self, order: Order) -> tuple[bytes, float]:
        """Finish what is in flight; then the plugin ends its work and hands over its state.

        One that falls asleep says first what it waits for, and until when it may sleep.
        """
        self._succeeded = order.successor
        # Streams may go on long beside a successor; without one everything is to end.
        seconds = order.seconds if order.successor else min(order.seconds, _ALONE_SECONDS)
        try:
            async with asyncio.TaskGroup() as group:
                if self._provider is not None:
                    group.create_task(self._provider.drain(seconds))
                group.create_task(self._bounded(self._hook("drain"), seconds))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        if self._provider is not None:
            await self._provider.cut(_UNDO_SECONDS)
        try:
            async with asyncio.timeout(seconds):
                until = await self._hook("doze") if order.asleep else 0.0
        except TimeoutError:
            raise DeadlineExceeded(
                f"who was to hear what it waits for did not answer within {seconds:g} s"
            ) from None
        state = await self._hook("export") if order.successor else b""
        await self._stop_plugin()
        return state or b"", until or 0.0

    async def _hook(self, name: str, *arguments: Any) -> Any:
        """A step of the plugin's life, if it has it; a slot's method of that name is none."""
        plugin = self._plugin
        kinds = [find_contract(slot, version) for slot, version in self._launch.provides]
        filled = [kind for kind in kinds if filling(plugin, kind) is plugin]
        if plugin is None or any(name in slot_of(kind).methods for kind in filled):
            return None
        step = getattr(plugin, name, None)
        return await step(*arguments) if step is not None else None

    async def _bounded(self, work: Any, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await work

    async def _stop_plugin(self) -> None:
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.remove_done_callback(self._work_ended)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._plugin is not None:  # after a drain it has stopped, and is to tidy up
            await self._hook("stop")
            self._plugin, self._former = None, self._plugin

    async def _close(self) -> None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(5.0):
                await self._stop_plugin()
                self._plugin, self._former = self._former, None
                await self._hook("tidy")
        if self._provider is not None:
            if self._succeeded:
                await self._provider.wait_deserted(_DESERTED_SECONDS)
            await self._provider.close()
        self._routes.close()
        self._kernel.close()
        self._context.destroy(linger=100)


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(SagongError):
        await work


def _is_busy(plugin: Any) -> bool:
    """Work that is no call: what the plugin's own `busy` says, if it has one."""
    busy = getattr(plugin, "busy", None)
    return bool(busy()) if busy is not None else False


def _class(text: str) -> Any:
    """The class that `package:Class` names."""
    module, _, name = text.partition(":")
    return getattr(importlib.import_module(module), name)


def run(launch: Launch) -> int:
    """Be the process that `launch` describes, until told to end; the exit status."""
    import uvloop

    configure_logging()
    RECORDER.unit = launch.unit
    deputy = _deputy(launch)
    try:
        _class(launch.class_)
    except Exception:  # before it attends: whom it is to follow has not let go of anything
        logging.getLogger("sagong").exception("%s can't be imported", launch.class_)
        return 1
    with contextlib.suppress(Exception):  # a failure is told at the start
        import_all(launch)

    async def live() -> int:
        return await ProcessHost(launch, deputy).live()

    return uvloop.run(live())


def import_all(launch: Launch) -> None:
    """Import the class and what it needs with these settings, before the process attends."""
    imports = getattr(_class(launch.class_), "imports", None)
    if imports is not None:
        imports(launch.settings)


def _deputy(launch: Launch) -> Appointed | None:
    """First of all, as long as there are no threads: capabilities are each thread's own."""
    if launch.deputy is None:
        return None
    post = Post(Path(launch.data), Path(launch.run), Path(launch.root), launch.settings)
    return appoint(launch.deputy, post, f"sagong-{launch.unit}-deputy")
