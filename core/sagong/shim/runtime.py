"""The slot's methods over monitors. A runtime adds plans; its launcher has the engine for them."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import os
import weakref
from collections.abc import AsyncIterator, Coroutine
from typing import Any, cast

import msgspec

from sagong.call import carried
from sagong.contracts.runtime import (
    AttachRequest,
    Container,
    ContainerList,
    ContainerRef,
    ExecRequest,
    ExecStatus,
    Exited,
    OutOfMemory,
    ProcessList,
    ResizeRequest,
    RunSpec,
    Shown,
    ShowRequest,
    SignalRequest,
    UpdateRequest,
)
from sagong.contracts.streams import Address
from sagong.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SagongError,
    Unavailable,
)
from sagong.host import Host
from sagong.shim.books import Books
from sagong.shim.directory import RunDirectory
from sagong.shim.execs import Execs
from sagong.shim.links import Links
from sagong.shim.records import Record
from sagong.shim.requests import check_sources
from sagong.shim.rooms import Rooms
from sagong.shim.starts import Plans, Starts

__all__ = ["MonitoredRuntime", "Plans"]

_REMOVE_SECONDS = 20.0
_ADOPT_ATTEMPTS = 20
_LAST_SIGNAL = 64
_LEAST_OOM_SCORE = -1000


class MonitoredRuntime:
    """Runs containers by a launcher and its monitors.

    `cgroup_parent` is where containers without a parent of their own go. A monitor watches up to
    `containers_per_monitor` of them, where nothing of the engine waits; a group is never divided.
    """

    def __init__(
        self, host: Host, plans: Plans, *, cgroup_parent: str, containers_per_monitor: int = 1
    ) -> None:
        self._host = host
        # A lock lives as long as somebody holds it or waits for it.
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._tasks: set[asyncio.Task[Any]] = set()
        directory = RunDirectory(str(host.run))
        self._links = Links(
            directory, host.log, self._event, self._monitor_gone, self._watched, plans.maker
        )
        self._books = Books(directory, self._links)
        self._records, self._files = self._books.records, self._books.files
        self._execs = Execs(self._books)
        rooms = Rooms(containers_per_monitor, len(os.sched_getaffinity(0)))
        self._starts = Starts(self._books, plans, rooms, cgroup_parent)

    # -- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Reach the launcher, then adopt what runs."""
        await self._links.open()
        self._tell_bounds()
        self._host.spawn(self._links.keep_launcher(), "launcher-link")
        await self._adopt_all()

    def _tell_bounds(self) -> None:
        """Once, what pods do not get here though they ask for it."""
        least = self._books.facts.least_oom_score
        if least > _LEAST_OOM_SCORE:
            self._host.log.warning(
                "without CAP_SYS_RESOURCE no container is spared by the OOM killer: pods' scores "
                "are raised to the least that this machine allows",
                extra={"least": least},
            )

    async def stop(self) -> None:
        """Containers, monitors and launcher live on."""
        for task in tuple(self._tasks):
            task.cancel()
        self._links.close()

    def busy(self) -> bool:
        """Whether a container lives, or something is done about one."""
        return bool(self._tasks) or any(r.exit is None for r in self._records.values())

    async def export(self) -> bytes:
        """Everything is in the run directory."""
        return b""

    async def restore(self, state: bytes) -> None:
        """Read again what the predecessor did after our own start."""
        await self._adopt_all()

    def _lock(self, container_id: str) -> asyncio.Lock:
        return self._locks.setdefault(container_id, asyncio.Lock())

    async def _whole(self, work: Coroutine[Any, Any, Any], lock: asyncio.Lock | None = None) -> Any:
        """Finish work, then let `lock` go, even when its caller goes away: half helps nobody."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if lock is not None:
            task.add_done_callback(lambda _: lock.release())
        return await carried(task)

    # -- run -----------------------------------------------------------------------------------

    async def run(self, spec: RunSpec) -> Container:
        """Start a container."""
        lock = self._lock(spec.id)
        await lock.acquire()
        return cast(Container, await self._whole(self._starts.run(spec), lock))

    async def prepare(self, spec: RunSpec) -> None:
        """Do ahead what a run needs."""
        lock = self._lock(spec.id)
        await lock.acquire()
        await self._whole(self._starts.prepare(spec), lock)

    async def discard(self, container: ContainerRef) -> None:
        """Take that back."""
        await self._discard(container.id)

    async def _discard(self, container_id: str, *, lapsed: bool = False) -> None:
        lock = self._lock(container_id)
        await lock.acquire()
        await self._whole(self._take_back(container_id, lapsed=lapsed), lock)

    async def _take_back(self, container_id: str, *, lapsed: bool) -> None:
        record = self._records.get(container_id)
        if record is None or not record.prepared:
            return
        if lapsed:
            self._starts.forget(record)
        else:
            await self._starts.discard(record)

    def _later(self, work: Coroutine[Any, Any, None], lock: asyncio.Lock | None = None) -> None:
        """Begin work that nobody waits for, then let `lock` go."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        if lock is not None:
            task.add_done_callback(lambda _: lock.release())
        task.add_done_callback(self._later_done)

    def _later_done(self, task: asyncio.Task[None]) -> None:
        """What it was to do is done at the next start, or by whoever asks for it."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            expected = isinstance(error, SagongError | OSError)
            self._host.log.warning(
                "left to be done later: %s", error, exc_info=None if expected else error
            )

    # -- exec and streams ----------------------------------------------------------------------

    async def exec(self, request: ExecRequest) -> ExecStatus:
        """Start a process in a container."""
        if not request.exec_id or "/" in request.exec_id or request.exec_id.startswith("."):
            raise InvalidArgument(f"exec id {request.exec_id!r} can't be a file's name")
        record = self._books.find(request.id)
        known = self._execs.known(record, request.exec_id)
        if known is not None:
            return await self._execs.again(record, request, known)
        if record.exit is not None:
            raise FailedPrecondition(f"container {request.id} is not running")
        if record.paused:
            raise FailedPrecondition(
                f"Container {request.id} is paused, unpause the container before exec"
            )
        status: ExecStatus = await self._whole(self._execs.start(record, request))
        return status

    async def exec_status(self, request: ExecRequest) -> ExecStatus:
        """Status of an exec."""
        return self._execs.status(self._books.find(request.id), request)

    async def attach(self, request: AttachRequest) -> Address:
        """An address for the streams."""
        record = self._books.find(request.id)
        if record.exit is not None:
            raise FailedPrecondition(f"container {request.id} is not running")
        message = {
            "op": "attach",
            "id": request.id,
            "stdin": request.stdin,
            "replay": request.replay,
        }
        answer = await self._links.ask(record.key, message)
        return self._books.address(record, answer["token"])

    async def resize(self, request: ResizeRequest) -> None:
        """Resize a terminal."""
        record = self._books.running(request.id)
        message = {
            "op": "resize",
            "id": request.id,
            "exec_id": request.exec_id,
            "rows": request.rows,
            "columns": request.columns,
        }
        try:
            await self._links.ask(record.key, message)
        except FailedPrecondition as error:
            raise NotFound(error.message) from None

    # -- control -------------------------------------------------------------------------------

    async def signal(self, request: SignalRequest) -> None:
        """Signal a container."""
        if not 0 < request.signal <= _LAST_SIGNAL:
            raise InvalidArgument(f"signal {request.signal} does not exist")
        record = self._books.running(request.id)
        await self._books.job(record, "signal", signal=request.signal, all=request.all)
        if request.signal == 9:
            self._set_paused(record, paused=False)

    async def pause(self, container: ContainerRef) -> None:
        """Freeze."""
        record = self._books.running(container.id)
        await self._books.job(record, "freeze")
        self._set_paused(record, paused=True)

    async def resume(self, container: ContainerRef) -> None:
        """Thaw."""
        record = self._books.running(container.id)
        await self._books.job(record, "thaw")
        self._set_paused(record, paused=False)

    def _set_paused(self, record: Record, *, paused: bool) -> None:
        record.paused = paused
        if paused:
            self._files.mark(record.spec.id, "paused")
        else:
            self._files.unmark(record.spec.id, "paused")

    async def update(self, request: UpdateRequest) -> None:
        """Change limits."""
        record = self._books.running(request.id)
        limits = msgspec.to_builtins(request.limits)
        await self._books.job(record, "limit", limits=limits)

    async def inspect(self, container: ContainerRef) -> Container:
        """One container."""
        return self._books.find(container.id).container()

    async def processes(self, container: ContainerRef) -> ProcessList:
        """The container's processes."""
        record = self._books.running(container.id)
        answer = await self._books.job(record, "processes")
        return msgspec.convert(answer, ProcessList)

    async def list(self) -> ContainerList:
        """All containers."""
        found = (r.container() for r in self._records.values() if not r.starting)
        return ContainerList(containers=tuple(found))

    async def purge(self) -> None:
        """End and remove every container."""
        for record in list(self._records.values()):
            await self.remove(ContainerRef(id=record.spec.id))

    async def remove(self, container: ContainerRef) -> None:
        """Kill, forget, clean up."""
        lock = self._lock(container.id)
        await lock.acquire()
        await self._whole(self._remove(container.id), lock)

    async def _remove(self, container_id: str) -> None:
        record = self._records.get(container_id)
        if record is None:
            return
        if record.prepared:
            await self._starts.discard(record)
            return
        if record.exit is None:
            await self._books.job(record, "sweep", remove=False)
            await self._await_end(record)
        await self._books.clear(record)
        self._records.pop(record.spec.id, None)

    async def _await_end(self, record: Record) -> None:
        """Its output may be held back for somebody to attach; nobody will now."""
        with contextlib.suppress(SagongError):
            await self._links.ask(record.key, {"op": "let_go", "id": record.spec.id})
        try:
            await asyncio.wait_for(record.ended.wait(), _REMOVE_SECONDS)
        except TimeoutError:
            raise Unavailable(
                f"container {record.spec.id} did not end in {_REMOVE_SECONDS:.0f} s after SIGKILL"
            ) from None

    async def wait(self, container: ContainerRef) -> AsyncIterator[Exited]:
        """One item at the end of the present run."""
        record = self._books.find(container.id)
        await record.ended.wait()
        if record.exit is not None:
            yield record.exit

    async def refresh(self, container: ContainerRef) -> None:
        """By a job in the container's mount namespace."""
        await self._books.job(self._books.running(container.id), "refresh")

    async def show(self, request: ShowRequest) -> AsyncIterator[Shown]:
        """By a fork of the launcher, which sees the machine."""
        check_sources(request)
        directory = str(self._host.root / "mounts")
        async with self._links.showing(directory, request) as (paths, ended):
            yield Shown(paths=paths)
            await ended.wait()
        raise Unavailable("what was shown of the machine is hidden again: its process ended")

    def _event(self, key: str, message: dict[str, Any]) -> None:
        record = self._records.get(message["id"])
        if record is None:
            return
        match message["event"]:
            case "exited":
                self._ended(record, message)
            case "lapsed":
                self._later(self._discard(record.spec.id, lapsed=True))
            case "cleaned":
                record.cleaned.set()
            case "oom":
                record.oom_killed = True
                self._host.emit(OutOfMemory(id=record.spec.id, run=record.spec.run))
            case "exec_exited":
                self._execs.ended(record, message["exec_id"], message["code"])

    def _ended(self, record: Record, facts: dict[str, Any]) -> None:
        """The mark comes first: a crash in between is healed by listeners' resynchronisation.

        Without room for it the end is told, and told again after a crash: listeners know the run.
        """
        if record.exit is not None or facts["run"] != record.spec.run:
            return
        record.finish(facts)
        if self._files.mark_first(record.spec.id, "emitted") and record.exit is not None:
            self._host.emit(record.exit)

    def _monitor_gone(self, key: str) -> None:
        """The end of a monitor's work, or its death: then a successor takes over."""
        mine = [r for r in self._records.values() if r.key == key]
        for record in mine:
            if record.prepared:
                self._later(self._discard(record.spec.id))
        left = [r for r in mine if not r.starting]
        for record in left:
            if record.exit is not None:
                record.cleaned.set()
        if any(record.exit is None for record in left):
            self._host.log.warning("monitor ended early; replacing it", extra={"key": key})
            self._later(self._succeed(key))

    def _watched(self, key: str) -> builtins.list[str]:
        """Containers that a monitor of this key must watch."""
        mine = (r for r in self._records.values() if r.key == key)
        return [r.spec.id for r in mine if r.exit is None and not r.starting]

    async def _succeed(self, key: str) -> None:
        """Let a new monitor adopt the containers of a dead one."""
        for attempt in range(_ADOPT_ATTEMPTS):
            if not self._watched(key):
                return
            try:
                link = await self._links.obtain(key)
                # What has ended since is not adopted again.
                ids = self._watched(key)
                adopted = (await link.ask({"op": "adopt", "ids": ids}))["containers"]
                for container_id in ids:
                    record = self._records[container_id]
                    if container_id in adopted:
                        self._execs.learn_codes(record)
                    else:
                        del self._records[container_id]
                        await self._sweep_failed(container_id, record.spec)
            except SagongError as error:
                self._host.log.warning(
                    "no successor for a monitor yet: %s", error.message, extra={"key": key}
                )
                await asyncio.sleep(0.05 * (attempt + 1))
            else:
                return

    async def _adopt_all(self) -> None:
        """Read the directory: what runs is taken over, what ended is told, the rest swept."""
        keys: dict[str, builtins.list[str]] = {}
        for container_id in self._files.ids():
            spec, state = self._files.spec(container_id), self._files.state(container_id)
            if container_id in self._records:
                continue
            if spec is None or state is None:
                await self._sweep_later(container_id, spec)
                continue
            record = self._records[container_id] = self._files.load(spec, state)
            keys.setdefault(record.key, []).append(container_id)
        for key, ids in keys.items():
            await self._adopt_key(key, ids)

    async def _sweep_later(self, container_id: str, spec: RunSpec | None) -> None:
        """One that does not go keeps nobody from the others, but from its own next run."""
        lock = self._lock(container_id)
        if not lock.locked():  # else somebody is at it
            await lock.acquire()
            self._later(self._sweep_failed(container_id, spec), lock)

    async def _sweep_failed(self, container_id: str, spec: RunSpec | None) -> None:
        """A start that a crash interrupted."""
        if spec is not None:
            await self._books.job(self._starts.new_record(spec), "sweep")
        self._files.remove(container_id)

    async def _adopt_key(self, key: str, ids: builtins.list[str]) -> None:
        """By its living monitor, by the exit file, or by a successor."""
        link = await self._links.find(key)
        alive: dict[str, Any] = {}
        if link is not None:
            with contextlib.suppress(SagongError):
                alive = (await link.ask({"op": "hello"}))["containers"]
        missing = False
        for container_id in ids:
            record = self._records[container_id]
            facts = self._files.exit(container_id)
            watched = alive.get(container_id, {"ended": True})
            if facts is not None and watched["ended"]:
                self._ended(record, facts)
                if container_id not in alive:
                    self._later(self._clean(record))
            elif container_id not in alive:
                missing = True
        if missing:
            await self._succeed(key)

    async def _clean(self, record: Record) -> None:
        """What its monitor did not, as it died; who removes it waits for that, and tries it himself."""
        await self._books.job(record, "sweep")
        record.cleaned.set()
